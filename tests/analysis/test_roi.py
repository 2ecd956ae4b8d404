"""Savings, break-even and stopping: identities and monotonicity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.roi import (
    break_even_seconds,
    expected_gain_of_one_more,
    plan_device_seconds,
    worth_another_trial,
)
from autotune.quantity import Interval, Unknown

positive = st.floats(0.01, 1e6)
logs = st.lists(st.floats(-2.0, 2.0), max_size=12)


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


def test_expected_gain_known_answers() -> None:
    assert expected_gain_of_one_more([], floor=0.01) == math.inf
    assert expected_gain_of_one_more([0.3], floor=0.01) == pytest.approx(0.15)
    assert expected_gain_of_one_more([0.1, 0.5, 0.2], floor=0.01) == pytest.approx(0.1)
    assert expected_gain_of_one_more([0.5, 0.5, 0.2], floor=0.04) == pytest.approx(0.01)
    assert expected_gain_of_one_more([0.5, math.nan, 0.2], floor=0.0) == pytest.approx(0.15)


def test_expected_gain_is_without_bias_for_the_latest_draw_and_never_too_little_for_the_next() -> None:
    draws = np.random.default_rng(0).exponential(1.0, (20_000, 5))
    estimates = [expected_gain_of_one_more(row, floor=0.0) for row in draws[:, :4].tolist()]
    best = np.maximum.accumulate(draws, axis=1)
    assert np.mean(estimates) == pytest.approx(float(np.mean(best[:, 3] - best[:, 2])), abs=0.02)  # 1 / 4
    assert np.mean(estimates) > np.mean(best[:, 4] - best[:, 3]) + 0.02  # 1 / 5


@given(st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=12), st.floats(-1.0, 1.0))
def test_expected_gain_knows_neither_order_nor_level(xs: list[float], shift: float) -> None:
    gain = expected_gain_of_one_more(xs, floor=0.01)
    assert expected_gain_of_one_more(xs[::-1], floor=0.01) == gain
    assert expected_gain_of_one_more([x + shift for x in xs], floor=0.01) == pytest.approx(gain, abs=1e-9)
    assert gain >= 0.01 / (len(xs) + 1)


def test_worth_another_trial_known_answers() -> None:
    assert worth_another_trial(log_speedups=[], floor=0.01, baseline_cost=100.0, trial_cost=1.0) == (True, 100.0)
    go_on, saving = worth_another_trial(
        log_speedups=[math.log(2.0), math.log(1.5)], floor=0.0, baseline_cost=100.0, trial_cost=1.0
    )
    gap = math.log(2.0 / 1.5) / 3  # three draws, the baseline among them
    assert go_on
    assert saving == pytest.approx(50.0 * (1 - math.exp(-gap)))


def test_a_bad_trial_is_no_incumbent() -> None:
    _, saving = worth_another_trial(log_speedups=[-1.0, -2.0], floor=0.0, baseline_cost=100.0, trial_cost=1.0)
    assert saving == pytest.approx(100.0 * (1 - math.exp(-1 / 3)))


@given(logs, positive, positive, st.floats(0.001, 0.1))
def test_search_goes_on_exactly_while_the_saving_beats_the_cost(
    xs: list[float], baseline: float, trial: float, floor: float
) -> None:
    go_on, saving = worth_another_trial(log_speedups=xs, floor=floor, baseline_cost=baseline, trial_cost=trial)
    assert go_on == (saving > trial)
    assert 0 < saving <= baseline
    _, doubled = worth_another_trial(log_speedups=xs, floor=floor, baseline_cost=2 * baseline, trial_cost=trial)
    assert doubled == pytest.approx(2 * saving)
