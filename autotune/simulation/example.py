"""One simulated machine and model, similar to a small CPU, for tests of the pipeline."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from autotune.simulation.workload import VOCAB_SIZE, training_of
from autotune.simulation.world import Slowdown
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue
from autotune.trial.types import Failed, Fingerprint, Infeasible, InfeasibleKind
from autotune.workload.gpt_knobs import KNOBS
from autotune_model.config import default_knobs

_DEFAULTS = Configuration(default_knobs())


def turned_knobs(config: Configuration) -> dict[str, KnobValue]:
    """The changes of `config` from the defaults. They seed its own offset, so that adding a knob changes no offset."""
    different = config.difference(_DEFAULTS)
    return {name: different[name] for name in KNOBS if name in different}


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalNoise:
    """Three independent multiplicative disturbances, each given as the standard deviation of a logarithm.

    `moment` is shared by everything within `moment_seconds` (pairing cancels it). `own` is drawn for
    each step. `process` is constant for the life of a process (only restarts average it out).
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


_SKETCH = tuple(math.sin(1.0 + i) for i in range(256))  # only its shape is realistic
_SOUND = Fingerprint(logits=_SKETCH, gradient=_SKETCH, update=_SKETCH)
_OPPOSITE = tuple(-value for value in _SKETCH)
_BROKEN = Fingerprint(logits=_OPPOSITE, gradient=_OPPOSITE, update=_OPPOSITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleWorld:
    """A world like a small CPU: each technique has about the effect it had on two shared cores.

    Loss is irreducible + amplitude * (tokens * efficiency(config))**-exponent plus a seed offset, which all
    configurations of one seed share (common random numbers), plus a small offset of its own. `broken`
    names settings that compute wrong results, like "attention=sdpa". The world has an energy
    meter if `fp32_watts` is given; low precision then draws 10 % less.
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
    vocab_size: int = VOCAB_SIZE
    launch_seconds: float = 3.6
    broken: frozenset[str] = frozenset()
    fp32_watts: float | None = None
    noise: LognormalNoise = LognormalNoise()

    def tokens_per_second(self, config: Configuration) -> float:
        """Speed factors multiply; the micro-batch has an optimum."""
        knobs = training_of(config)
        speed = self.base_tokens_per_second
        speed *= {"bf16_autocast": 1.6, "fp16_autocast": 1 / 30}.get(knobs.dtype, 1.0)
        speed *= {"math": 1.0, "sdpa": 1.08}[knobs.attention]
        speed *= {"off": 1.0, "default": 1.10, "max-autotune-no-cudagraphs": 1.12}[knobs.compile]
        speed *= {"for_loop": 1.0, "foreach": 1.02, "fused": 1.05}[knobs.optimizer_kernel]
        return speed * math.exp(-0.05 * math.log2(knobs.micro_batch / self.best_micro_batch) ** 2)

    def efficiency(self, config: Configuration) -> float:
        """Token efficiency relative to the best configuration with a batch of 8."""
        knobs = training_of(config)
        worth = math.exp(-0.25 * math.log(knobs.learning_rate / self.best_learning_rate) ** 2)
        worth *= {"constant": 0.85, "linear": 1.0, "cosine": 0.98, "wsd": 1.0, "inverse_sqrt": 0.9}[knobs.schedule]
        worth *= math.exp(-2.0 * (knobs.warmup_fraction - 0.05) ** 2)
        worth *= 0.97 if knobs.clip_norm == 0 else 1.0
        worth *= 1.05 if knobs.tied_head else 1.0
        return worth * math.pow(knobs.global_batch / 8, -0.2)

    def loss(self, config: Configuration, tokens: int, seed: int) -> float:
        """At most the loss of a uniform guess, unless it diverges."""
        knobs = training_of(config)
        if knobs.learning_rate >= self.diverging_learning_rate:
            return math.inf
        luck = random.Random(f"luck {seed}").gauss(0.0, self.seed_luck)
        turned = turned_knobs(config)  # adding a knob to the table changes no offset
        luck += random.Random(f"own luck {seed} {turned}").gauss(0.0, self.own_luck)
        cooled = self.irreducible + self.amplitude * math.pow(tokens * self.efficiency(config), -self.exponent)
        return min(cooled + luck, math.log(self.vocab_size))

    def fingerprint(self, config: Configuration) -> Fingerprint:
        """The same for all settings that are not `broken`."""
        settings = {f"{name}={value}" for name, value in config.items()}
        return _BROKEN if settings & self.broken else _SOUND

    def noise_scale(self, config: Configuration, tokens: int) -> float:  # noqa: ARG002 - worlds may differ in it
        """It grows during training and is the same for all configurations."""
        return 8.0 * math.pow(tokens / 100_000, 0.3)

    def open_seconds(self, config: Configuration) -> float:
        """Untied embeddings have one more large matrix to initialise."""
        knobs = training_of(config)
        return 0.3 if knobs.tied_head else 0.35

    def compile_seconds(self, config: Configuration) -> float:
        """Twenty seconds or more, unless compilation is off."""
        knobs = training_of(config)
        return {"off": 0.0, "default": 20.0, "max-autotune-no-cudagraphs": 33.0}[knobs.compile]

    def obstacle(self, config: Configuration) -> Infeasible | Failed | None:
        """Out of memory above the largest micro-batch."""
        knobs = training_of(config)
        if knobs.micro_batch > self.largest_micro_batch:
            return Infeasible(
                kind=InfeasibleKind.OUT_OF_MEMORY,
                message=f"micro_batch must fit; got {knobs.micro_batch}: try {self.largest_micro_batch}",
            )
        return None

    def watts(self, config: Configuration) -> float | None:
        """`fp32_watts`, 10 % less in low precision; None without it."""
        knobs = training_of(config)
        return None if self.fp32_watts is None else self.fp32_watts * (1.0 if knobs.dtype == "fp32" else 0.9)

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """The slowdown of `noise`."""
        return self.noise.slowdown(seed, process)
