"""Schedules of learning rate, weight decay and dropout over a run. Standard library only.

Each function returns the factor in [0, 1] on a peak value; `progress` is the fraction of the horizon
done; past the horizon the last value holds.
"""

from __future__ import annotations

import math
from functools import cache

_MOST_POINTS = 1_000  # of a schedule, to sum it up

WSD_DECAY_FRACTION = 0.2
"""The fraction of the horizon over which `wsd` (warm-up, stable, decay; arXiv 2405.18392) falls to zero."""

INVERSE_SQRT_START = 0.01
"""The fraction of the horizon up to which `inverse_sqrt` holds the peak if the warm-up is shorter or absent."""


def lr_factor(schedule: str, warmup_fraction: float, progress: float) -> float:
    """The factor on the peak learning rate.

    Linear warm-up over `warmup_fraction` of the horizon, then `constant`, a fall to zero (`linear`,
    `cosine`, or `wsd` over the last fifth), or `inverse_sqrt`, which falls as 1 / sqrt(steps done)
    to sqrt(warmup_fraction) at the end (Vaswani et al. 2017, arXiv 1706.03762, equation 3). Without a
    warm-up that fall has no start, so it begins after `INVERSE_SQRT_START` of the horizon.
    """
    progress = _within(progress)
    if progress < warmup_fraction:
        return progress / warmup_fraction
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - _done(progress, since=warmup_fraction)
        case "cosine":
            return _cosine(_done(progress, since=warmup_fraction))
        case "wsd":
            return 1.0 - _done(progress, since=max(warmup_fraction, 1.0 - WSD_DECAY_FRACTION))
        case "inverse_sqrt":
            start = max(warmup_fraction, INVERSE_SQRT_START)
            return math.sqrt(start / max(progress, start))
    raise ValueError(
        f"schedule must be constant, linear, cosine, wsd or inverse_sqrt; got {schedule!r}: choose one of them"
    )


@cache
def lr_area(schedule: str, warmup_fraction: float, steps: int) -> float:
    """The sum of the learning-rate factors over the steps of a complete schedule; of many steps, to 1e-5 of it.

    Times the peak rate, it is how far AdamW can move a weight, whose steps are about as long as the rate.
    """
    points = min(steps, _MOST_POINTS)
    factors = (lr_factor(schedule, warmup_fraction, (point + 0.5) / points) for point in range(points))
    return steps * math.fsum(factors) / points


def weight_decay_factor(schedule: str, progress: float) -> float:
    """The factor on the weight decay: `constant`, or `linear` or `cosine` to zero at the end.

    A step shrinks the weights by this times the learning rate, which has its own schedule.
    """
    progress = _within(progress)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return _cosine(progress)
    raise ValueError(f"weight_decay_schedule must be constant, linear or cosine; got {schedule!r}: choose one of them")


def dropout_factor(schedule: str, progress: float) -> float:
    """The factor on the dropout rate: `constant`, `falling` to zero at the end, or `rising` from zero.

    Falling: early dropout (Liu et al. 2023, arXiv 2303.01500), against underfitting. Rising: curriculum
    dropout (Morerio et al. 2017, arXiv 1703.06229), against overfitting, which comes late.
    """
    progress = _within(progress)
    match schedule:
        case "constant":
            return 1.0
        case "falling":
            return 1.0 - progress
        case "rising":
            return progress
    raise ValueError(f"dropout_schedule must be constant, falling or rising; got {schedule!r}: choose one of them")


def _within(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)


def _cosine(done: float) -> float:
    """Half a cosine, from one to zero."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _done(progress: float, *, since: float) -> float:
    """The fraction of the span from `since` to 1 that is done."""
    return max(0.0, (progress - since) / (1.0 - since))
