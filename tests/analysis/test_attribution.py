"""The decision table of `judge`, line by line, and what it may never say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.attribution import judge
from autotune.analysis.recommendation import TechniqueVerdict
from autotune.quantity import Interval

FLOOR = 0.02
NOTHING = (0.0, 0.0)
Effect = tuple[float, float]  # estimate, half-width; log units
effects = st.tuples(st.floats(-1.0, 1.0), st.floats(0.0, 0.5))


def verdict(
    speed: Effect, quality: Effect, *, claimed: bool = True, net: Effect = (1.0, 0.5), floor: float = FLOOR
) -> TechniqueVerdict:
    def interval(effect: Effect) -> Interval:
        estimate, half = effect
        return Interval(estimate=estimate, low=estimate - half, high=estimate + half, level=0.9)

    return judge(
        speed=interval(speed),
        quality=interval(quality),
        net_saving_low=net[0] - net[1],
        net_saving=net[0],
        noise_floor=floor,
        learning_claimed=claimed,
    )


@pytest.mark.parametrize(
    ("speed", "quality", "claimed", "net", "expected"),
    [
        ((0.2, 0.05), NOTHING, True, (1.0, 0.5), TechniqueVerdict.ADOPT),
        ((0.2, 0.05), NOTHING, False, (1.0, 0.5), TechniqueVerdict.ADOPT),
        ((0.2, 0.05), NOTHING, True, (-1.0, 0.5), TechniqueVerdict.NEUTRAL),
        ((0.2, 0.05), NOTHING, True, (0.2, 0.5), TechniqueVerdict.NEUTRAL),
        ((0.015, 0.001), NOTHING, True, (1.0, 0.5), TechniqueVerdict.NEUTRAL),
        ((0.1, 0.15), NOTHING, True, (1.0, 0.5), TechniqueVerdict.NEUTRAL),
        ((-0.1, 0.05), NOTHING, True, (-1.0, 0.5), TechniqueVerdict.HARMFUL),
        ((-0.015, 0.001), NOTHING, True, (-1.0, 0.5), TechniqueVerdict.NEUTRAL),
        ((-0.1, 0.15), NOTHING, True, (-1.0, 0.5), TechniqueVerdict.NEUTRAL),
        ((0.1, 0.05), (-0.4, 0.05), True, (-1.0, 0.5), TechniqueVerdict.HARMFUL),
        ((0.01, 0.05), (0.3, 0.05), False, (1.0, 0.5), TechniqueVerdict.EXPECTED),
        ((-0.1, 0.05), (0.3, 0.05), False, (1.0, 0.5), TechniqueVerdict.EXPECTED),
        ((0.01, 0.05), (0.3, 0.05), True, (1.0, 0.5), TechniqueVerdict.ADOPT),
        ((0.2, 0.05), (0.3, 0.05), False, (1.0, 0.5), TechniqueVerdict.ADOPT),
        ((0.2, 0.05), (0.3, 0.6), False, (1.0, 0.5), TechniqueVerdict.NEUTRAL),
        # 0.1 - 0.08 < 0 for each alone, and 0.2 - 0.113 > 0 together: errors add in squares
        ((0.1, 0.08), (0.1, 0.08), True, (1.0, 0.5), TechniqueVerdict.ADOPT),
        ((0.1, 0.11), (0.1, 0.18), True, (1.0, 0.5), TechniqueVerdict.NEUTRAL),
    ],
)
def test_decision_table(speed: Effect, quality: Effect, claimed: bool, net: Effect, expected: TechniqueVerdict) -> None:
    assert verdict(speed, quality, claimed=claimed, net=net) is expected


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_was_not_measured(bad: float) -> None:
    assert verdict((bad, 0.1), NOTHING) is TechniqueVerdict.NOT_MEASURED
    assert verdict((0.2, 0.1), (0.2, bad)) is TechniqueVerdict.NOT_MEASURED
    assert verdict((0.2, 0.1), NOTHING, floor=bad) is TechniqueVerdict.NOT_MEASURED
    assert verdict((0.2, 0.1), NOTHING, net=(math.nan, 0.0)) is TechniqueVerdict.NEUTRAL


@given(effects, effects, st.booleans(), st.floats(0.0, 0.3))
def test_no_claim_below_the_floor_or_across_zero(speed: Effect, quality: Effect, claimed: bool, floor: float) -> None:
    total = speed[0] + quality[0]
    if abs(total) <= floor or abs(total) <= math.hypot(speed[1], quality[1]):
        assert verdict(speed, quality, claimed=claimed, floor=floor) is TechniqueVerdict.NEUTRAL


@given(effects, effects, st.booleans())
def test_a_technique_and_its_absence_are_never_both_adopted_nor_both_harmful(
    speed: Effect, quality: Effect, claimed: bool
) -> None:
    forwards = verdict(speed, quality, claimed=claimed)
    backwards = verdict((-speed[0], speed[1]), (-quality[0], quality[1]), claimed=claimed)
    gains = {TechniqueVerdict.ADOPT, TechniqueVerdict.EXPECTED}
    assert (forwards in gains) == (backwards is TechniqueVerdict.HARMFUL)


@given(effects, effects)
def test_claiming_the_learning_part_only_ever_promotes_a_hypothesis(speed: Effect, quality: Effect) -> None:
    unclaimed, claimed = verdict(speed, quality, claimed=False), verdict(speed, quality, claimed=True)
    was_hypothesis = unclaimed is TechniqueVerdict.EXPECTED
    assert claimed is (TechniqueVerdict.ADOPT if was_hypothesis else unclaimed)
