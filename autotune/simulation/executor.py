"""Sessions without processes: a scripted world answers in simulated time.

The real pipeline runs against it in milliseconds and with known truth, for tests and for simulations of the method.
The session converts the world's values to slices, evaluations and failures of the same types as a worker's,
timeouts included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, cast

from autotune.executors.base import OutOfTime, Patience, SessionEnded, SessionRequest
from autotune.executors.load import Load
from autotune.simulation.workload import VOCAB_SIZE
from autotune.simulation.world import ScriptedWorld, Slowdown
from autotune.trial.types import (
    Evaluation,
    FailedKind,
    Fingerprint,
    GradientNoise,
    InfeasibleKind,
    Ready,
    Slice,
)
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Corpus, Machine

METER = "scripted meter"
NO_METER = "the simulated machine has no meter"

MACHINE = Machine(
    corpus=Corpus(
        train_tokens=100_000_000,
        holdout_tokens=1_000_000,
        documents=1_000,
        bytes_per_token=3.0,
        vocab_size=VOCAB_SIZE,
        content_sha256="0" * 64,
    ),
    environment={"device": "cpu", "device_name": "simulated"},
    peak_flops={"fp32": 1e11, "bf16": 2e11, "fp16": 2e11},
    available_bytes=24 << 30,
)
"""The default machine of simulated sessions."""


@dataclass(slots=True)
class SimulatedClock:
    """A monotonic clock that only simulated work advances. Calling it returns the time in seconds."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.seconds += seconds


_UNCOOLED = 0.03  # share by which the loss at the start exceeds the cooled one, before the learning rate decays
_EVALUATION_SPEED = 3.0  # a forward pass is about a third of a training step
_BYTES_PER_TOKEN = 3.0


class ScriptedSession:
    """One simulated worker. Its methods advance simulated time as a worker's take real time."""

    def __init__(self, request: SessionRequest, world: ScriptedWorld, clock: SimulatedClock, slowdown: Slowdown):
        """Advance the clock by the time of opening.

        Raises:
            SessionEnded: the world has an obstacle, or opening timed out.
        """
        self._request = request
        self._world = world
        self._clock = clock
        self._slowdown = slowdown
        self._steps_done = 0
        self._is_open = True
        config, size = request.configuration, request.order.payload
        self._watts = world.watts(config)
        setup_seconds = world.open_seconds(config)
        self._spend(setup_seconds, request.patience.setup_seconds, FailedKind.HUNG, "build its model")
        compile_seconds = world.compile_seconds(config)
        self._micro_batch, self._global_batch = (cast(int, size[name]) for name in ("micro_batch", "global_batch"))
        first_pass = compile_seconds + self._step_seconds() / (self._global_batch // self._micro_batch)
        self._spend(first_pass, request.first_pass_seconds, InfeasibleKind.TOO_SLOW, "finish a first pass")
        if obstacle := world.obstacle(config):
            self._end(obstacle.kind, obstacle.message)
        self._ready = Ready(
            setup_seconds=setup_seconds,
            compile_seconds=compile_seconds,
            parameters=cast(int, size["parameters"]),
            flops_per_token=cast(float, size["flops_per_token"]),
            tokens_per_step=request.tokens_per_step,
            horizon_steps=max(1, request.horizon_tokens // request.tokens_per_step),
            peak_memory_bytes=cast(int, size["peak_memory_bytes"]),
            environment={"device": "scripted", "energy_meter": NO_METER if self._watts is None else METER},
        )

    @property
    def ready(self) -> Ready:
        """What the worker reported."""
        return self._ready

    def advance(self, steps: int, round: int = -1) -> Slice:
        """See `Session.advance`."""
        self._require_open()
        step_seconds: list[float] = []
        losses: list[float] = []
        limit = self._request.advance_seconds(steps, is_proven=self._steps_done > 0)
        # Slices of unpaired training may have thousands of steps: they share one disturbance and one loss.
        together = steps if round < 0 else 1
        for _ in range(steps // together):
            seconds = self._step_seconds()
            left = limit - sum(step_seconds)
            self._spend(seconds * together, left, self._late, f"train {steps} steps")
            self._steps_done += together
            step_seconds += [seconds] * together
            losses += [self._loss()] * together
        total_seconds = sum(step_seconds)
        return Slice(
            round=round,
            tokens=steps * self._request.tokens_per_step,
            seconds=total_seconds,
            step_seconds=tuple(step_seconds),
            losses=tuple(losses),
            peak_memory_bytes=self._ready.peak_memory_bytes,
            energy_joules=None if self._watts is None else self._watts * total_seconds,
        )

    def evaluate(self) -> Evaluation:
        """See `Session.evaluate`."""
        self._require_open()
        tokens = self._request.evaluation_tokens
        seconds = self._step_seconds() * tokens / self._request.tokens_per_step / _EVALUATION_SPEED
        self._spend(seconds, self._request.evaluate_seconds(), self._late, "evaluate")
        loss = self._loss()
        return Evaluation(
            tokens_seen=self._steps_done * self._request.tokens_per_step,
            loss=loss,
            stderr=0.5 / math.sqrt(tokens),
            tokens=tokens,
            bits_per_byte=loss / math.log(2) / _BYTES_PER_TOKEN,
        )

    def fingerprint(self) -> Fingerprint:
        """See `Session.fingerprint`; takes the time of two steps."""
        self._require_open()
        if self._steps_done:
            self._end(FailedKind.CRASH, "a fingerprint needs initial weights; got trained ones: ask before training")
        self._spend_steps(2, self._request.fingerprint_seconds(), "take its fingerprint")
        return self._world.fingerprint(self._request.configuration)

    def gradient_noise(self, batches: int) -> GradientNoise:
        """See `Session.gradient_noise`; takes the time of `batches` steps.

        The norms are the expected ones for a gradient of norm one and the world's noise scale.
        """
        self._require_open()
        self._spend_steps(batches, self._request.gradient_noise_seconds(batches), f"measure {batches} batches")
        tokens_per_step = self._request.tokens_per_step
        noise_scale = self._world.noise_scale(self._request.configuration, max(1, self._steps_done) * tokens_per_step)
        batch = batches * self._global_batch
        return GradientNoise(
            tokens_seen=self._steps_done * tokens_per_step,
            micro_batch=self._micro_batch,
            batch=batch,
            micro_square_norm=1.0 + noise_scale / self._micro_batch,
            square_norm=1.0 + noise_scale / batch,
        )

    def expect(self, patience: Patience) -> None:
        """See `Session.expect`."""
        self._request = replace(self._request, patience=patience)

    def close(self) -> None:
        """See `Session.close`."""
        self._is_open = False

    @property
    def _late(self) -> InfeasibleKind | FailedKind:
        """What a session is that does not answer in time: slow, or, if it is proven, hung."""
        return FailedKind.HUNG if self._steps_done else InfeasibleKind.TOO_SLOW

    def _spend_steps(self, steps: int, limit_seconds: float, duty: str) -> None:
        """Advance the clock by the time of `steps` steps, up to the timeout."""
        spent = 0.0
        for _ in range(steps):
            seconds = self._step_seconds()
            self._spend(seconds, limit_seconds - spent, self._late, duty)
            spent += seconds

    def _step_seconds(self) -> float:
        """Seconds of a step that begins now."""
        true = self._request.tokens_per_step / self._world.tokens_per_second(self._request.configuration)
        return true * self._slowdown(self._clock())

    def _loss(self) -> float:
        """Current held-out loss: the true one at the end of the schedule, higher before."""
        tokens = max(1, self._steps_done) * self._request.tokens_per_step
        loss = self._world.loss(self._request.configuration, tokens, self._request.seed)
        if not math.isfinite(loss):
            self._end(InfeasibleKind.DIVERGED, f"the loss must stay finite; got {loss}: use a lower learning_rate")
        completion = min(1.0, self._steps_done / self._ready.horizon_steps)
        return loss * (1.0 + _UNCOOLED * (1.0 - completion))

    def _spend(self, seconds: float, limit_seconds: float, late: InfeasibleKind | FailedKind, duty: str) -> None:
        """Advance the clock by `seconds`, but at most by the driver's timeout or the time it has left."""
        left_seconds = max(0.0, self._request.left_seconds())
        self._clock.advance(min(seconds, limit_seconds, left_seconds))
        if left_seconds < min(seconds, limit_seconds):
            self._is_open = False
            raise OutOfTime
        if seconds > limit_seconds:
            self._end(late, f"timed out: the worker must {duty}; it needs {seconds:.3g} s more")

    def _end(self, kind: InfeasibleKind | FailedKind, message: str) -> None:
        self._is_open = False
        raise SessionEnded(kind, message)

    def _require_open(self) -> None:
        if not self._is_open:
            raise SessionEnded(FailedKind.CRASH, "this session has ended: open another one")


class ScriptedExecutor:
    """Opens scripted sessions; all randomness follows from `seed`."""

    def __init__(
        self,
        world: ScriptedWorld,
        clock: SimulatedClock,
        seed: int = 0,
        *,
        machine: Machine = MACHINE,
        load: Load | None = None,
    ) -> None:
        """Sessions advance `clock`, which the pipeline under test reads."""
        self._machine = machine
        self._load = load
        self._world = world
        self._clock = clock
        self._seed = seed
        self._image_is_fresh = True
        self._sessions: list[ScriptedSession] = []
        self._opened = 0

    @property
    def slots(self) -> int:
        """One: simulated time is not shared."""
        return 1

    def load(self) -> Load | None:
        """As given."""
        return self._load

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:  # noqa: ARG002 - it is told
        """The machine given to the executor."""
        return self._machine

    def open(self, request: SessionRequest) -> ScriptedSession:
        """See `Executor.open`."""
        if self._image_is_fresh:
            self._clock.advance(self._world.launch_seconds)
            self._image_is_fresh = False
        self._opened += 1
        slowdown = self._world.slowdown(self._seed, self._opened)
        session = ScriptedSession(request, self._world, self._clock, slowdown)
        self._sessions.append(session)
        return session

    def renew(self) -> None:
        """The next session takes the time of a fresh process image. Every session has its own offset anyway."""
        self._image_is_fresh = True

    def close(self) -> None:
        """See `Executor.close`."""
        for session in self._sessions:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
