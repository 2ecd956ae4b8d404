"""The verdict on one technique of the winner (docs/method.md, 6.3)."""

from __future__ import annotations

import math

from autotune.analysis.recommendation import TechniqueVerdict
from autotune.quantity import Interval


def judge(
    *,
    speed: Interval,
    quality: Interval,
    net_saving_low: float,
    net_saving: float,
    noise_floor: float,
    learning_claimed: bool,
) -> TechniqueVerdict:
    """The verdict on a technique from its ablation: the effects of having it, in log units.

    `quality` is ln of token efficiency at the tested token budget; `learning_claimed` says whether it is
    claimed for the plan. The net saving (any one currency) counts only what is claimed, less the cost of adopting
    the technique. An effect is *shown* if its interval excludes 0 and its estimate exceeds the floor;
    `total` is speed + quality, whose errors are independent. The first row that fits decides:

        total         speed alone   learning claimed   net saving    verdict
        not finite                                                   NOT_MEASURED
        shown, < 0                                                   HARMFUL
        not shown                                                    NEUTRAL: no effect shown
        shown, > 0    not shown > 0       no                         EXPECTED: the gain is in quality alone
        shown, > 0                                     low end > 0   ADOPT
        shown, > 0                                     otherwise     NEUTRAL: not shown to pay

    The low end of the net saving decides, as it does for the whole recommendation (docs/method.md, 6.2).
    """
    total = speed.plus(quality)
    if not all(map(math.isfinite, (total.estimate, total.low, total.high, noise_floor))):
        return TechniqueVerdict.NOT_MEASURED
    if total.high < 0 and total.estimate < -noise_floor:
        return TechniqueVerdict.HARMFUL
    if not _is_gain(total, noise_floor):
        return TechniqueVerdict.NEUTRAL
    if not learning_claimed and not _is_gain(speed, noise_floor):
        return TechniqueVerdict.EXPECTED
    return TechniqueVerdict.ADOPT if min(net_saving_low, net_saving) > 0 else TechniqueVerdict.NEUTRAL


def _is_gain(effect: Interval, noise_floor: float) -> bool:
    return effect.low > 0 and effect.estimate > noise_floor
