"""Gates: whether short trials inform about learning at all, before anything is concluded from their losses. Pure.

In a trial of few steps the loss mostly shows how far the weights were moved: a higher learning rate or a schedule
that stays high "wins" whatever it does in a long run. Then the trial measures the area under the schedule, and no
figure for learning may be taken from it (docs/method.md, 9.1).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.quantity import Unknown

_FARTHEST_AREA = 0.7  # in ln of the area: farther off, divergence and the optimum show as well
_STARVED = 0.8  # slope and share of the variance, from which on a trial measures the area
_FEWEST = 4  # points, the baseline among them
_LEAST_SPREAD = 0.1  # of ln of the area: its standard deviation
_BATCH_CONSTANT, _BATCH_EXPONENT = 0.75, 0.57  # of the critical batch in tokens (Step Law, arXiv 2503.04715)
_STEEPER = 1.1  # a slope of the loss this many times the one before it is rising


@dataclass(frozen=True, slots=True, kw_only=True)
class Starvation:
    """How measured ln e follows ln of the area under the schedule: `slope`, and the share `r_squared` it explains."""

    slope: float
    r_squared: float
    trials: int

    @property
    def is_starved(self) -> bool:
        """Whether the trials measure the area and nothing else."""
        return self.slope > _STARVED and self.r_squared > _STARVED


def step_starvation(points: Sequence[tuple[float, float]]) -> Starvation | Unknown:
    """The regression of ln e on g over the trials of one length, given as (g, ln e), with the baseline at (0, 0).

    g is ln of the sum of learning rates over a candidate's steps, over that of the baseline. Only |g| < 0.7 counts.
    """
    near = [(0.0, 0.0), *((g, e) for g, e in points if abs(g) < _FARTHEST_AREA and math.isfinite(e))]
    if len(near) < _FEWEST:
        return Unknown(
            reason=f"the starvation gate needs {_FEWEST - 1} trials with other schedules; got {len(near) - 1}"
        )
    areas, efficiencies = zip(*near, strict=True)
    if statistics.pstdev(areas) < _LEAST_SPREAD:
        return Unknown(reason="the schedules tried differ too little in area for the starvation gate")
    if statistics.pstdev(efficiencies) == 0.0:
        return Starvation(slope=0.0, r_squared=0.0, trials=len(near) - 1)
    return Starvation(
        slope=statistics.linear_regression(areas, efficiencies).slope,
        r_squared=statistics.correlation(areas, efficiencies) ** 2,
        trials=len(near) - 1,
    )


def least_tokens(step_tokens: int) -> float:
    """The token budget from which on a step of `step_tokens` is no larger than the critical batch: (B / k)**(1 / 0.57).

    A law of larger models, so it proposes a length; `step_starvation` decides. (Step Law, arXiv 2503.04715.)
    """
    return math.pow(step_tokens / _BATCH_CONSTANT, 1.0 / _BATCH_EXPONENT)


def is_steepening(points: Sequence[tuple[int, float]], noise: float = 0.01) -> bool:
    """Whether the loss still falls ever faster in ln of the token budget: then no level may be extrapolated.

    `points` are (tokens, loss of a complete schedule), `noise` the standard deviation of a loss in nats. The last local
    slope -dL / d ln D is compared with the one before it; three budgets are needed, with fewer the answer is no.
    """
    losses: dict[int, list[float]] = {}
    for tokens, loss in points:
        losses.setdefault(tokens, []).append(loss)
    means = [(math.log(tokens), statistics.fmean(values)) for tokens, values in sorted(losses.items())]
    slopes = [(a - b, (a - b) / (y - x)) for (x, a), (y, b) in itertools.pairwise(means)]
    if len(slopes) < 2:
        return False
    (_, before), (fall, last) = slopes[-2:]
    return last > _STEEPER * before and fall > 3.0 * noise
