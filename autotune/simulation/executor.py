"""Sessions without processes: a scripted world answers in simulated time.

The real pipeline runs against it in milliseconds and with a known truth, for tests and for
simulations of the method. A world says what is true of a configuration and how the machine
disturbs what is measured; the session turns that into slices, evaluations and ends of the same
types as a worker's, patience included.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from autotune_model.config import TrainingConfig
from autotune_model.knobs import KNOBS

from autotune.executors.base import SessionEnded, SessionRequest
from autotune.hardware.memory import multiplied_parameter_count, parameter_count, predict_peak_bytes
from autotune.trial.types import (
    Evaluation,
    Failed,
    FailedKind,
    Fingerprint,
    GradientNoise,
    Infeasible,
    InfeasibleKind,
    Ready,
    Slice,
)

METER = "scripted meter"
NO_METER = "nothing is metered in this world"

Slowdown = Callable[[float], float]
"""Of one process: by how much a step is slower than the truth, if it begins at that moment (in seconds)."""


@dataclass(slots=True)
class SimulatedClock:
    """A monotonic clock that only simulated work advances; call it for the time in seconds."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.seconds += seconds


class ScriptedWorld(Protocol):
    """What is true, and how it is disturbed.

    `vocab_size` is that of the imagined corpus; `launch_seconds` is what the first session of a
    fresh process image costs beyond `open_seconds`.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def launch_seconds(self) -> float: ...

    def tokens_per_second(self, config: TrainingConfig) -> float:
        """True steady-state throughput."""
        ...

    def loss(self, config: TrainingConfig, tokens: int, seed: int) -> float:
        """True held-out loss in nats per token of a complete schedule of `tokens`; not finite: diverged."""
        ...

    def fingerprint(self, config: TrainingConfig) -> Fingerprint:
        """What a session of `config` computes before its first step, whatever the seed."""
        ...

    def noise_scale(self, config: TrainingConfig, tokens: int) -> float:
        """True gradient noise scale after `tokens`, in sequences (arXiv 1812.06162)."""
        ...

    def open_seconds(self, config: TrainingConfig) -> float:
        """From the order to open until the model stands."""
        ...

    def compile_seconds(self, config: TrainingConfig) -> float:
        """What compilation adds to the first pass."""
        ...

    def obstacle(self, config: TrainingConfig) -> Infeasible | Failed | None:
        """Why a session of `config` ends in its first pass, if it does."""
        ...

    def watts(self, config: TrainingConfig) -> float | None:
        """True mean draw of the machine while it trains `config`; None where no meter can be read."""
        ...

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """The disturbance of the study's `process`-th session; what is common to all follows from `seed` alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalNoise:
    """Three independent multiplicative disturbances, each the standard deviation of a logarithm.

    `moment` is shared by all that happens within `moment_seconds` (pairing cancels it), `own` is
    drawn for each step, `process` stays for the life of a process (only restarts average it).
    """

    moment: float = 0.10
    moment_seconds: float = 2.0
    own: float = 0.03
    process: float = 0.02

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """See `ScriptedWorld.slowdown`."""
        own = random.Random(f"own {seed} {process}")
        offset = own.gauss(0.0, self.process)

        def factor(at_seconds: float) -> float:
            moment = random.Random(f"moment {seed} {at_seconds // self.moment_seconds}").gauss(0.0, self.moment)
            return math.exp(moment + offset + own.gauss(0.0, self.own))

        return factor


_SKETCH = tuple(math.sin(1.0 + i) for i in range(256))  # nothing but its shape is like a real one
_SOUND = Fingerprint(logits=_SKETCH, gradient=_SKETCH, update=_SKETCH)
_OPPOSITE = tuple(-value for value in _SKETCH)
_BROKEN = Fingerprint(logits=_OPPOSITE, gradient=_OPPOSITE, update=_OPPOSITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleWorld:
    """A world like a small CPU: each technique does about what it does there (FIELD_NOTES).

    Loss is irreducible + amplitude * (tokens * efficiency(config))**-exponent, plus the seed's luck,
    which all configurations of one seed share (common random numbers) but for a small part. `broken`
    names the settings that do not compute what they should, like "attention=sdpa". It has an energy
    meter where `fp32_watts` is given; low precision then draws a tenth less.
    """

    base_tokens_per_second: float = 14_000.0
    best_micro_batch: int = 16
    largest_micro_batch: int = 256
    best_learning_rate: float = 3e-3
    diverging_learning_rate: float = 0.1
    irreducible: float = 2.0
    amplitude: float = 24.0
    exponent: float = 0.15
    seed_luck: float = 0.03
    own_luck: float = 0.004
    vocab_size: int = 2_048
    launch_seconds: float = 3.6
    broken: frozenset[str] = frozenset()
    fp32_watts: float | None = None
    noise: LognormalNoise = LognormalNoise()

    def tokens_per_second(self, config: TrainingConfig) -> float:
        """Factors multiply; the micro-batch has a sweet spot."""
        speed = self.base_tokens_per_second
        speed *= {"bf16_autocast": 1.6, "fp16_autocast": 1 / 30}.get(config.dtype, 1.0)
        speed *= {"math": 1.0, "sdpa": 1.08}[config.attention]
        speed *= {"off": 1.0, "default": 1.10, "max-autotune-no-cudagraphs": 1.12}[config.compile]
        speed *= {"for_loop": 1.0, "foreach": 1.02, "fused": 1.05}[config.optimizer_kernel]
        return speed * math.exp(-0.05 * math.log2(config.micro_batch / self.best_micro_batch) ** 2)

    def efficiency(self, config: TrainingConfig) -> float:
        """Tokens are worth this many times as much as in the best configuration of a batch of 8."""
        worth = math.exp(-0.25 * math.log(config.learning_rate / self.best_learning_rate) ** 2)
        worth *= {"constant": 0.85, "linear": 1.0, "cosine": 0.98, "wsd": 1.0, "inverse_sqrt": 0.9}[config.schedule]
        worth *= math.exp(-2.0 * (config.warmup_fraction - 0.05) ** 2)
        worth *= 0.97 if config.clip_norm == 0 else 1.0
        worth *= 1.05 if config.tied_head else 1.0
        return worth * math.pow(config.global_batch / 8, -0.2)

    def loss(self, config: TrainingConfig, tokens: int, seed: int) -> float:
        """Never above a uniform guess, unless it diverges."""
        if config.learning_rate >= self.diverging_learning_rate:
            return math.inf
        luck = random.Random(f"luck {seed}").gauss(0.0, self.seed_luck)
        turned = config.difference(TrainingConfig())  # a knob that is new to the table changes nobody's luck
        luck += random.Random(f"own luck {seed} {turned}").gauss(0.0, self.own_luck)
        cooled = self.irreducible + self.amplitude * math.pow(tokens * self.efficiency(config), -self.exponent)
        return min(cooled + luck, math.log(self.vocab_size))

    def fingerprint(self, config: TrainingConfig) -> Fingerprint:
        """One and the same for all settings that are not `broken`."""
        settings = {f"{name}={getattr(config, name)}" for name in KNOBS}
        return _BROKEN if settings & self.broken else _SOUND

    def noise_scale(self, config: TrainingConfig, tokens: int) -> float:  # noqa: ARG002 - worlds may differ in it
        """It grows as training goes on, whatever the configuration."""
        return 8.0 * math.pow(tokens / 100_000, 0.3)

    def open_seconds(self, config: TrainingConfig) -> float:
        """An untied head is one more large matrix to fill."""
        return 0.3 if config.tied_head else 0.35

    def compile_seconds(self, config: TrainingConfig) -> float:
        """Twenty seconds and more."""
        return {"off": 0.0, "default": 20.0, "max-autotune-no-cudagraphs": 33.0}[config.compile]

    def obstacle(self, config: TrainingConfig) -> Infeasible | Failed | None:
        """Out of memory above the largest micro-batch."""
        if config.micro_batch > self.largest_micro_batch:
            return Infeasible(
                kind=InfeasibleKind.OUT_OF_MEMORY,
                message=f"micro_batch must fit; got {config.micro_batch}: try {self.largest_micro_batch}",
            )
        return None

    def watts(self, config: TrainingConfig) -> float | None:
        """See the class."""
        return None if self.fp32_watts is None else self.fp32_watts * (1.0 if config.dtype == "fp32" else 0.9)

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """That of `noise`."""
        return self.noise.slowdown(seed, process)


_UNCOOLED = 0.03  # share by which the loss lies above the cooled one before the learning rate has come down
_EVALUATION_SPEED = 3.0  # a forward pass is about a third of a training step
_BYTES_PER_TOKEN = 3.0


class ScriptedSession:
    """One imagined worker. Its methods let simulated time pass as a worker's let real time pass."""

    def __init__(self, request: SessionRequest, world: ScriptedWorld, clock: SimulatedClock, slowdown: Slowdown):
        """Spend the time of opening.

        Raises:
            SessionEnded: the world has an obstacle, or patience is at its end.
        """
        self._request = request
        self._config = request.config
        self._world = world
        self._clock = clock
        self._slowdown = slowdown
        self._steps_done = 0
        self._is_open = True
        training = request.config.training
        self._watts = world.watts(training)
        setup_seconds = world.open_seconds(training)
        self._spend(setup_seconds, request.patience.setup_seconds, FailedKind.HUNG, "build its model")
        compile_seconds = world.compile_seconds(training)
        first_pass = compile_seconds + self._step_seconds() / training.accumulation_steps
        self._spend(first_pass, request.patience.pass_seconds, InfeasibleKind.TOO_SLOW, "finish a first pass")
        if obstacle := world.obstacle(training):
            self._end(obstacle.kind, obstacle.message)
        gpt = request.config.gpt
        multiplied = multiplied_parameter_count(gpt, world.vocab_size)
        self._ready = Ready(
            setup_seconds=setup_seconds,
            compile_seconds=compile_seconds,
            parameters=parameter_count(gpt, world.vocab_size, tied_head=training.tied_head),
            flops_per_token=6.0 * multiplied + 12.0 * gpt.layers * gpt.width * gpt.sequence_length,
            tokens_per_step=request.config.tokens_per_step,
            horizon_steps=request.config.horizon_steps,
            peak_memory_bytes=predict_peak_bytes(gpt, world.vocab_size, training),
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
        for _ in range(steps):
            seconds = self._step_seconds()
            self._spend(seconds, limit - sum(step_seconds), InfeasibleKind.TOO_SLOW, f"train {steps} steps")
            self._steps_done += 1
            step_seconds.append(seconds)
            losses.append(self._loss())
        total_seconds = sum(step_seconds)
        return Slice(
            round=round,
            tokens=steps * self._config.tokens_per_step,
            seconds=total_seconds,
            step_seconds=tuple(step_seconds),
            losses=tuple(losses),
            peak_memory_bytes=self._ready.peak_memory_bytes,
            energy_joules=None if self._watts is None else self._watts * total_seconds,
        )

    def evaluate(self) -> Evaluation:
        """See `Session.evaluate`."""
        self._require_open()
        tokens = self._config.evaluation_tokens
        seconds = self._step_seconds() * tokens / self._config.tokens_per_step / _EVALUATION_SPEED
        self._spend(seconds, self._request.evaluate_seconds(), InfeasibleKind.TOO_SLOW, "evaluate")
        loss = self._loss()
        return Evaluation(
            tokens_seen=self._steps_done * self._config.tokens_per_step,
            loss=loss,
            stderr=0.5 / math.sqrt(tokens),
            tokens=tokens,
            bits_per_byte=loss / math.log(2) / _BYTES_PER_TOKEN,
        )

    def fingerprint(self) -> Fingerprint:
        """See `Session.fingerprint`; it takes as long as two steps."""
        self._require_open()
        if self._steps_done:
            self._end(FailedKind.CRASH, "a fingerprint is of the initial weights; they are gone: ask before training")
        self._spend_steps(2, self._request.fingerprint_seconds(), "take its fingerprint")
        return self._world.fingerprint(self._config.training)

    def gradient_noise(self, batches: int) -> GradientNoise:
        """See `Session.gradient_noise`; it takes as long as `batches` steps.

        The norms are those that a gradient of norm one and the world's noise scale would give on average.
        """
        self._require_open()
        self._spend_steps(batches, self._request.gradient_noise_seconds(batches), f"measure {batches} batches")
        training, tokens_per_step = self._config.training, self._config.tokens_per_step
        noise_scale = self._world.noise_scale(training, max(1, self._steps_done) * tokens_per_step)
        batch = batches * training.global_batch
        return GradientNoise(
            tokens_seen=self._steps_done * tokens_per_step,
            micro_batch=training.micro_batch,
            batch=batch,
            micro_square_norm=1.0 + noise_scale / training.micro_batch,
            square_norm=1.0 + noise_scale / batch,
        )

    def close(self) -> None:
        """See `Session.close`."""
        self._is_open = False

    def _spend_steps(self, steps: int, limit_seconds: float, duty: str) -> None:
        """Let the time of `steps` steps pass, patience permitting."""
        spent = 0.0
        for _ in range(steps):
            seconds = self._step_seconds()
            self._spend(seconds, limit_seconds - spent, InfeasibleKind.TOO_SLOW, duty)
            spent += seconds

    def _step_seconds(self) -> float:
        """Seconds that a step takes if it begins now."""
        true = self._config.tokens_per_step / self._world.tokens_per_second(self._config.training)
        return true * self._slowdown(self._clock())

    def _loss(self) -> float:
        """Held-out loss now: the true one at the end of the schedule, above it before."""
        tokens = max(1, self._steps_done) * self._config.tokens_per_step
        loss = self._world.loss(self._config.training, tokens, self._config.seed)
        if not math.isfinite(loss):
            self._end(InfeasibleKind.DIVERGED, f"the loss must stay finite; got {loss}: use a lower learning_rate")
        completion = min(1.0, self._steps_done / self._config.horizon_steps)
        return loss * (1.0 + _UNCOOLED * (1.0 - completion))

    def _spend(self, seconds: float, limit_seconds: float, late: InfeasibleKind | FailedKind, duty: str) -> None:
        """Let the time pass, but no more than the driver would wait."""
        self._clock.advance(min(seconds, limit_seconds))
        if seconds > limit_seconds:
            self._end(late, f"a worker must {duty} in time; this one needs {seconds:.3g} s more: it was stopped")

    def _end(self, kind: InfeasibleKind | FailedKind, message: str) -> None:
        self._is_open = False
        raise SessionEnded(kind, message)

    def _require_open(self) -> None:
        if not self._is_open:
            raise SessionEnded(
                FailedKind.CRASH, "a session must be open to take orders; got one after its end: open another"
            )


class ScriptedExecutor:
    """Opens scripted sessions; all randomness follows from `seed`."""

    def __init__(self, world: ScriptedWorld, clock: SimulatedClock, seed: int = 0) -> None:
        """Sessions advance `clock`, the same that the pipeline under test reads."""
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
        """The next session pays for a fresh process image. Every session has an offset of its own anyway."""
        self._image_is_fresh = True

    def close(self) -> None:
        """See `Executor.close`."""
        for session in self._sessions:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
