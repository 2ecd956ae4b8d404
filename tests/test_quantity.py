"""The algebra of intervals and unknowns: what holds for every number, and that a reason is never lost."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.quantity import Interval, Quantity, Unknown, all_known, combine, first_unknown, only_known, or_else

numbers = st.floats(-50.0, 50.0)
levels = st.floats(0.5, 0.99)
unknowns = st.builds(Unknown, reason=st.text(max_size=5))
INCREASING: tuple[Callable[[float], float], ...] = (math.exp, math.atan, lambda x: 3.0 * x - 1.0, lambda x: x)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, estimate, high = sorted((draw(numbers), draw(numbers), draw(numbers)))
    return Interval(estimate=estimate, low=low, high=high, level=draw(levels))


maybe = st.one_of(intervals(), unknowns)


@given(intervals(), st.sampled_from(INCREASING))
def test_an_increasing_function_keeps_the_order_and_the_level(interval: Interval, function: object) -> None:
    assert callable(function)
    mapped = interval.map(function)
    assert mapped.low <= mapped.estimate <= mapped.high
    assert (mapped.estimate, mapped.level) == (function(interval.estimate), interval.level)


@given(intervals())
def test_a_decreasing_function_swaps_the_ends_and_twice_is_once_back(interval: Interval) -> None:
    mapped = interval.map_decreasing(lambda x: -x)
    assert (mapped.low, mapped.high) == (-interval.high, -interval.low)
    assert mapped.map_decreasing(lambda x: -x) == interval


@given(intervals())
def test_maps_compose_and_scaling_is_a_map(interval: Interval) -> None:
    assert interval.map(math.atan).map(math.exp) == interval.map(lambda x: math.exp(math.atan(x)))
    assert interval.scaled(1.0) == interval
    assert interval.scaled(4.0) == interval.scaled(2.0).scaled(2.0) == interval.map(lambda x: 4.0 * x)


@given(numbers, st.floats(0.0, 10.0), levels)
def test_what_is_built_around_an_estimate_is_as_wide_as_asked(estimate: float, half: float, level: float) -> None:
    built = Interval.around(estimate, half, level=level)
    assert built.half_width == pytest.approx(half)
    assert (built.low + built.high) / 2 == pytest.approx(built.estimate, abs=1e-9)
    assert Interval.around(estimate, 0.0, level=1.0) == Interval.exactly(estimate)


@given(intervals(), intervals())
def test_a_sum_has_no_order_and_is_at_least_as_wide_as_either_part(a: Interval, b: Interval) -> None:
    total = a.plus(b)
    assert total.estimate == b.plus(a).estimate == a.estimate + b.estimate
    assert total.half_width == pytest.approx(math.hypot(a.half_width, b.half_width), abs=1e-9)
    assert a.plus(Interval.exactly(0.0)).half_width == pytest.approx(a.half_width, abs=1e-9)


@given(unknowns)
def test_a_reason_is_never_lost(unknown: Unknown) -> None:
    quantity: Quantity = unknown
    assert quantity.map(math.exp).scaled(3.0) is unknown
    assert combine(lambda a: a, unknown) is unknown


@given(maybe, maybe)
def test_the_first_that_is_not_known_wins(a: Quantity, b: Quantity) -> None:
    combined = combine(lambda x, y: x.plus(y), a, b)
    if isinstance(a, Interval) and isinstance(b, Interval):
        assert combined == a.plus(b)
        assert first_unknown(a, b) is None
    else:
        assert combined is first_unknown(a, b) is (a if isinstance(a, Unknown) else b)


def test_what_is_combined_may_turn_out_unknown() -> None:
    why = Unknown(reason="a half")
    assert combine(lambda x: why if x % 2 else x // 2, 3) is why
    assert combine(lambda x: why if x % 2 else x // 2, 4) == 2


@given(st.lists(maybe, max_size=6))
def test_all_or_only_the_known_ones(values: list[Quantity]) -> None:
    known = [v for v in values if isinstance(v, Interval)]
    assert only_known(values) == known
    everything = all_known(values)
    if len(known) == len(values):
        assert everything == values
    else:
        assert everything is first_unknown(*values)


@given(maybe, intervals())
def test_a_default_stands_in_for_what_is_not_known_alone(value: Quantity, default: Interval) -> None:
    assert or_else(value, default) is (default if isinstance(value, Unknown) else value)
