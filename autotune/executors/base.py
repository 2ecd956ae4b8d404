"""The two protocols between the pipeline and a running worker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune.space.configuration import Configuration
from autotune.trial.types import Evaluation, FailedKind, Fingerprint, GradientNoise, InfeasibleKind, Ready, Slice
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine

_PROVEN = 10.0


class SessionEnded(Exception):
    """A session cannot go on: its configuration is infeasible here, or it broke."""

    def __init__(self, kind: InfeasibleKind | FailedKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the driver waits for a sign of progress before it ends a session, in seconds.

    `setup_seconds` covers imports, data and building the model; `pass_seconds` the first forward
    and backward pass (with compilation, where there is any); `step_seconds` one optimizer step.
    A session past one of the last two is TOO_SLOW: slow and hung sessions are treated alike. One that has trained
    at a fair pace before has proven itself. It is then given ten times as long, because a burst on a shared machine
    is no fault of its own.
    """

    setup_seconds: float
    pass_seconds: float
    step_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """An order to open a session of `configuration`; the worker's own output goes to `log_path`.

    `tokens_per_step` are those of an optimizer step; `evaluation_tokens` are read of the held-out text.
    """

    configuration: Configuration
    seed: int
    horizon_tokens: int
    evaluation_tokens: int
    tokens_per_step: int
    order: WorkerOrder
    log_path: Path
    patience: Patience

    def advance_seconds(self, steps: int, *, is_proven: bool) -> float:
        """How long to wait for `steps` steps; at least a second, for no scheduler is prompt."""
        return max(1.0, steps * self.patience.step_seconds * (_PROVEN if is_proven else 1.0))

    def evaluate_seconds(self) -> float:
        """How long to wait for an evaluation: a first pass and a step for every step's worth of tokens.

        That is generous (a forward pass is about a third of a step), and ten times more is given as to
        any session that has proven itself.
        """
        steps = math.ceil(self.evaluation_tokens / self.tokens_per_step)
        return max(1.0, _PROVEN * (self.patience.pass_seconds + steps * self.patience.step_seconds))

    def fingerprint_seconds(self) -> float:
        """How long to wait for a fingerprint: a first pass and two steps, ten times over as for an evaluation.

        A pass, because a compiled model with dropout is compiled once more without it; two steps, because
        its weights and gradients are also read through. The session has yet to prove itself, but one that
        is merely slow shows it in its first slice, and a burst must not pass for wrong arithmetic.
        """
        return max(1.0, _PROVEN * (self.patience.pass_seconds + 2 * self.patience.step_seconds))

    def gradient_noise_seconds(self, batches: int) -> float:
        """How long to wait for the gradient noise: a step for every batch, ten times over as for an evaluation."""
        return max(1.0, _PROVEN * batches * self.patience.step_seconds)


class Session(Protocol):
    """A live worker process. Every method may raise `SessionEnded`; `close` never does."""

    @property
    def ready(self) -> Ready: ...

    def advance(self, steps: int, round: int = -1) -> Slice:
        """Train `steps` whole optimizer steps and report them as one slice of that pairing round."""
        ...

    def evaluate(self) -> Evaluation:
        """Loss on the held-out documents, now."""
        ...

    def fingerprint(self) -> Fingerprint:
        """What the session computes before its first step; asked for later, it ends the session."""
        ...

    def gradient_noise(self, batches: int) -> GradientNoise:
        """Squared norms of gradients over the next `batches` global batches, which are not trained on."""
        ...

    def close(self) -> None:
        """End the process and everything it started. Safe to call twice."""
        ...


class Executor(Protocol):
    """Opens sessions. `slots` is how many may *step* at once without disturbing each other."""

    @property
    def slots(self) -> int: ...

    def examine(self, order: WorkerOrder) -> Machine:
        """Text and machine as they are where sessions run, the free memory included.

        It takes as long as the text is large, and it can be interrupted.

        Raises:
            BadInput: the text cannot be trained on.
            EnvironmentProblem: the trial side does not work there.
        """
        ...

    def open(self, request: SessionRequest) -> Session:
        """Start a worker and wait until it is ready.

        Raises:
            SessionEnded: the worker did not get ready; its process is gone.
        """
        ...

    def renew(self) -> None:
        """Let the sessions opened from now on share no process image with earlier ones (docs/method.md, 3.5)."""
        ...

    def close(self) -> None:
        """End all sessions. Safe to call twice."""
        ...
