"""What system knobs do to ln of speed, from trials of combinations: a sum of effects, and a rest of each. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autotune.analysis.linear import Belief
from autotune.analysis.rates import FloatArray
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue

_VALUE_SD = 0.25  # of ln speed: what turning one knob may do
_INTERACTION_SD = 0.03  # per further knob
_ASSUMED = 2.0  # values or combinations tried that these are worth: they shrink where none makes a difference
_TRIAL_SD = 0.04  # one pair of processes
_REFERENCE_SD = 0.03  # the process that trials are paired with, over other processes of the baseline


@dataclass(frozen=True, kw_only=True, eq=False)
class Additive:
    """The belief about ln speed over `centre`, the baseline, given the `scores` of configurations that were measured.

    ln of speed is a sum of one effect per value and, where several knobs are turned, a rest of each combination. All
    scores share the offset of the process that they were measured against.
    """

    centre: Configuration
    scores: Mapping[Configuration, float]
    names: Sequence[str]

    def of(self, config: Configuration) -> tuple[float, float]:
        """Mean and standard deviation of ln speed of `config`."""
        return self.over(config, self.centre)

    def over(self, config: Configuration, other: Configuration) -> tuple[float, float]:
        """Mean and standard deviation of ln speed of `config` over `other`."""
        ours, theirs = self._row(config), self._row(other)
        mean, sd = self._belief.of(ours - theirs)
        return mean, math.sqrt(sd**2 + self._unseen(config, other) + self._unseen(other, config))

    def moved_by_measuring(self, config: Configuration) -> float:
        """Standard deviation of the change of the expectation for `config` when it is measured once more."""
        _, sd = self.of(config)
        return sd**2 / math.hypot(sd, _TRIAL_SD)

    def best_values(self) -> Mapping[str, KnobValue]:
        """By knob: the tried value that is expected to be the fastest."""
        best: dict[str, tuple[float, KnobValue]] = {}
        for (name, value), effect in zip(self._features, self._belief.mean.tolist(), strict=False):
            if effect > best.get(name, (0.0, None))[0]:
                best[name] = effect, value
        return {name: value for name, (_, value) in best.items()}

    @cached_property
    def _features(self) -> tuple[tuple[str, KnobValue], ...]:
        found: dict[tuple[str, KnobValue], None] = {}
        for config in self.scores:
            found |= dict.fromkeys(self._turned(config).items())
        return tuple(found)

    @cached_property
    def _combinations(self) -> Mapping[frozenset[tuple[str, KnobValue]], int]:
        """Those measured of several values, and how many more than one."""
        turned = (frozenset(self._turned(config).items()) for config in self.scores)
        return {values: len(values) - 1 for values in turned if len(values) > 1}

    @cached_property
    def _sds(self) -> tuple[float, float]:
        """Standard deviations of the effect of a value, and of the rest of a combination per further knob.

        Less than assumed where those tried make little difference.
        """
        mean, values, further = self._given(_VALUE_SD, _INTERACTION_SD).mean, len(self._features), self._further
        rests = mean[values:-1] / np.sqrt(further)
        return _shrunk(_VALUE_SD, mean[:values]), _shrunk(_INTERACTION_SD, rests)

    @cached_property
    def _belief(self) -> Belief:
        return self._given(*self._sds)

    @property
    def _further(self) -> FloatArray:
        return np.array(list(self._combinations.values()), dtype=float)

    def _given(self, value_sd: float, interaction_sd: float) -> Belief:
        """The belief about effects, rests, and the reference's offset; shape (values + combinations + 1,)."""
        rests = interaction_sd**2 * self._further
        variances = np.array([*[value_sd**2] * len(self._features), *rests.tolist(), _REFERENCE_SD**2])
        prior = Belief(np.zeros(len(variances)), np.diag(variances))
        if not self.scores:
            return prior
        rows = np.array([self._row(config) for config in self.scores])
        rows[:, -1] = 1.0
        return prior.given(rows, np.array(list(self.scores.values())), np.full(len(rows), _TRIAL_SD**2))

    def _row(self, config: Configuration) -> FloatArray:
        turned = self._turned(config)
        values = [float(turned.get(name) == value and name in turned) for name, value in self._features]
        own = frozenset(turned.items())
        return np.array([*values, *(float(own == each) for each in self._combinations), 0.0])

    def _unseen(self, config: Configuration, other: Configuration) -> float:
        """The variance that `config` has of values and of a rest that no trial saw, but for values that `other` has."""
        turned, theirs = self._turned(config), self._turned(other)
        values = sum(each not in self._features and each not in theirs.items() for each in turned.items())
        is_seen = frozenset(turned.items()) in self._combinations or turned == theirs
        further = 0 if is_seen else max(0, len(turned) - 1)
        value_sd, interaction_sd = self._sds
        return values * value_sd**2 + further * interaction_sd**2

    def _turned(self, config: Configuration) -> Mapping[str, KnobValue]:
        different = config.difference(self.centre)
        return {name: different[name] for name in self.names if name in different}


def _shrunk(assumed: float, seen: FloatArray) -> float:
    """The standard deviation of effects like those `seen`: their root mean square, and some as assumed; no more."""
    return min(assumed, math.sqrt((_ASSUMED * assumed**2 + float(seen @ seen)) / (_ASSUMED + len(seen))))
