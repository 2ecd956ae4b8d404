"""The two protocols between the pipeline and a running worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune.executors.load import Load
from autotune.space.configuration import Configuration
from autotune.trial.types import Evaluation, FailedKind, Fingerprint, GradientNoise, InfeasibleKind, Ready, Slice
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine

_PROVEN = 10.0  # times as long
_PASSING = frozenset({FailedKind.CRASH, FailedKind.HUNG, FailedKind.KILLED})


class SessionEnded(Exception):
    """A session ended: its configuration is infeasible here, or it failed.

    `may_pass` says that the same session may do better another time: it crashed, hung, or somebody killed it.
    """

    def __init__(self, kind: InfeasibleKind | FailedKind, message: str, *, may_pass: bool | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.may_pass = kind in _PASSING if may_pass is None else may_pass


class OutOfTime(SessionEnded):
    """The driver had no more time to wait for a session, which may be in order."""

    def __init__(self) -> None:
        super().__init__(FailedKind.HUNG, "the time of the search is spent", may_pass=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the driver waits for a sign of progress before it ends a session, in seconds.

    `setup_seconds` covers imports, data and building the model; `pass_seconds` the first forward
    and backward pass, to which compilation may add `compile_seconds`; `step_seconds` one optimizer step. No wait for
    steps is shorter than `least_seconds`, which allows for the OS scheduler and for load.
    A session that exceeds the pass or its first steps is TOO_SLOW: slow and hung sessions are treated alike. One that
    has answered an `advance` in time is proven. It then gets ten times as long, because a load burst on a shared
    machine is not its fault. If it exceeds that, it is HUNG.
    """

    setup_seconds: float
    pass_seconds: float
    step_seconds: float
    compile_seconds: float = 0.0
    least_seconds: float = 1.0


def _for_ever() -> float:
    return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """A request to open a session of `configuration`; the worker's own output goes to `log_path`.

    `tokens_per_step` is the tokens of one optimizer step; `evaluation_tokens` the held-out tokens per evaluation.
    `left_seconds` says how long the driver can still wait for anything, however patient it is with this session. It is
    asked every second or two of a long wait.
    """

    configuration: Configuration
    seed: int
    horizon_tokens: int
    evaluation_tokens: int
    tokens_per_step: int
    order: WorkerOrder
    log_path: Path
    patience: Patience
    left_seconds: Callable[[], float] = _for_ever

    @property
    def first_pass_seconds(self) -> float:
        """How long to wait for the first pass."""
        return self.patience.pass_seconds + self.patience.compile_seconds

    def advance_seconds(self, steps: int, *, is_proven: bool) -> float:
        """How long to wait for `steps` steps."""
        seconds = max(self.patience.least_seconds, steps * self.patience.step_seconds)
        return _PROVEN * seconds if is_proven else seconds

    def evaluate_seconds(self) -> float:
        """How long to wait for an evaluation: ten times a first pass, and one step per step's worth of tokens.

        Generous: a forward pass is about a third of a step, and the session is proven.
        """
        steps = math.ceil(self.evaluation_tokens / self.tokens_per_step)
        return self._passes_seconds() + self.advance_seconds(steps, is_proven=True)

    def fingerprint_seconds(self) -> float:
        """How long to wait for a fingerprint: ten times a first pass plus two steps.

        A pass, because a compiled model with dropout is compiled again without it; two steps, because
        all weights and gradients are also read. The session is not proven yet. But a slow one is caught in its
        first slice, and a load burst must not count as wrong arithmetic.
        """
        least = self.patience.least_seconds
        return self._passes_seconds() + _PROVEN * max(least, 2 * self.patience.step_seconds)

    def gradient_noise_seconds(self, batches: int) -> float:
        """How long to wait for the gradient noise: a step per batch, of a proven session."""
        return self.advance_seconds(batches, is_proven=True)

    def _passes_seconds(self) -> float:
        """Ten times a first pass, and one compilation."""
        return _PROVEN * self.patience.pass_seconds + self.patience.compile_seconds


class Session(Protocol):
    """A live worker process. Every method may raise `SessionEnded`; `close` never does."""

    @property
    def ready(self) -> Ready: ...

    def advance(self, steps: int, round: int = -1) -> Slice:
        """Train `steps` optimizer steps and report them as one slice of pairing round `round`."""
        ...

    def evaluate(self) -> Evaluation:
        """Current loss on the held-out documents."""
        ...

    def fingerprint(self) -> Fingerprint:
        """What the session computes before its first step. Asking for it later ends the session."""
        ...

    def gradient_noise(self, batches: int) -> GradientNoise:
        """Squared gradient norms over the next `batches` global batches, which are not trained on."""
        ...

    def expect(self, patience: Patience) -> None:
        """Wait no longer than that from now on: the usual pace is known."""
        ...

    def close(self) -> None:
        """End the process and everything it started. Safe to call twice."""
        ...


class Executor(Protocol):
    """Opens sessions. `slots` is how many may *step* at once without slowing each other down."""

    @property
    def slots(self) -> int: ...

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
        """The text and the machine where sessions run, free memory included.

        The time it takes grows with the size of the text; the answer states it. It can be interrupted.

        Raises:
            BadInput: the text cannot be trained on, or preparing it took longer than `limit_seconds`.
            EnvironmentProblem: the worker program does not run there.
        """
        ...

    def load(self) -> Load | None:
        """How busy the machine was since the last call, or since the executor was made; None if it is not known."""
        ...

    def open(self, request: SessionRequest) -> Session:
        """Start a worker and wait until it is ready.

        Raises:
            SessionEnded: the worker did not become ready; its process is gone.
        """
        ...

    def renew(self) -> None:
        """Start later sessions from a fresh process image, shared with no earlier one (docs/method.md, 3.5)."""
        ...

    def close(self) -> None:
        """End all sessions. Safe to call twice."""
        ...
