"""The messages between driver, launcher, worker and ranks: one JSON object `{name: {fields}}` a line.

This is their only definition: both ends of the pipe import this file, which needs only the standard library.
A message's name is its `tag`, or else its class name in snake_case.

```
driver -> worker     Advance, Evaluate, MeasureFingerprint, MeasureGradientNoise, Close       (Command)
worker -> driver     Phase, Ready, Slice, Evaluation, Fingerprint, GradientNoise, Failure     (Event)
driver -> launcher   Fork, sent with three descriptors: commands, events, log
launcher -> driver   Launcher, Forked, Exited                                                 (Notice)
```
The driver does not trust workers: it reads with `autotune.trial.codec`, which checks every field. The functions here
are for the processes that it starts, which trust it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, ClassVar, TypeVar, get_args

M = TypeVar("M")


# -- worker to driver --------------------------------------------------------------------------------


class PhaseName(StrEnum):
    """The stages that a worker reports during set-up."""

    STARTED = "started"  # the process is running and has its arguments
    BUILT = "built"  # data, model and optimizer are built


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stage that a worker has reached before `Ready`."""

    name: PhaseName


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a session reports once it can train.

    `setup_seconds` runs from process start until the model is built; `compile_seconds` is what
    compilation added to the first pass (0 if nothing is compiled). `parameters` counts shared
    weights once. `flops_per_token` is 6N + 12*L*H*Q*T (PaLM, appendix B).
    """

    setup_seconds: float
    compile_seconds: float
    parameters: int
    flops_per_token: float
    tokens_per_step: int
    horizon_steps: int
    peak_memory_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A few whole optimizer steps, timed inside the worker between two device synchronisations.

    `round` is its pairing round, or -1 if it ran alone. `tokens` and `energy_joules` are per device (its share, if
    several train together), because cost is counted in device-hours. `losses` are training losses in nats per token,
    one per step. `energy_joules` is the difference between meter readings at the start and the end, None without a
    meter. Meters update slowly, so only sums over many slices are meaningful. `skipped_steps` counts the steps without
    an update because a gradient overflowed in fp16.
    """

    round: int
    tokens: int
    seconds: float
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]
    peak_memory_bytes: int
    energy_joules: float | None = None
    skipped_steps: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Loss on the held-out documents after `tokens_seen` training tokens.

    `loss` and `stderr` (over windows) are in nats per token over `tokens` tokens; `bits_per_byte` is comparable
    across tokenizers.
    """

    tokens_seen: int
    loss: float
    stderr: float
    tokens: int
    bits_per_byte: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a session computes before its first step, to be compared with another session of the same seed.

    Each is a sketch: a random linear projection (`autotune_model.sketch`). The norm of the difference of two sketches
    estimates the norm of the difference of the originals. `logits` are of held-out windows; `gradient` is of the first
    global batch, not clipped; `update` is the weight change from one step at the peak learning rate. Their units are
    those of logits, loss per weight, and weights.
    """

    logits: tuple[float, ...]
    gradient: tuple[float, ...]
    update: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNoise:
    """Squared gradient norms after `tokens_seen` training tokens, from which the gradient noise is computed.

    `micro_square_norm` is the mean squared norm of the gradient of `micro_batch` sequences,
    `square_norm` that of the gradient of all `batch` sequences; both for a mean loss in nats per token.
    """

    tokens_seen: int
    micro_batch: int
    batch: int
    micro_square_norm: float
    square_norm: float


class InfeasibleKind(StrEnum):
    """Why a configuration cannot be used here. The search learns from these."""

    OUT_OF_MEMORY = "oom"
    PREDICTED_OUT_OF_MEMORY = "predicted_oom"
    TOO_SLOW = "too_slow"
    DIVERGED = "diverged"
    COMPILE = "compile"
    INVALID = "invalid"
    NOT_EQUIVALENT = "not_equivalent"


class FailedKind(StrEnum):
    """Why a trial gave no result although its configuration may be valid."""

    CRASH = "crash"
    HUNG = "hung"
    KILLED = "killed"  # by a signal that nothing explains; not by us
    IMPLAUSIBLE = "implausible"  # impossible figures: work in zero time, or more than the device can do


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a worker ends, with a one-line message. It is the worker's last event."""

    kind: InfeasibleKind | FailedKind
    message: str


Event = Phase | Ready | Slice | Evaluation | Fingerprint | GradientNoise | Failure
"""What a worker sends."""


# -- driver to worker --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Train `steps` whole optimizer steps; the slice carries the pairing round `round`."""

    steps: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Report the loss on the held-out documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureFingerprint:
    """Report the fingerprint; only before the first `Advance`."""

    tag: ClassVar[str] = "fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureGradientNoise:
    """Report the gradient noise over the next `batches` global batches, without training on them."""

    tag: ClassVar[str] = "gradient_noise"

    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """End the session."""


Command = Advance | Evaluate | MeasureFingerprint | MeasureGradientNoise | Close
"""What a worker receives."""


# -- the launcher ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Fork a worker for the session in the file `session`."""

    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A launcher has imported everything and accepts requests."""

    ready: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A launcher has started the worker `pid`."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The worker `pid` has ended with the raw status `status` of wait(2), which distinguishes a signal from an exit."""

    pid: int
    status: int


Notice = Launcher | Forked | Exited
"""What a launcher sends."""


# -- encoding and decoding in a worker ---------------------------------------------------------------


def tag(kind: type) -> str:
    """The name of a message, or of any member of a closed union: `gradient_noise` for `GradientNoise`."""
    own: str | None = getattr(kind, "tag", None)
    return own or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def encode(message: Event | Command | Notice | Fork) -> str:
    """The line of a message.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    body = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    return json.dumps({tag(type(message)): body}, allow_nan=False, separators=(",", ":")) + "\n"


def send(stream: IO[str], message: Event | Command) -> None:
    """Write one message and flush."""
    stream.write(encode(message))
    stream.flush()


def decode_command(line: str) -> Command:
    """Raises ValueError: the line is not a command."""
    command: Command = _decode(line, get_args(Command))
    return command


def decode_fork(line: bytes) -> Fork:
    """Raises ValueError: the line is not a `Fork`."""
    return _decode(line, (Fork,))


def decode_failure(line: str) -> Failure:
    """Raises ValueError: the line is not a failure."""
    said = _decode(line, (Failure,))
    kinds = InfeasibleKind if said.kind in tuple(InfeasibleKind) else FailedKind
    return Failure(kind=kinds(said.kind), message=said.message)


def _decode(line: str | bytes, kinds: tuple[type[M], ...]) -> M:
    """Decode a message of one of `kinds`; it must have exactly its fields."""
    by_name: dict[str, Any] = {tag(kind): kind for kind in kinds}
    try:
        ((name, body),) = json.loads(line).items()
        message: M = by_name[name](**body)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"a message must be one of {', '.join(by_name)} with all its fields; got {line[:200]!r} "
            f"({type(error).__name__}: {error}): install autotune anew, so that driver and worker are of one version"
        ) from None
    return message
