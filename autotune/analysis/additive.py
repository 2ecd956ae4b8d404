"""What system knobs are expected to do together, from trials of each: ln of speed as a sum of effects. Pure."""

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
_TRIAL_SD = 0.04  # one pair of processes


@dataclass(frozen=True, kw_only=True, eq=False)
class Additive:
    """The belief about ln speed over `centre`, given the `scores` of configurations that were measured."""

    centre: Configuration
    scores: Mapping[Configuration, float]
    names: Sequence[str]

    def of(self, config: Configuration) -> tuple[float, float]:
        """Mean and standard deviation of ln speed of `config`; its own measurement is not used twice."""
        row, unknown = self._row(config)
        mean, sd = self._belief.of(row)
        return mean, math.sqrt(sd**2 + unknown * _VALUE_SD**2 + self._interaction(config))

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
    def _belief(self) -> Belief:
        size = len(self._features) + 1  # the last is the centre's own score
        prior = Belief(np.zeros(size), np.diag([*[_VALUE_SD**2] * (size - 1), 1.0]))
        if not self.scores:
            return prior
        rows = np.array([self._row(config)[0] for config in self.scores])
        noise = np.array([_TRIAL_SD**2 + self._interaction(config) for config in self.scores])
        return prior.given(rows, np.array(list(self.scores.values())), noise)

    def _row(self, config: Configuration) -> tuple[FloatArray, int]:
        turned = self._turned(config)
        row = [float(turned.get(name) == value and name in turned) for name, value in self._features]
        return np.array([*row, 1.0]), len(turned) - int(sum(row))

    def _turned(self, config: Configuration) -> Mapping[str, KnobValue]:
        different = config.difference(self.centre)
        return {name: different[name] for name in self.names if name in different}

    def _interaction(self, config: Configuration) -> float:
        return _INTERACTION_SD**2 * max(0, len(self._turned(config)) - 1)
