"""Worlds with known truth: the effect of each knob on speed and, at every token budget, on learning.

`draw_world` draws random machines and models. The distributions follow the literature: optimal learning rates
fall with the token budget, as tokens to the -0.32 (arXiv 2409.19913), and critical batches grow with it, as
tokens to the 0.47 (arXiv 2410.21676). The baseline's learning rate suits long runs, as users' rates do. So a gain
in a short trial shrinks, or even changes sign, at the plan's token budget.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scipy.optimize import brentq

from autotune.simulation.example import ExampleWorld, turned_knobs
from autotune.simulation.noise import SharedMachine
from autotune.simulation.workload import training_of
from autotune.simulation.world import Slowdown
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import Choice, Domain, FloatRange, IntRange, KnobClass, KnobValue, members
from autotune.trial.types import Failed, Infeasible, InfeasibleKind
from autotune.workload.space import SearchSpace

_REFERENCE_TOKENS = 100_000.0  # where the optima of a world are stated
_USUAL_RATE, _LONG = 1e-3, 3e7  # the learning rate that suits runs of that many tokens, on average
_GRID = 60  # steps of a range
_FARTHEST = 60.0  # bound in log tokens, either way, of the search for equal loss


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnWorld(ExampleWorld):
    """A drawn world: log speed by knob value, an optimal micro-batch, optima that depend on the token budget.

    `log_speed` lists what a value adds to ln(tokens/s); unlisted values add nothing. The learning
    rate's optimum is `best_learning_rate` at 100,000 tokens and falls as tokens to the minus
    `rate_falls`; `learning_curvature` is the loss of ln e per squared log unit off it. The largest batch
    without loss of efficiency is `free_batch` there and grows as tokens to `batch_grows`.
    """

    log_speed: Mapping[tuple[str, KnobValue], float] = field(default_factory=dict)
    log_efficiency: Mapping[tuple[str, KnobValue], float] = field(default_factory=dict)
    micro_batch_curvature: float = 0.05
    learning_curvature: float = 0.15
    rate_falls: float = 0.32
    free_batch: float = 8.0
    batch_grows: float = 0.47
    compiling_seconds: float = 20.0
    machine: SharedMachine = field(default_factory=SharedMachine)

    def tokens_per_second(self, config: Configuration) -> float:
        """True steady-state throughput."""
        knobs = training_of(config)
        log_speed = _added(self.log_speed, config)
        off = math.log2(knobs.micro_batch / self.best_micro_batch)
        return self.base_tokens_per_second * math.exp(log_speed - self.micro_batch_curvature * off**2)

    def log_worth(self, config: Configuration, tokens: float) -> float:
        """ln of the value of a token after a complete schedule of `tokens`, on one scale for all configurations."""
        knobs = training_of(config)
        horizon = math.log(tokens / _REFERENCE_TOKENS)
        best = math.log(self.best_learning_rate) - self.rate_falls * horizon
        worth = -self.learning_curvature * (math.log(knobs.learning_rate) - best) ** 2
        worth += _added(self.log_efficiency, config)
        return worth - math.log1p(knobs.global_batch / (self.free_batch * math.exp(self.batch_grows * horizon)))

    def loss(self, config: Configuration, tokens: int, seed: int) -> float:
        """See `ScriptedWorld.loss`: the cooled loss plus the seed's offset and a small offset of its own."""
        if self.diverges(config, tokens):
            return math.inf
        luck = random.Random(f"luck {seed}").gauss(0.0, self.seed_luck)
        turned = turned_knobs(config)  # adding a knob to the table changes no offset
        luck += random.Random(f"own luck {seed} {turned}").gauss(0.0, self.own_luck)
        return min(self.cooled_loss(config, tokens) + luck, math.log(self.vocab_size))

    def diverges(self, config: Configuration, tokens: float) -> bool:  # noqa: ARG002 - worlds may differ in it
        """Whether a schedule of `tokens` diverges."""
        return training_of(config).learning_rate >= self.diverging_learning_rate

    def loss_per_log_token(self, config: Configuration, tokens: float) -> float:
        """How much a token budget larger by one log unit lowers the cooled loss, in nats."""
        return self.exponent * (self.cooled_loss(config, tokens) - self.irreducible)

    def cooled_loss(self, config: Configuration, tokens: float) -> float:
        """The expected loss of a complete schedule of `tokens`, in nats per token."""
        effective = math.log(tokens) + self.log_worth(config, tokens)
        return self.irreducible + self.amplitude * math.exp(-self.exponent * effective)

    def true_log_efficiency(self, config: Configuration, baseline: Configuration, tokens: float) -> float:
        """ln(D_eq / tokens), where the baseline needs D_eq tokens to reach the loss of `config` after `tokens`."""
        if self.log_worth(config, tokens) == self.log_worth(baseline, tokens):
            return 0.0
        wanted = math.log(tokens) + self.log_worth(config, tokens)

        def missing(log_ratio: float) -> float:
            log_tokens = math.log(tokens) + log_ratio
            return log_tokens + self.log_worth(baseline, math.exp(log_tokens)) - wanted

        near = next((w for w in (1.0, 4.0, 12.0, _FARTHEST) if missing(-w) < 0 < missing(w)), 0.0)
        return float(brentq(missing, -near, near)) if near else math.copysign(_FARTHEST, -missing(0.0))

    def true_log_speedup(self, config: Configuration, baseline: Configuration, tokens: float) -> float:
        """ln S to equal quality at `tokens`; minus infinity if `config` cannot run."""
        if self.obstacle(config) is not None or self.diverges(config, tokens):
            return -math.inf
        speed = math.log(self.tokens_per_second(config) / self.tokens_per_second(baseline))
        return speed + self.true_log_efficiency(config, baseline, tokens)

    def compile_seconds(self, config: Configuration) -> float:
        """The same for every mode."""
        knobs = training_of(config)
        return 0.0 if knobs.compile == "off" else self.compiling_seconds

    def obstacle(self, config: Configuration) -> Infeasible | Failed | None:
        """Out of memory above the largest micro-batch; low precision doubles it."""
        knobs = training_of(config)
        room = self.largest_micro_batch * (1 if knobs.dtype == "fp32" else 2)
        if knobs.micro_batch > room:
            return Infeasible(
                kind=InfeasibleKind.OUT_OF_MEMORY,
                message=f"micro_batch must fit; got {knobs.micro_batch}: try {room}",
            )
        return None

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """The slowdown of `machine`."""
        return self.machine.slowdown(seed, process)


def _added(effects: Mapping[tuple[str, KnobValue], float], config: Configuration) -> float:
    """The sum of the effects of `config`, in the order of `effects`, because float sums depend on order."""
    names = dict.fromkeys(name for name, _ in effects)
    return sum(effects.get((name, config[name]), 0.0) for name in names)


def draw_world(seed: int) -> DrawnWorld:
    """A random world: techniques help, do nothing or harm; some do not fit in memory, compile slowly or diverge."""
    rng = random.Random(f"world {seed}")
    speed: dict[tuple[str, KnobValue], float] = {
        ("dtype", "bf16_autocast"): rng.choice((rng.gauss(0.40, 0.15), rng.gauss(0.0, 0.05), rng.gauss(-0.3, 0.1))),
        ("dtype", "fp16_autocast"): rng.choice((math.log(1 / 30), rng.gauss(0.3, 0.2))),
        ("attention", "sdpa"): rng.choice((0.0, rng.gauss(0.08, 0.08))),
        ("optimizer_kernel", "foreach"): rng.gauss(0.01, 0.02),
        ("optimizer_kernel", "fused"): rng.gauss(0.03, 0.03),
        ("compile", "default"): rng.choice((0.0, rng.gauss(0.10, 0.08))),
    }
    efficiency: dict[tuple[str, KnobValue], float] = {
        ("schedule", "constant"): rng.gauss(-0.15, 0.05),
        ("schedule", "linear"): rng.gauss(0.02, 0.03),
        ("schedule", "wsd"): rng.gauss(0.02, 0.03),
        ("tied_head", True): rng.gauss(0.02, 0.06),
        ("dtype", "bf16_autocast"): -abs(rng.gauss(0.0, 0.003)),
        ("dtype", "fp16_autocast"): -abs(rng.gauss(0.0, 0.003)),
    }
    exponent, falls = rng.uniform(0.10, 0.20), rng.gauss(0.32, 0.05)
    return DrawnWorld(
        base_tokens_per_second=math.exp(rng.gauss(math.log(14_000.0), 0.3)),
        best_micro_batch=rng.choice((4, 8, 16, 32)),
        largest_micro_batch=rng.choice((8, 16, 64)),
        micro_batch_curvature=abs(rng.gauss(0.0, 0.05)),
        best_learning_rate=math.exp(rng.gauss(math.log(_USUAL_RATE), 0.5)) * (_LONG / _REFERENCE_TOKENS) ** falls,
        diverging_learning_rate=rng.choice((8e-3, 0.1)),
        learning_curvature=rng.uniform(0.05, 0.25),
        rate_falls=falls,
        free_batch=math.exp(rng.gauss(math.log(12.0), 0.5)),
        batch_grows=rng.gauss(0.47, 0.05),
        exponent=exponent,
        amplitude=rng.uniform(1.8, 2.3) * _REFERENCE_TOKENS**exponent,
        irreducible=rng.uniform(1.5, 2.5),
        compiling_seconds=rng.choice((20.0, 60.0)),
        log_speed=speed,
        log_efficiency=efficiency,
    )


def same_everywhere(world: DrawnWorld) -> DrawnWorld:
    """The A/A version of `world`: no knob has any effect; only noise remains."""
    return replace(
        world,
        log_speed={},
        log_efficiency={},
        micro_batch_curvature=0.0,
        learning_curvature=0.0,
        free_batch=math.inf,
        largest_micro_batch=1_024,
        diverging_learning_rate=math.inf,
    )


def best_of(world: DrawnWorld, space: SearchSpace) -> Configuration:
    """The true best configuration for the plan of `space`: the one with the least `plan_seconds`.

    Speed depends on system and precision knobs alone, so each global batch has one best set of the other
    learning knobs; the learning rate is searched on a fine grid.
    """
    tokens = float(space.plan.tokens)
    halves: dict[int, Configuration] = {}
    for knobs in _combinations(space, KnobClass.LEARNING):
        config = space.turned(space.baseline, {**knobs, "micro_batch": 1})
        training = training_of(config)
        kept = halves.get(training.global_batch)
        better = kept is None or world.cooled_loss(config, tokens) < world.cooled_loss(kept, tokens)
        if better and not world.diverges(config, tokens):
            halves[training.global_batch] = config
    best = min((with_best_system(world, space, half) for half in halves.values()), key=_by_seconds(world, space))
    return min(space.baseline, best, key=_by_seconds(world, space))


def with_best_system(world: DrawnWorld, space: SearchSpace, config: Configuration) -> Configuration:
    """`config` with the system and precision knobs that make the plan of `space` the shortest."""
    found = []
    for knobs in _combinations(space, KnobClass.SYSTEM, KnobClass.NUMERICS):
        with contextlib.suppress(InvalidConfiguration):
            turned = space.turned(config, {"micro_batch": space.baseline["micro_batch"], **knobs})
            if world.obstacle(turned) is None:
                found.append(turned)
    return min(found, key=_by_seconds(world, space), default=space.baseline)


def _by_seconds(world: DrawnWorld, space: SearchSpace) -> Callable[[Configuration], float]:
    return lambda config: plan_seconds(world, space, config)


def plan_seconds(world: DrawnWorld, space: SearchSpace, config: Configuration) -> float:
    """Device-seconds of the plan to the baseline's quality, compilation included, without noise.

    A configuration that fails costs as much as the baseline, because the user returns to it.
    """
    log_speedup = world.true_log_speedup(config, space.baseline, float(space.plan.tokens))
    if log_speedup == -math.inf:
        config, log_speedup = space.baseline, 0.0
    baseline = space.plan.runs * space.plan.tokens / world.tokens_per_second(space.baseline)
    return baseline * math.exp(-log_speedup) + space.plan.runs * world.compile_seconds(config)


def _combinations(space: SearchSpace, *classes: KnobClass) -> Iterator[dict[str, KnobValue]]:
    dimensions = space.of_class(*classes)
    for values in itertools.product(*(_grid(d.domain) for d in dimensions)):
        yield {d.knob.name: value for d, value in zip(dimensions, values, strict=True)}


def _grid(domain: Domain) -> Sequence[KnobValue]:
    match domain:
        case Choice(values=values):
            return values
        case IntRange():
            return members(domain)
        case FloatRange(low=flow, high=fhigh):
            return [flow * (fhigh / flow) ** (i / _GRID) for i in range(_GRID + 1)]
