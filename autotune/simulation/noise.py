"""The noise of a shared machine, as docs/method.md, 3 describes it.

```
seconds of a step = true seconds * common(t) * own(step) * offset(process)

common(t)   one series for every process of the machine: slow drift, correlated jitter, bursts
own(step)   drawn independently for each step, heavy-tailed
offset      drawn once for the life of a process (page placement and the like)
```
Pairing cancels the first, more slices average out the second, and only reopening averages out the third.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from autotune.analysis.rates import FloatArray
from autotune.simulation.world import Slowdown

_CELL_SECONDS = 0.25  # the common series is constant within one
_CHUNK_CELLS = 4_096
_OWN_DRAWS = 4_096
_LARGEST_DRAW = 12.0  # standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMachine:
    """A machine with other users. Spreads are standard deviations of logarithms, times are in seconds.

    The defaults reproduce measurements on two shared cores (docs/method.md, 3.4 and 3.5): a lag-1 autocorrelation of
    log step times near 0.7, paired log-ratios with a spread of about 0.126, per-process offsets of 2 %, and
    bursts of several seconds that slow everything by a factor of three to eight.
    """

    jitter: float = 0.14
    jitter_seconds: float = 3.0
    own: float = 0.085
    own_degrees: float = 4.0  # of Student's t
    process: float = 0.02
    drift: float = 0.05
    drift_seconds: float = 1_500.0
    burst_every_seconds: float = 90.0  # on average; 0 for none
    burst_seconds: float = 4.0
    burst_least: float = 3.0
    burst_most: float = 8.0

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """See `ScriptedWorld.slowdown`."""
        common = _common(self, seed)
        rng = np.random.default_rng([1, seed, process])
        own = (self._own_factors(rng, _OWN_DRAWS) * math.exp(rng.normal(0.0, self.process))).tolist()
        used = 0

        def factor(at_seconds: float) -> float:
            nonlocal used
            used += 1
            return float(own[used % _OWN_DRAWS]) * common.at(at_seconds)

        return factor

    def long_run_slowdown(self, seed: int, seconds: float) -> float:
        """The slowdown of a run of that length, with its own noise series."""
        common = _Common(self, np.random.default_rng([3, seed]))
        cells = max(1, min(int(seconds / _CELL_SECONDS), 400 * _CHUNK_CELLS))
        return common.mean(cells) * self._own_mean

    def process_offset(self, seed: int) -> float:
        """The constant slowdown of one more process."""
        return math.exp(float(np.random.default_rng([4, seed]).normal(0.0, self.process)))

    @property
    def _own_mean(self) -> float:
        return float(np.mean(self._own_factors(np.random.default_rng(5), 100 * _OWN_DRAWS)))

    def _own_factors(self, rng: np.random.Generator, count: int) -> FloatArray:
        """Heavy-tailed factors of spread `own`, shape (count,). The far tails are clipped so that a mean exists."""
        to_unit = math.sqrt((self.own_degrees - 2.0) / self.own_degrees)
        draws = np.clip(rng.standard_t(self.own_degrees, count) * to_unit, -_LARGEST_DRAW, _LARGEST_DRAW)
        factors: FloatArray = np.exp(draws * self.own)
        return factors


class _Common:
    """The series that all processes share, generated on demand."""

    def __init__(self, machine: SharedMachine, rng: np.random.Generator) -> None:
        self._machine = machine
        self._rng = rng
        self._factors: list[float] = []
        self._jitter = float(rng.normal(0.0, machine.jitter))
        self._phase = float(rng.uniform(0.0, 2.0 * math.pi))
        self._burst_left = 0.0
        self._burst_factor = 1.0

    def at(self, seconds: float) -> float:
        """The factor at that time."""
        cell = int(seconds / _CELL_SECONDS)
        while cell >= len(self._factors):
            self._extend()
        return self._factors[cell]

    def mean(self, cells: int) -> float:
        """The harmonic mean over the first `cells` cells, because less work is done in slow ones."""
        while cells > len(self._factors):
            self._extend()
        return 1.0 / float(np.mean(1.0 / np.array(self._factors[:cells])))

    def _extend(self) -> None:
        m, rng = self._machine, self._rng
        kept = math.exp(-_CELL_SECONDS / m.jitter_seconds)
        shocks = rng.normal(0.0, m.jitter * math.sqrt(1.0 - kept**2), _CHUNK_CELLS).tolist()
        starts = rng.random(_CHUNK_CELLS).tolist()
        chance = _CELL_SECONDS / m.burst_every_seconds if m.burst_every_seconds > 0 else 0.0
        turn = 2.0 * math.pi * _CELL_SECONDS / m.drift_seconds
        for shock, start in zip(shocks, starts, strict=True):
            self._jitter = kept * self._jitter + shock
            if self._burst_left <= 0.0 and start < chance:
                self._burst_left = float(rng.exponential(m.burst_seconds))
                self._burst_factor = float(rng.uniform(m.burst_least, m.burst_most))
            burst = self._burst_factor if self._burst_left > 0.0 else 1.0
            self._burst_left -= _CELL_SECONDS
            drift = m.drift * math.sqrt(2.0) * math.sin(self._phase + turn * len(self._factors))
            self._factors.append(math.exp(self._jitter + drift) * burst)


@functools.lru_cache(maxsize=4)
def _common(machine: SharedMachine, seed: int) -> _Common:
    """One series for all sessions of a study."""
    return _Common(machine, np.random.default_rng([2, seed]))
