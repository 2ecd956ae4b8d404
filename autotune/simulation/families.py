"""Families of worlds with different laws of learning; the method must hold in each of them.

`worlds.draw_world` draws only one family: one power law, with a learning-rate optimum that always falls. A method that
relies on that law looks right there. The others contradict it, each in its own way:

powers           the worlds of `draw_world`
regimes          steps and batch have separate terms; the optimum depends on the batch over the best batch
regimes, 0.1     the same, with a different learning-rate slope in each world (standard deviation 0.1)
regimes, 0.2     the same, with 0.2
fixed drift      the slope of the optimum at a fixed batch is anything near zero: N(0.05, 0.25^2) per log token
starved          trials of few steps only show how far the weights moved; schedule effects change sign later
reversed         the optimum rises with the token budget: the negative control for every prior
nothing learned  no learning knob makes any difference
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from scipy.optimize import brentq

from autotune.simulation.workload import training_of
from autotune.simulation.worlds import DrawnWorld, draw_world
from autotune.space.configuration import Configuration

SEQUENCE_TOKENS = 128.0
"""Per sequence in the spaces of these worlds: batches are counted in sequences, laws in tokens."""
_SHORT, _LONG = 1e5, 3e7  # token budgets at which worlds are defined
_USUAL_RATE = 1e-3  # suits the baseline's batch in runs of `_LONG` tokens, on average
_BATCH_EXPONENT = 0.57  # of the best batch in tokens, per log token (Step Law, arXiv 2503.04715)
_RATE_WITH_BATCH = 0.26  # of the best rate per log token, if the batch grows too (same source)
_REGIMES = ((0.3, -0.31), (0.8, -0.10), (2.0, 0.30), (math.inf, 0.18))
"""(Upper share of the best batch, slope of the best rate per log token at a fixed batch); same source."""
_MEAN_RATE = {"constant": 1.0, "wsd": 0.9, "linear": 0.5, "cosine": 0.5, "inverse_sqrt": 0.2}
"""Mean of the learning rate over the schedule, as a share of its peak."""
_AREA_SLOPE = 0.9  # of ln e per unit of ln(area under the schedule), in trials of few steps
_FARTHEST = 60.0  # log tokens either way in the search for tokens to equal loss
_STEEPEST = 1.5  # log units off the best rate, beyond which its penalty is no longer quadratic


class Family(StrEnum):
    """The law of learning; see the module docstring."""

    POWERS = "powers"
    REGIMES = "regimes"
    REGIMES_10 = "regimes, 0.1"
    REGIMES_20 = "regimes, 0.2"
    FIXED_DRIFT = "fixed drift"
    STARVED = "starved"
    REVERSED = "reversed"
    NOTHING_LEARNED = "nothing learned"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeWorld(DrawnWorld):
    """L = E + A * S**-b + F * B**-c, with S steps of B tokens; the best rate depends on B over the best batch.

    The best batch is `best_batch` * D**0.57 tokens. `log_best_rate` is the optimum at 30 M tokens and the best batch;
    per log token it drifts by 0.26 + `slope_drift` if the batch grows too, and by the slope of its regime at a fixed
    batch. Rates more than `wall` log units above the optimum of long runs diverge. A trial of few steps shows the
    area under its schedule instead, with a weight of 1 / (1 + (S / `starved_steps`)**2).
    """

    steps_exponent: float
    batch_exponent: float
    steps_amplitude: float
    best_batch: float
    log_best_rate: float
    slope_drift: float
    wall: float
    starved_steps: float
    schedules: Mapping[str, float]

    def log_best_batch(self, tokens: float) -> float:
        """ln of the best batch in tokens."""
        return math.log(self.best_batch) + _BATCH_EXPONENT * math.log(tokens)

    def log_best_rate_of(self, config: Configuration, tokens: float) -> float:
        """ln of the best learning rate for its batch after `tokens`."""
        off = _log_batch(config) - self.log_best_batch(tokens)
        drift = (_RATE_WITH_BATCH + self.slope_drift) * math.log(tokens / _LONG)
        return self.log_best_rate + drift + _rate_of_batch(off)

    def log_worth(self, config: Configuration, tokens: float) -> float:
        """ln of the value of a token, without the effect of the batch."""
        knobs = training_of(config)
        steps = tokens / math.exp(_log_batch(config))
        starved = 1.0 / (1.0 + (steps / self.starved_steps) ** 2) if self.starved_steps else 0.0
        off = math.log(knobs.learning_rate) - self.log_best_rate_of(config, tokens)
        long = -self.learning_curvature * _squared(off) + self.schedules.get(knobs.schedule, 0.0)
        area = math.log(knobs.learning_rate / _USUAL_RATE * _MEAN_RATE[knobs.schedule] / _MEAN_RATE["cosine"])
        learned = (1.0 - starved) * long + starved * _AREA_SLOPE * area
        return learned + self.log_efficiency.get(("tied_head", knobs.tied_head), 0.0) + self._precision(config)

    def cooled_loss(self, config: Configuration, tokens: float) -> float:
        """The expected loss of a complete schedule of `tokens`, in nats per token."""
        batch = math.exp(_log_batch(config))
        b, c = self.steps_exponent, self.batch_exponent
        effective_steps = tokens * math.exp(self.log_worth(config, tokens)) / batch
        of_steps = self.steps_amplitude * effective_steps**-b
        of_batch = self.steps_amplitude * b * self.best_batch ** (b + c) / c * batch**-c
        return float(self.irreducible + of_steps + of_batch)

    def diverges(self, config: Configuration, tokens: float) -> bool:  # noqa: ARG002 - the same at any length
        """Whether the rate is more than `wall` above the best of long runs."""
        rate = math.log(training_of(config).learning_rate)
        return rate > self.log_best_rate_of(config, _LONG) + self.wall

    def loss_per_log_token(self, config: Configuration, tokens: float) -> float:
        """See `DrawnWorld.loss_per_log_token`; a finite difference."""
        return (self.cooled_loss(config, tokens * 0.95) - self.cooled_loss(config, tokens * 1.05)) / math.log(
            1.05 / 0.95
        )

    def true_log_efficiency(self, config: Configuration, baseline: Configuration, tokens: float) -> float:
        """ln(D_eq / tokens): the baseline needs D_eq tokens for the loss that `config` has after `tokens`."""
        wanted = self.cooled_loss(config, tokens)
        if wanted == self.cooled_loss(baseline, tokens):
            return 0.0

        def missing(log_ratio: float) -> float:
            return wanted - self.cooled_loss(baseline, tokens * math.exp(log_ratio))

        near = next((w for w in (1.0, 4.0, 12.0, _FARTHEST) if missing(-w) < 0 < missing(w)), 0.0)
        return float(brentq(missing, -near, near)) if near else math.copysign(_FARTHEST, -missing(0.0))

    def _precision(self, config: Configuration) -> float:
        return self.log_efficiency.get(("dtype", config["dtype"]), 0.0)


def draw(family: Family, seed: int) -> DrawnWorld:
    """One world of that family. All but learning (speed, memory, compilation) is that of `draw_world(seed)`."""
    world = draw_world(seed)
    rng = random.Random(f"{family} {seed}")
    match family:
        case Family.POWERS:
            return world
        case Family.REGIMES:
            return _regimes(world, rng, slope_sd=0.0, starved_steps=rng.uniform(20.0, 60.0))
        case Family.REGIMES_10:
            return _regimes(world, rng, slope_sd=0.1, starved_steps=rng.uniform(20.0, 60.0))
        case Family.REGIMES_20:
            return _regimes(world, rng, slope_sd=0.2, starved_steps=rng.uniform(20.0, 60.0))
        case Family.STARVED:
            return _regimes(world, rng, slope_sd=0.1, starved_steps=rng.uniform(150.0, 600.0))
        case Family.FIXED_DRIFT:
            return _falling(world, rng, -rng.gauss(0.05, 0.25))
        case Family.REVERSED:
            return _falling(world, rng, -abs(rng.gauss(0.32, 0.05)))
        case Family.NOTHING_LEARNED:
            precision = {key: value for key, value in world.log_efficiency.items() if key[0] == "dtype"}
            return replace(
                world,
                log_efficiency=precision,
                learning_curvature=0.0,
                free_batch=math.inf,
                diverging_learning_rate=math.inf,
            )


def _falling(world: DrawnWorld, rng: random.Random, falls: float) -> DrawnWorld:
    """A best rate that falls as tokens**-`falls` and on average suits long runs."""
    best = math.exp(rng.gauss(math.log(_USUAL_RATE), 0.5)) * (_LONG / _SHORT) ** falls
    return replace(world, rate_falls=falls, best_learning_rate=best)


def _regimes(world: DrawnWorld, rng: random.Random, *, slope_sd: float, starved_steps: float) -> RegimeWorld:
    """Exponents such that the best batch grows as tokens**0.57 and its curvature in ln e is about 0.17."""
    both = rng.uniform(0.28, 0.42)
    b, c = _BATCH_EXPONENT * both, (1.0 - _BATCH_EXPONENT) * both
    best_batch = rng.uniform(0.58, 0.99)
    usual = 16 * SEQUENCE_TOKENS
    off = math.log(usual) - math.log(best_batch) - _BATCH_EXPONENT * math.log(_LONG)
    log_best_rate = rng.gauss(math.log(_USUAL_RATE), 0.5) - _rate_of_batch(off)
    usual_off = math.log(_USUAL_RATE) - log_best_rate - _rate_of_batch(off)
    per_amplitude = (_SHORT / usual) ** -b + b * best_batch ** (b + c) / c * usual**-c
    kept = {f: getattr(world, f) for f in world.__dataclass_fields__}
    kept |= {"learning_curvature": max(0.05, rng.gauss(0.2, 0.04)), "own_luck": 0.002}
    return RegimeWorld(
        **kept,
        steps_exponent=b,
        batch_exponent=c,
        steps_amplitude=rng.uniform(1.8, 2.3) / per_amplitude,
        best_batch=best_batch,
        log_best_rate=log_best_rate,
        slope_drift=rng.gauss(0.0, slope_sd),
        wall=max(rng.uniform(1.2, 2.5), usual_off + 0.7),  # so the baseline itself trains
        starved_steps=starved_steps,
        schedules={
            "constant": rng.gauss(-0.65, 0.2),
            "wsd": rng.gauss(0.15, 0.1),
            "linear": rng.gauss(0.05, 0.05),
        },
    )


def _squared(off: float) -> float:
    """The square of `off`, linear beyond 1.5 so that a loss never rises with the token budget."""
    return off**2 if abs(off) <= _STEEPEST else _STEEPEST * (2.0 * abs(off) - _STEEPEST)


def _log_batch(config: Configuration) -> float:
    """ln of the tokens per step."""
    return math.log(training_of(config).global_batch * SEQUENCE_TOKENS)


def _rate_of_batch(off: float) -> float:
    """ln of the best rate at a batch `off` log units from the best one, over that at the best one.

    Its slopes g' give those at a fixed batch, 0.26 - 0.57 * g', listed in `_REGIMES`.
    """
    start, end = sorted((0.0, off))
    low, total = -math.inf, 0.0
    for share, slope in _REGIMES:
        high = math.log(share)
        total += (_RATE_WITH_BATCH - slope) / _BATCH_EXPONENT * max(0.0, min(end, high) - max(start, low))
        low = high
    return total if off >= 0 else -total
