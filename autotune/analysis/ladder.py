"""The ladder of token budgets: which trial is worth its cost, and which configuration is best for the plan. Pure.

Trials of few tokens are cheap and say little about the plan; longer ones cost more and say more. At every step the next
trial is the one with the best ratio of value to cost, and none is worth it once every value is below its cost
(docs/method.md, 5 and 9.2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autotune.analysis.rates import FloatArray
from autotune.analysis.surface import NOISE_SD, Feature, Surface
from autotune.space.configuration import Configuration
from autotune.space.knobs import Dimension, FloatRange, IntRange, KnobClass, KnobValue, Law, members, tidy

RUNG_FACTOR = 4.0
"""Between neighbouring token budgets: a whole grid keeps its order up to about this factor (docs/method.md, 9.2)."""
_MOST_RUNGS = 3
_ALMOST = 0.25  # of a rung: the first may be that much shorter
_CANDIDATES = 6  # on the longest rung
_CURVATURE, _PICK_SD, _DRIFT_SD = 0.2, 0.15, 0.15  # kappa, sigma_0 and sigma_1 of docs/method.md, 9.6
_SHOWN = 2.5  # standard deviations from which on a value makes a difference
_NEAR = 0.25  # rates closer than this in ln are one trial
_STEPS = (0.35, 0.5, 0.7, 1.4, 2.0, 2.8)  # of a rate, to look for a better one
_SAFE = 1.4  # a rate must be this far below one that diverged
_LOWEST = 2.0  # a rate may be this far below the lowest tried
_AGAINST = 0.1  # ln e at the plan: measurements without any prior may speak so much against a configuration
_LEAST_SD = 1e-9
_MOST_PASSES = 50


def longest_rung(plan_tokens: float, runs: int) -> float:
    """The token budget of the longest rung: plan / rho with rho minimising K / (R * rho) + kappa * (s_0^2 + s_1^2 *
    ln(rho)^2), K candidates, R runs of the plan (docs/method.md, 9.6).
    """

    def cost(rho: float) -> float:
        drift = _PICK_SD**2 + _DRIFT_SD**2 * math.log(rho) ** 2
        return _CANDIDATES / (runs * rho) + _CURVATURE * drift

    return plan_tokens / min((1.1**step for step in range(1, 120)), key=cost)


def rungs_between(shortest: float, longest: float) -> tuple[int, ...]:
    """Token budgets a factor of 4 apart that end at `longest`, the first near `shortest` or above; at most 3."""
    count = int(math.log(max(longest, shortest) / shortest) / math.log(RUNG_FACTOR) + _ALMOST)
    below = range(min(count, _MOST_RUNGS - 1), -1, -1)
    return tuple(int(max(longest, shortest) / RUNG_FACTOR**step) for step in below)


def value_of_measuring(difference: float, sd: float) -> float:
    """The expected gain, in ln, of choosing between two after a measurement, over the one chosen now.

    `difference` is the expected lead of the other over the one chosen (negative if it is behind); the measurement moves
    that expectation by a normal of standard deviation `sd`. The gain is max(difference, 0) + sd * (phi(z) - z * (1 -
    Phi(z))) with z = |difference| / sd: a lead counts in full, for an untried configuration cannot be chosen untried.
    """
    lead = max(difference, 0.0)
    if sd < _LEAST_SD:
        return lead
    z = abs(difference) / sd
    density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    return lead + sd * (density - z * 0.5 * math.erfc(z / math.sqrt(2.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A climb that may be begun: trials of `config` on the token budgets `lengths`, shortest first.

    `gain` in ln of the plan's cost is expected from all of them, `cost` in the same unit is theirs.
    """

    config: Configuration
    lengths: tuple[int, ...]
    gain: float
    cost: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Ladder:
    """What was learnt so far, and what may be tried next.

    `base` has the baseline's learning knobs on the system configuration that trials run with. `tried` are all trials by
    configuration and length, those that inform of nothing included; `failed` could not be trained. `rungs` are the
    token budgets. `log_speed` gives ln of the throughput of a configuration over that of `base`.
    """

    surface: Surface
    base: Configuration
    rungs: tuple[int, ...]
    tried: tuple[tuple[Configuration, int], ...]
    failed: tuple[Configuration, ...]
    log_speed: Callable[[Configuration], float]

    @cached_property
    def sceptical(self) -> Surface:
        """The surface without any direction known beforehand."""
        return replace(self.surface, is_sceptical=True)

    # -- the best for the plan ---------------------------------------------------------------------

    @cached_property
    def pick(self) -> Configuration:
        """The configuration of least expected cost at the plan among those that trials support; `base` if none.

        Found by changing one knob at a time, rate and batch also together, until nothing improves.
        """
        best, cost = self.base, self.expected_log_cost(self.base)
        for _ in range(_MOST_PASSES):
            before = best
            for config in self._around(best):
                if self.is_supported(config) and (lower := self.expected_log_cost(config)) < cost:
                    best, cost = config, lower
            if best == before:
                break
        return best

    def expected_log_cost(self, config: Configuration) -> float:
        """ln of the expected cost of the plan over that of `base`: -m + s^2 / 2 (docs/method.md, 9.4)."""
        mean, sd = self.surface.at_plan(config)
        return sd * sd / 2.0 - mean - self.log_speed(config)

    def is_supported(self, config: Configuration) -> bool:
        """Whether trials support `config`: each value made a difference somewhere, within the range that was tried.

        What was measured, drift between two lengths included, must not by itself speak against a gain at the plan.
        """
        if self._may_fail(config) or not all(feature in self._shown for feature in self.surface.turned(config)):
            return False
        for law, below in ((Law.RATE, _LOWEST), (Law.BATCH, 1.0)):
            for dimension in self._scales(law):
                name = dimension.knob.name
                tried = [float(c[name]) for c in (self.base, *(s.config for s in self.surface.seen))]
                if not min(tried) / below <= float(config[name]) <= max(tried):
                    return False
        return self.sceptical.at_plan(config)[0] + self.log_speed(config) >= -_AGAINST

    @cached_property
    def _shown(self) -> frozenset[Feature]:
        """The features that made a difference by themselves in a trial, beyond noise."""
        found = set()
        for seen in self.surface.seen:
            turned = self.surface.turned(seen.config)
            if len(turned) == 1 and abs(seen.log_efficiency) > self._difference(seen.variance):
                found |= set(turned)
        return frozenset(found)

    def _difference(self, variance: float) -> float:
        """The least ln e that is a difference beyond noise; `variance` is that of its conversion from a loss."""
        return _SHOWN * math.sqrt(2.0 * NOISE_SD**2 * self.surface.noise_factor + variance)

    # -- the next trial ------------------------------------------------------------------------------

    def options(self, cost: Callable[[Configuration, int], float]) -> list[Option]:
        """The climbs that are expected to gain more than they `cost`, best ratio first.

        One trial tells little about drift, and alone it is often worth nothing; what it begins may be worth a lot. So
        trials on neighbouring rungs are valued together. `cost` is that of a trial of a configuration and token budget
        over the plan's.
        """
        others, leads, untried = self._alternatives
        rows = {top: _rows(surface, others, self.pick) for top, surface in self._at_top.items()}
        found = []
        for config, lengths in self._climbs():
            top = max(self.surface.top_tokens, lengths[-1])
            moved = np.linalg.norm(rows[top] @ self._at_top[top].moved_by(config, lengths), axis=1)
            tries, shows = self.surface.turned(config).keys(), self._chance_to_show(config, lengths)
            gain = max(
                (
                    value_of_measuring(lead, change) * (shows if values else 1.0)
                    for lead, change, values in zip(leads, moved.tolist(), untried, strict=True)
                    if values <= tries
                ),
                default=0.0,
            )
            if gain > (price := sum(cost(config, tokens) for tokens in lengths)):
                found.append(Option(config=config, lengths=lengths, gain=gain, cost=price))
        return sorted(found, key=lambda option: option.cost / option.gain)

    def _chance_to_show(self, config: Configuration, lengths: Sequence[int]) -> float:
        """The probability that one of these trials makes a difference: only then may its values be chosen."""
        return max(self.surface.chance_beyond(self._difference(0.0), config, tokens) for tokens in lengths)

    @cached_property
    def _at_top(self) -> Mapping[int, Surface]:
        """The surface as if the longest token budget measured were another: drift is then unknown beyond that one."""
        tops = {max(self.surface.top_tokens, tokens) for tokens in self.rungs} | {self.surface.top_tokens}
        return {top: replace(self.surface, top_tokens=top) for top in tops}

    @cached_property
    def _alternatives(self) -> tuple[list[Configuration], list[float], list[frozenset[Feature]]]:
        """What might be chosen instead of the pick.

        Besides, by how much it leads, where a trial lets it be chosen at all; and the values that this trial has to try
        for that. What is supported already does not lead, or it would be the pick.
        """
        least = self.expected_log_cost(self.pick)
        around = dict.fromkeys(self._around(self.pick))
        others = [c for c in around if self._may_be_supported(c, self.rungs[-1]) and not self._may_fail(c)]
        untried = [frozenset(self.surface.turned(config).keys() - self._shown) for config in others]
        leads = [
            least - self.expected_log_cost(config) if values else min(0.0, least - self.expected_log_cost(config))
            for config, values in zip(others, untried, strict=True)
        ]
        return others, leads, untried

    def _climbs(self) -> Iterator[tuple[Configuration, tuple[int, ...]]]:
        """Every run of neighbouring rungs that trials of a configuration may be begun on.

        Values not yet tried, and those that made a difference, on longer rungs. A rung is open once something was tried
        on the one below.
        """
        reached = {length for _, length in self.tried}
        candidates = dict.fromkeys([*self.surface.candidates, self.pick, *self._rates_around(self.pick)])
        for config in candidates:
            if config == self.base or self._may_fail(config):
                continue
            is_open = [
                self._may_be_supported(config, tokens) and not self.was_tried(config, tokens) for tokens in self.rungs
            ]
            for first in range(len(self.rungs)):
                if first and self.rungs[first - 1] not in reached:
                    break
                for end in range(first + 1, len(self.rungs) + 1):
                    if not is_open[end - 1]:
                        break
                    yield config, self.rungs[first:end]

    def _may_be_supported(self, config: Configuration, tokens: int) -> bool:
        """Whether no value of `config` was tried for `tokens` or longer and has made no difference anywhere.

        A value that makes none in shorter trials may have its break-even there: a large batch has.
        """
        tried = {f for seen in self.surface.seen if seen.tokens >= tokens for f in self.surface.turned(seen.config)}
        return all(f in self._shown or f not in tried for f in self.surface.turned(config))

    def was_tried(self, config: Configuration, tokens: int) -> bool:
        """Whether it was tried for `tokens`, or differed in nothing but a rate, and in that by little."""
        return any(
            length == tokens and (other == config or self._is_near(other, config)) for other, length in self.tried
        )

    def _is_near(self, one: Configuration, other: Configuration) -> bool:
        """Whether they differ in nothing but a rate, and in that by little."""
        names = set(one.difference(other))
        rates = {dimension.knob.name for dimension in self._scales(Law.RATE)}
        return names <= rates and all(abs(math.log(float(one[n]) / float(other[n]))) < _NEAR for n in names)

    def _may_fail(self, config: Configuration) -> bool:
        return any(self._is_beyond(config, failed) for failed in self.failed)

    def _is_beyond(self, config: Configuration, failed: Configuration) -> bool:
        """Whether `config` may fail as `failed` did: the same, or the same but for a rate not safely below."""
        rates = [dimension.knob.name for dimension in self._scales(Law.RATE)]
        if any(float(failed[n]) > float(self.base[n]) for n in rates):
            if all(float(config[n]) <= float(self.base[n]) for n in rates):
                return False  # the baseline trains at its own
            return all(float(config[n]) * _SAFE > float(failed[n]) for n in rates)
        return config == failed

    # -- moves ---------------------------------------------------------------------------------------

    def _around(self, config: Configuration) -> Iterator[Configuration]:
        """`config` with one learning knob changed, and with rate and batch changed together."""
        for dimension in self.surface.space.of_class(KnobClass.LEARNING):
            for value in self._values(dimension, config):
                for turned in self._turned(config, dimension.knob.name, value):
                    yield turned
                    if dimension.knob.law is Law.BATCH:
                        yield from self._rates_around(turned)

    def _rates_around(self, config: Configuration) -> Iterator[Configuration]:
        for dimension in self._scales(Law.RATE):
            for value in self._values(dimension, config):
                yield from self._turned(config, dimension.knob.name, value)

    def _values(self, dimension: Dimension, config: Configuration) -> Sequence[KnobValue]:
        """Values to change a knob of `config` to: those near a rate, those tried of any other knob."""
        name, own = dimension.knob.name, self.base[dimension.knob.name]
        if isinstance(dimension.domain, FloatRange | IntRange):
            if dimension.knob.law is Law.RATE:
                return [own, *(tidy(dimension.domain, float(config[name]) * step) for step in _STEPS)]
            return list(dict.fromkeys([own, *(candidate[name] for candidate in self.surface.candidates)]))
        return members(dimension.domain)

    def _turned(self, config: Configuration, name: str, value: KnobValue) -> Iterator[Configuration]:
        if value != config[name]:
            space = self.surface.space
            yield from itertools.islice(space.turn(config, name, value, space.values), 1)

    def _scales(self, law: Law) -> tuple[Dimension, ...]:
        return tuple(d for d in self.surface.space.of_class(KnobClass.LEARNING) if d.knob.law is law)


def _rows(surface: Surface, others: Sequence[Configuration], pick: Configuration) -> FloatArray:
    """What the gain of each of `others` over the pick at the plan depends on; shape (others, coefficients)."""
    plan = surface.plan_tokens
    rows = [surface.row(config, plan) - surface.row(pick, plan) for config in others]
    return np.array(rows).reshape(len(others), len(surface.belief.mean))
