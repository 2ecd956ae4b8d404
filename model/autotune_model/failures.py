"""Maps an exception to the failure sent to the driver. No torch here: its errors are matched by name and message."""

from __future__ import annotations

from autotune_model.config import InvalidConfiguration
from autotune_model.protocol import FailedKind, Failure, InfeasibleKind

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Messages of the CPU (Linux, others), CUDA and MPS allocators; all are RuntimeErrors."""

_NO_SUCH_KERNEL = ("No available kernel", "No viable backend")
"""torch's messages on CUDA and on a CPU if the only allowed attention kernel does not support the input."""


class Diverged(ArithmeticError):
    """A loss or gradient is not finite, or the loss is worse than that of a uniform guess."""


def failure_report(error: Exception) -> Failure:
    """The kind of a failure, and a one-line message (torch's have many lines; the log has all of them)."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    first_line = first_line.encode(errors="replace").decode()  # a file name may contain bytes that are not text
    if isinstance(error, InvalidConfiguration):
        return Failure(kind=InfeasibleKind.INVALID, message=first_line)
    if isinstance(error, Diverged):
        return Failure(kind=InfeasibleKind.DIVERGED, message=first_line)
    kind: InfeasibleKind | FailedKind = FailedKind.CRASH
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    ):
        kind = InfeasibleKind.OUT_OF_MEMORY
    elif any(sign in first_line for sign in _NO_SUCH_KERNEL):
        kind = InfeasibleKind.INVALID  # this combination of knobs always fails here
    elif any(base.__name__ == "TorchDynamoException" for base in type(error).__mro__):
        kind = InfeasibleKind.COMPILE
    return Failure(kind=kind, message=f"{type(error).__name__}: {first_line}")
