"""How token efficiency depends on the learning knobs and on the token budget, and what that says of the plan. Pure.

ln e of a configuration over the baseline, after complete schedules of D tokens, is modelled as

    sum over changed knobs of (level + slope * ln(D / D_top)) * x  -  kappa_r * u^2 - kappa_b * v^2 - c * u * v

with x = u for the learning rate (u = ln of its ratio to the baseline's), x = v for the batch, and x = 1 for any other
changed value. That is a quadratic surface in u and v whose optimum drifts with ln D; curvature does not drift. D_top is
the longest token budget measured; beyond it the slope differs from the measured one by an unknown amount. A trial of
few steps shows more than that: how far the weights were moved. So a measurement contains a(D) * g besides, where g is
ln of the area under the schedule over the baseline's. a(D) is the same for all knobs. It falls from each token budget
to the next by a coefficient; beyond the longest, half of what is left goes with every factor of 4. All coefficients are
beliefs: the priors of `autotune.analysis.priors`, combined with every measurement by precision (docs/method.md, 9.2 and
9.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autotune.analysis import priors
from autotune.analysis.linear import Belief
from autotune.analysis.priors import Prior
from autotune.analysis.rates import FloatArray
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobClass, KnobValue, Law
from autotune.workload.space import SearchSpace

NOISE_SD = 0.035
"""Standard deviation of ln e of one run on common seeds, expected before residuals are known. A measurement compares
two runs; that of the baseline is shared by all measurements at its token budget."""
_NOISE_FREEDOM = 6.0  # how many residuals that expectation counts for
_BENDING_SD = 0.08  # of ln e per unit of ln D below the longest budget: slopes are not constant there either
_VAGUE = 3.0  # standard deviations of a level at the longest budget, in those expected at the plan
_LEAST_CURVATURE = 0.02
_CURVATURES = (priors.RATE_CURVATURE, priors.BATCH_CURVATURE, priors.RATE_WITH_BATCH)
_A_RUNG = math.log(4.0)  # of ln D: over it, a token budget's part of the area's effect falls to 0 or, beyond the last,
_AREA_LEFT = 0.5  # to this: 0.8 in benchmarks/horizons.py, and nearly nothing where trials of few steps are special
_ON_A_SCALE = (Law.RATE, Law.BATCH)

Feature = tuple[str, KnobValue | None]
"""A knob and its value; the value is None for a knob on a scale (learning rate, batch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """ln of token efficiency of `config` over the baseline after a complete schedule of `tokens`, on one seed.

    `variance` is that of the conversion from loss to tokens; the noise between runs comes on top.
    """

    config: Configuration
    tokens: int
    log_efficiency: float
    variance: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """The belief about ln e of every configuration of `space` at every token budget, given what was `seen`.

    Configurations are compared by their learning knobs alone. `candidates` may be tried: their values have
    coefficients, too. `curvatures` (of rate and batch) turn the drift of an optimum into that of ln e. A sceptical
    surface knows no direction beforehand: levels are vague and slopes 0 on average, so that any gain was measured.
    """

    space: SearchSpace
    plan_tokens: float
    seen: tuple[Seen, ...]
    candidates: tuple[Configuration, ...]
    top_tokens: int
    curvatures: tuple[float, float] = (priors.RATE_CURVATURE.mean, priors.BATCH_CURVATURE.mean)
    is_sceptical: bool = False

    # -- what it says -----------------------------------------------------------------------------

    def at_plan(self, config: Configuration) -> tuple[float, float]:
        """Mean and standard deviation of ln e at the plan's length."""
        return self.at(config, self.plan_tokens)

    def at(self, config: Configuration, tokens: float) -> tuple[float, float]:
        """Mean and standard deviation of ln e after schedules of `tokens`."""
        mean, sd = self.belief.of(self.row(config, tokens))
        return mean, math.hypot(sd, self.interaction_sd(config))

    def moved_by(self, config: Configuration, lengths: Sequence[int]) -> FloatArray:
        """What trials of `config` would tell, one of each token budget in `lengths`; shape (coefficients, lengths).

        The change of any prediction `row @ coefficients` has the norm of `row @ result` as its standard deviation.
        """
        rows = np.array([self.measured_row(config, tokens) for tokens in lengths])
        noise = [self._variance_of(config, tokens) * self.noise_factor for tokens in lengths]
        for number, tokens in enumerate(lengths):
            if tokens not in self.rungs:  # the baseline's own run, and what a(D) falls by next
                noise[number] += NOISE_SD**2 + (priors.AREA.sd * self.log_area(config, tokens)) ** 2
        covariance = self.belief.covariance @ rows.T
        root = np.linalg.cholesky(rows @ covariance + np.diag(noise))
        return np.asarray(np.linalg.solve(root, covariance.T).T)

    def chance_beyond(self, least: float, config: Configuration, tokens: int) -> float:
        """The probability that a trial of `config` after `tokens` shows |ln e| above `least`."""
        row = self.measured_row(config, tokens)
        mean, sd = self.belief.of(row)
        sd = math.hypot(sd, math.sqrt(self._variance_of(config, tokens) * self.noise_factor))
        below, above = ((least + sign * mean) / sd / math.sqrt(2.0) for sign in (1.0, -1.0))
        return (math.erfc(below) + math.erfc(above)) / 2.0

    # -- coefficients ------------------------------------------------------------------------------

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """What has coefficients: the searched knobs on a scale, and the values of others that were or may be tried."""
        found: dict[Feature, None] = {}
        for dimension in self.space.of_class(KnobClass.LEARNING):
            if dimension.knob.law in _ON_A_SCALE:
                found[dimension.knob.name, None] = None
        for config in (*(seen.config for seen in self.seen), *self.candidates):
            found |= dict.fromkeys(self.turned(config))
        return tuple(found)

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The token budgets measured; the noise of the baseline's run at each has a coefficient."""
        return tuple(sorted({seen.tokens for seen in self.seen}))

    def turned(self, config: Configuration) -> Mapping[Feature, float]:
        """By feature: u, v or 1, for every learning knob that differs from the baseline's."""
        found: dict[Feature, float] = {}
        for name, value in self.space.changed(config, KnobClass.LEARNING).items():
            if self.space.workload.knobs[name].law in _ON_A_SCALE:
                found[name, None] = math.log(float(value) / float(self.space.baseline[name]))
            else:
                found[name, value] = 1.0
        return found

    def row(self, config: Configuration, tokens: float) -> FloatArray:
        """The factors of the coefficients in ln e of `config` after `tokens`; shape (coefficients,)."""
        distance = math.log(tokens / self.top_tokens)
        turned = self.turned(config)
        row = []
        for feature in self.features:
            x = turned.get(feature, 0.0)
            row += [x, x * distance, x * min(distance, 0.0)]  # level, slope ahead, slope so far less that ahead
        u, v = (self._on_scale(turned, law) for law in _ON_A_SCALE)
        area = self.log_area(config, tokens)
        areas = (area * self._left_of_area(rung, tokens) for rung in self.rungs)
        return np.array([*row, -u * u, -v * v, -u * v, *np.zeros(len(self.rungs)), *areas])

    def _left_of_area(self, rung: int, tokens: float) -> float:
        """The share of a token budget's part of a(D) that is left after `tokens`."""
        beyond = max(0.0, math.log(tokens / rung) / _A_RUNG)
        return _AREA_LEFT**beyond if rung == self.rungs[-1] else max(0.0, 1.0 - beyond)

    def measured_row(self, config: Configuration, tokens: int) -> FloatArray:
        """The same for a measurement, with the noise of the baseline's run that it is compared with."""
        row = self.row(config, tokens)
        if tokens in self.rungs:
            row[len(row) - 2 * len(self.rungs) + self.rungs.index(tokens)] = 1.0
        return row

    def log_area(self, config: Configuration, tokens: float) -> float:
        """ln of the area under the learning-rate schedule over the baseline's; 0 if it is not known."""
        ours, theirs = (self.space.workload.schedule_area(c, int(tokens)) for c in (config, self.space.baseline))
        return 0.0 if isinstance(ours, Unknown) or isinstance(theirs, Unknown) else math.log(ours / theirs)

    def interaction_sd(self, config: Configuration) -> float:
        """Standard deviation of ln e of knobs turned together, beyond the sum of each alone."""
        return priors.INTERACTION.sd * math.sqrt(max(0, len(self.turned(config)) - 1))

    # -- beliefs -------------------------------------------------------------------------------------

    @cached_property
    def prior(self) -> Belief:
        """Before any measurement. Expectations at the plan's length enter as measurements there."""
        means: list[float] = []
        sds: list[float] = []
        for feature in self.features:
            level, slope, scale = self._priors_of(feature)
            known = 0.0 if self.is_sceptical else scale
            means += [level.mean * known, slope.mean * known, 0.0]
            sds += [_VAGUE * level.sd * scale, slope.sd * scale, priors.SLOPE_CHANGE.sd * scale]
        count = len(self.rungs)
        means += [*(p.mean for p in _CURVATURES), *[0.0] * count, *[priors.AREA.mean] * count]
        sds += [*(p.sd for p in _CURVATURES), *[NOISE_SD] * count, *[priors.AREA.sd] * count]
        vague = Belief(np.array(means), np.diag(np.square(sds)))
        if self.is_sceptical:
            return vague
        rows = np.zeros((len(self.features), len(means)))
        expected, variances = [], []
        for number, feature in enumerate(self.features):
            level, _, scale = self._priors_of(feature)
            rows[number, 3 * number : 3 * number + 2] = 1.0, math.log(self.plan_tokens / self.top_tokens)
            expected.append(level.mean * scale)
            variances.append((level.sd * scale) ** 2)
        return vague.given(rows, np.array(expected), np.array(variances))

    @cached_property
    def belief(self) -> Belief:
        """After all measurements. Their noise is as expected, or larger if they fit that badly."""
        return self.prior.given(*self._measured(self.noise_factor))

    @cached_property
    def noise_factor(self) -> float:
        """How much larger the variance of measurements is than expected; at least 1."""
        if not self.seen:
            return 1.0
        misfit = self.prior.misfit(*self._measured(1.0))
        return max(1.0, (_NOISE_FREEDOM + misfit) / (_NOISE_FREEDOM + len(self.seen)))

    def _measured(self, noise_factor: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        rows = np.array([self.measured_row(seen.config, seen.tokens) for seen in self.seen])
        values = np.array([seen.log_efficiency for seen in self.seen])
        variances = np.array([self._variance_of(seen.config, seen.tokens, seen.variance) for seen in self.seen])
        return rows, values, variances * noise_factor

    def _variance_of(self, config: Configuration, tokens: int, conversion: float = 0.0) -> float:
        bending = _BENDING_SD * math.log(tokens / self.top_tokens)
        return NOISE_SD**2 + conversion + bending**2 + self.interaction_sd(config) ** 2

    def _priors_of(self, feature: Feature) -> tuple[Prior, Prior, float]:
        """Prior of the level at the plan, prior of the slope, and the factor that turns both into ln e."""
        name, value = feature
        law = self.space.workload.knobs[name].law
        if law is Law.RATE:
            return priors.USERS_RATE, priors.RATE_SLOPE, 2.0 * self.curvatures[0]
        if law is Law.BATCH:
            return priors.USERS_BATCH, priors.BATCH_SLOPE, 2.0 * self.curvatures[1]
        if law is Law.SCHEDULE and value is not None:
            return priors.schedule_over(value, self.space.baseline[name]), priors.OTHER_SLOPE, 1.0
        return priors.OTHER_LEVEL, priors.OTHER_SLOPE, 1.0

    def _on_scale(self, turned: Mapping[Feature, float], law: Law) -> float:
        return sum(x for (name, _), x in turned.items() if self.space.workload.knobs[name].law is law)


def surface_of(
    space: SearchSpace,
    plan_tokens: float,
    seen: Sequence[Seen],
    *,
    candidates: Sequence[Configuration] = (),
    first_tokens: int = 0,
    is_sceptical: bool = False,
) -> Surface:
    """The surface given measurements; `first_tokens` is the first token budget, for when nothing was measured yet.

    A flat surface has no optimum that could drift, so drift is scaled by the curvature found in a first fit.
    """
    surface = Surface(
        space=space,
        plan_tokens=plan_tokens,
        seen=tuple(seen),
        candidates=tuple(candidates),
        top_tokens=max((s.tokens for s in seen), default=first_tokens or space.workload.horizon_tokens),
        is_sceptical=is_sceptical,
    )
    first = 3 * len(surface.features)
    for _ in range(2):
        rate, batch = (max(_LEAST_CURVATURE, float(k)) for k in surface.belief.mean[first : first + 2])
        surface = replace(surface, curvatures=(rate, batch))
    return surface
