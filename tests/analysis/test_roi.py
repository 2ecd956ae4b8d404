"""Device-seconds of the plan, and break-even: identities."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.roi import break_even_seconds, plan_device_seconds
from autotune.quantity import Interval, Unknown

positive = st.floats(0.01, 1e6)


def interval(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, level=0.9)


def test_plan_device_seconds() -> None:
    assert plan_device_seconds(1e9, 3, 1e4) == 3e5
    assert plan_device_seconds(1e9, 3, 0.0) == math.inf


def test_break_even_known_answer() -> None:
    answer = break_even_seconds(100.0, interval(1.25, 2.0, 5.0))
    assert isinstance(answer, Interval)
    assert (answer.low, answer.estimate, answer.high) == pytest.approx((125.0, 200.0, 500.0))
    assert answer.level == 0.9


@given(positive, st.lists(st.floats(1.001, 50.0), min_size=3, max_size=3))
def test_at_break_even_the_plan_has_saved_exactly_the_search(search: float, speeds: list[float]) -> None:
    low, estimate, high = sorted(speeds)
    answer = break_even_seconds(search, interval(low, estimate, high))
    assert isinstance(answer, Interval)
    assert answer.low <= answer.estimate <= answer.high
    for length, speedup in ((answer.low, high), (answer.estimate, estimate), (answer.high, low)):
        assert length - length / speedup == pytest.approx(search, rel=1e-6)


@pytest.mark.parametrize(
    "speedup",
    [(0.9, 1.1, 1.3), (1.0, 1.1, 1.3), (0.5, 0.7, 0.9), (0.9, 0.95, 1.0), (math.nan, 1.1, 1.2), (1.1, math.nan, 1.2)],
)
def test_no_break_even_unless_surely_faster(speedup: tuple[float, float, float]) -> None:
    assert isinstance(break_even_seconds(100.0, interval(*speedup)), Unknown)
