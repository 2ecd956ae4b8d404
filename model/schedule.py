"""The course of the learning rate over a run. Standard library only."""

from __future__ import annotations

import math

WSD_DECAY_FRACTION = 0.2
"""The share of the horizon over which `wsd` (warm-up, stable, decay; arXiv 2405.18392) falls to zero."""


def lr_factor(schedule: str, warmup_fraction: float, progress: float) -> float:
    """The factor in [0, 1] on the peak learning rate, `progress` being the share of the horizon that is done.

    Linear warm-up over `warmup_fraction` of the horizon, then `constant`, or a fall to zero:
    `linear`, `cosine`, or `wsd` over the last fifth. Past the horizon the last value holds.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup_fraction:
        return progress / warmup_fraction
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - _done(progress, since=warmup_fraction)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * _done(progress, since=warmup_fraction)))
        case "wsd":
            return 1.0 - _done(progress, since=max(warmup_fraction, 1.0 - WSD_DECAY_FRACTION))
    raise ValueError(f"schedule must be constant, linear, cosine or wsd; got {schedule!r}: choose one of them")


def _done(progress: float, *, since: float) -> float:
    """The share of the stretch from `since` to 1 that is done."""
    return max(0.0, (progress - since) / (1.0 - since))
