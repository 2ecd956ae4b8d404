"""From an exception to what the driver is told. No torch here: its exceptions are known by name and message."""

from __future__ import annotations

from autotune_model.config import InvalidConfiguration
from autotune_model.protocol import FailureReport

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What the allocators of the CPU (Linux, others), of CUDA and of MPS say; all are RuntimeErrors."""

_NO_SUCH_KERNEL = ("No available kernel", "No viable backend")
"""What torch says on CUDA and on a CPU where the one attention kernel that it may use does not take the input."""


class Diverged(ArithmeticError):
    """The loss is no number, or worse than a uniform guess can explain."""


def failure_report(error: Exception) -> FailureReport:
    """The kind of a failure, and one line about it (torch's own messages go on for many; the log has them whole)."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, InvalidConfiguration):
        return FailureReport(kind="invalid", message=first_line)
    if isinstance(error, Diverged):
        return FailureReport(kind="diverged", message=first_line)
    kind = "crash"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
    ):
        kind = "oom"
    elif any(sign in first_line for sign in _NO_SUCH_KERNEL):
        kind = "invalid"  # combinations of knobs that are refused here every time
    elif any(base.__name__ == "TorchDynamoException" for base in type(error).__mro__):
        kind = "compile"
    return FailureReport(kind=kind, message=f"{type(error).__name__}: {first_line}")
