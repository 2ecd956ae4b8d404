"""One simulated machine and model, much like a small CPU: enough for tests of the pipeline."""

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
    """What `config` changes of the defaults: the seed of its own luck, so that a new knob changes nobody's."""
    different = config.difference(_DEFAULTS)
    return {name: different[name] for name in KNOBS if name in different}


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
    """A world like a small CPU: each technique does about what it did on two shared cores.

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
    vocab_size: int = VOCAB_SIZE
    launch_seconds: float = 3.6
    broken: frozenset[str] = frozenset()
    fp32_watts: float | None = None
    noise: LognormalNoise = LognormalNoise()

    def tokens_per_second(self, config: Configuration) -> float:
        """Factors multiply; the micro-batch has a sweet spot."""
        knobs = training_of(config)
        speed = self.base_tokens_per_second
        speed *= {"bf16_autocast": 1.6, "fp16_autocast": 1 / 30}.get(knobs.dtype, 1.0)
        speed *= {"math": 1.0, "sdpa": 1.08}[knobs.attention]
        speed *= {"off": 1.0, "default": 1.10, "max-autotune-no-cudagraphs": 1.12}[knobs.compile]
        speed *= {"for_loop": 1.0, "foreach": 1.02, "fused": 1.05}[knobs.optimizer_kernel]
        return speed * math.exp(-0.05 * math.log2(knobs.micro_batch / self.best_micro_batch) ** 2)

    def efficiency(self, config: Configuration) -> float:
        """Tokens are worth this many times as much as in the best configuration of a batch of 8."""
        knobs = training_of(config)
        worth = math.exp(-0.25 * math.log(knobs.learning_rate / self.best_learning_rate) ** 2)
        worth *= {"constant": 0.85, "linear": 1.0, "cosine": 0.98, "wsd": 1.0, "inverse_sqrt": 0.9}[knobs.schedule]
        worth *= math.exp(-2.0 * (knobs.warmup_fraction - 0.05) ** 2)
        worth *= 0.97 if knobs.clip_norm == 0 else 1.0
        worth *= 1.05 if knobs.tied_head else 1.0
        return worth * math.pow(knobs.global_batch / 8, -0.2)

    def loss(self, config: Configuration, tokens: int, seed: int) -> float:
        """Never above a uniform guess, unless it diverges."""
        knobs = training_of(config)
        if knobs.learning_rate >= self.diverging_learning_rate:
            return math.inf
        luck = random.Random(f"luck {seed}").gauss(0.0, self.seed_luck)
        turned = turned_knobs(config)  # a knob that is new to the table changes nobody's luck
        luck += random.Random(f"own luck {seed} {turned}").gauss(0.0, self.own_luck)
        cooled = self.irreducible + self.amplitude * math.pow(tokens * self.efficiency(config), -self.exponent)
        return min(cooled + luck, math.log(self.vocab_size))

    def fingerprint(self, config: Configuration) -> Fingerprint:
        """One and the same for all settings that are not `broken`."""
        settings = {f"{name}={value}" for name, value in config.items()}
        return _BROKEN if settings & self.broken else _SOUND

    def noise_scale(self, config: Configuration, tokens: int) -> float:  # noqa: ARG002 - worlds may differ in it
        """It grows as training goes on, whatever the configuration."""
        return 8.0 * math.pow(tokens / 100_000, 0.3)

    def open_seconds(self, config: Configuration) -> float:
        """An untied head is one more large matrix to fill."""
        knobs = training_of(config)
        return 0.3 if knobs.tied_head else 0.35

    def compile_seconds(self, config: Configuration) -> float:
        """Twenty seconds and more."""
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
        """See the class."""
        knobs = training_of(config)
        return None if self.fp32_watts is None else self.fp32_watts * (1.0 if knobs.dtype == "fp32" else 0.9)

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """That of `noise`."""
        return self.noise.slowdown(seed, process)
