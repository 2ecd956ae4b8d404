"""Gates: the area under the schedule, the least length of a trial, and losses that fall ever faster."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotune.analysis.informative import is_steepening, least_tokens, step_starvation
from autotune.quantity import Unknown

areas = st.integers(-690, 690).map(lambda i: i / 1000)
points = st.lists(st.tuples(areas, st.integers(-1000, 1000).map(lambda i: i / 1000)), min_size=3, max_size=12)
LENGTHS = (25_000, 50_000, 100_000, 200_000, 400_000)


def known(answer: Any) -> Any:
    assert not isinstance(answer, Unknown), answer
    return answer


# -- the area under the schedule -----------------------------------------------------------------------


@given(st.lists(areas, min_size=3, max_size=8), st.floats(-2.0, 2.0))
def test_the_slope_on_the_area_is_recovered(log_areas: list[float], slope: float) -> None:
    assume(np.std([0.0, *log_areas]) >= 0.1)
    assume(abs(slope) > 1e-3)
    found = known(step_starvation([(g, slope * g) for g in log_areas]))
    assert found.slope == pytest.approx(slope)
    assert found.r_squared == pytest.approx(1.0)
    assert found.trials == len(log_areas)
    assert found.is_starved == (slope > 0.8) or slope == pytest.approx(0.8)


@given(st.lists(areas, min_size=3, max_size=10), st.floats(0.0, 1.5), st.floats(0.0, 0.5), st.integers(0, 2**32 - 1))
def test_trials_are_starved_exactly_if_slope_and_share_explained_are_large(
    log_areas: list[float], slope: float, noise: float, seed: int
) -> None:
    assume(np.std([0.0, *log_areas]) >= 0.1)
    rng = np.random.default_rng(seed)
    values = [slope * g + noise * rng.normal() for g in log_areas]
    assume(np.std([0.0, *values]) > 1e-6)
    found = known(step_starvation(list(zip(log_areas, values, strict=True))))
    line = np.polyfit([0.0, *log_areas], [0.0, *values], 1)
    share = np.corrcoef([0.0, *log_areas], [0.0, *values])[0, 1] ** 2
    assert found.slope == pytest.approx(line[0], abs=1e-9)
    assert found.r_squared == pytest.approx(share, abs=1e-9)
    assume(min(abs(line[0] - 0.8), abs(share - 0.8)) > 1e-6)
    assert found.is_starved == (line[0] > 0.8 and share > 0.8)


def test_the_recorded_trials_of_29_steps_are_starved() -> None:
    recorded = [(0.67, 0.63), (0.56, 0.53), (-0.60, -0.54), (-0.69, -0.64), (0.0, 0.02)]  # docs/method.md, 9.1
    assert known(step_starvation(recorded)).is_starved


@given(points, st.sampled_from([0.7, -0.7, 1.3, -5.0, math.nan, math.inf, -math.inf]), st.floats(-9.0, 9.0))
def test_far_areas_are_ignored(near: list[tuple[float, float]], far: float, value: float) -> None:
    assert step_starvation([*near, (far, value)]) == step_starvation(near)


@given(points, areas, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_trials_without_a_finite_efficiency_are_ignored(
    near: list[tuple[float, float]], area: float, value: float
) -> None:
    assert step_starvation([(area, value), *near]) == step_starvation(near)


@pytest.mark.parametrize(
    "few",
    [
        [],
        [(0.5, 0.5), (-0.5, -0.5)],
        [(0.5, 0.5), (-0.5, -0.5), (0.9, 0.9), (0.3, math.nan)],
        [(0.0, 0.1), (0.0, 0.2), (0.0, 0.3), (0.01, 0.4)],
    ],
)
def test_too_few_trials_or_too_similar_areas_say_nothing(few: list[tuple[float, float]]) -> None:
    assert isinstance(step_starvation(few), Unknown)


def test_trials_that_all_learn_as_the_baseline_does_are_not_starved() -> None:
    found = known(step_starvation([(0.5, 0.0), (-0.5, 0.0), (0.3, 0.0)]))
    assert not found.is_starved


# -- the least length ------------------------------------------------------------------------------------


@given(st.integers(64, 2**22), st.integers(2, 64))
def test_the_least_length_is_where_the_critical_batch_is_a_step(step_tokens: int, factor: int) -> None:
    least = least_tokens(step_tokens)
    assert 0.75 * least**0.57 == pytest.approx(step_tokens)
    assert least_tokens(factor * step_tokens) / least == pytest.approx(factor**1.75, rel=0.02)


# -- losses that fall ever faster -------------------------------------------------------------------------


@given(st.floats(0.0, 5.0), st.floats(0.1, 1000.0), st.floats(0.01, 1.0), st.floats(1.2, 8.0), st.integers(3, 6))
def test_no_power_law_steepens(
    irreducible: float, amplitude: float, exponent: float, factor: float, count: int
) -> None:
    lengths = [int(10_000 * factor**n) for n in range(count)]
    assert not is_steepening([(d, irreducible + amplitude * d**-exponent) for d in lengths], noise=0.0)


@given(st.floats(0.05, 1.0), st.floats(1.3, 3.0))
def test_losses_that_fall_ever_faster_steepen(first: float, ratio: float) -> None:
    falls = np.cumsum([0.0, *(first * ratio**n for n in range(len(LENGTHS) - 1))])
    assert is_steepening([(d, 12.0 - fall) for d, fall in zip(LENGTHS, falls.tolist(), strict=True)])


@given(st.lists(st.floats(-1.4, 1.4), min_size=5, max_size=5), st.floats(1e-4, 0.1))
def test_noise_alone_does_not_steepen(offsets: list[float], noise: float) -> None:
    assert not is_steepening([(d, 5.0 + noise * x) for d, x in zip(LENGTHS, offsets, strict=True)], noise=noise)


@given(st.lists(st.floats(-0.02, 0.02), min_size=5, max_size=5))
def test_the_noise_of_losses_changes_neither_answer_where_it_is_clear(offsets: list[float]) -> None:
    falling = [10.0 - 0.8 * n for n in (0, 1, 1.5, 1.75, 1.875)]
    ever_faster = [10.0 - 0.3 * n for n in (0, 1, 3, 7, 15)]
    assert not is_steepening([(d, x + e) for d, x, e in zip(LENGTHS, falling, offsets, strict=True)])
    assert is_steepening([(d, x + e) for d, x, e in zip(LENGTHS, ever_faster, offsets, strict=True)])


def test_runs_of_a_length_are_averaged_in_any_order_and_two_lengths_say_nothing() -> None:
    losses = [(100_000, 4.0), (25_000, 5.1), (50_000, 4.7), (25_000, 4.9), (100_000, 4.2)]
    assert is_steepening(losses), "5.0, 4.7, 4.1"
    assert is_steepening(losses[::-1])
    assert not is_steepening(losses[:2])
    assert not is_steepening([])
