"""Slices to intervals: known answers, invariances, and coverage in small simulations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autotune.analysis.rates import (
    FloatArray,
    PairedSpeed,
    VarianceComponents,
    as_ratio,
    hodges_lehmann,
    interval_over_restarts,
    log_ratios,
    noise_floor,
    paired_speed,
    slices_per_restart,
    tokens_per_second,
    variance_components,
    warm_up_length,
)
from autotune.recommendation import Interval, Unknown
from autotune.trial.types import Slice

values = st.floats(-3.0, 3.0, allow_subnormal=False)
series = arrays(np.float64, st.integers(1, 40), elements=values)
TOKENS = 1000


def slices(seconds: Sequence[float], first_round: int = 0) -> list[Slice]:
    return [
        Slice(round=first_round + i, tokens=TOKENS, seconds=s, step_seconds=(s,), losses=(1.0,), peak_memory_bytes=1)
        for i, s in enumerate(seconds)
    ]


def known(answer: Any) -> Any:
    assert not isinstance(answer, Unknown), answer
    return answer


def test_log_ratios_pair_slices_by_round_and_leave_bad_ones_out() -> None:
    candidate = slices([9.0, 1.0, 0.0, 2.0, math.nan, 4.0], first_round=-1)
    reference = slices([2.0, 4.0, 2.0, -1.0, 1.0, 7.0, 7.0])
    assert log_ratios(candidate[::-1], reference) == pytest.approx([math.log(2.0), 0.0, math.log(0.25)])
    assert log_ratios(candidate, []).shape == (0,)
    assert log_ratios(candidate[:1], slices([2.0], first_round=-1)).shape == (0,)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), max_size=30), st.floats(0.1, 10))
def test_log_ratios_ignore_what_slows_both_alike_and_change_sign_with_the_sides(
    pairs: list[tuple[float, float]], slower: float
) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    ratios = log_ratios(slices(ours), slices(theirs))
    assert log_ratios(slices([a * slower for a in ours]), slices([b * slower for b in theirs])) == pytest.approx(ratios)
    assert log_ratios(slices(theirs), slices(ours)) == pytest.approx(-ratios)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_warm_up_is_dropped_to_the_slice(length: int) -> None:
    noise = np.random.default_rng(0).normal(0.3, 0.01, 20)
    noise[:length] -= np.linspace(2.0, 0.5, length)
    assert warm_up_length(noise) == length


def test_one_good_slice_among_slow_ones_ends_no_warm_up_and_small_excess_is_seen() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.01, 20)
    fits_and_starts = noise - np.array([1.0, 1.0, 0.0, 1.0, 1.0] + [0.0] * 15)
    assert warm_up_length(fits_and_starts) == 5
    assert warm_up_length(noise - np.array([0.05] * 2 + [0.0] * 18)) == 2


def test_steady_series_lose_little_and_a_hiccup_is_no_warm_up() -> None:
    rng = np.random.default_rng(1)
    lengths = [warm_up_length(rng.normal(0.0, 0.1, 20)) for _ in range(200)]
    assert lengths.count(None) <= 2
    assert np.mean([length or 0 for length in lengths]) < 0.5
    noise = rng.normal(0.0, 0.01, 20)
    noise[5] = -3.0
    assert warm_up_length(noise) == 0


def test_a_series_that_never_settles_or_is_too_short_has_no_warm_up_length() -> None:
    noise = np.random.default_rng(2).normal(0.0, 0.01, 40)
    assert warm_up_length(noise + np.linspace(0.0, 1.0, 40)) is None
    assert warm_up_length(np.where(np.arange(40) < 30, noise, noise + 1.0)) is None
    assert warm_up_length(noise[:3]) is None
    assert warm_up_length(np.append(noise, np.nan)) is None


@given(series, values)
def test_warm_up_is_at_most_half_and_does_not_move_with_the_level(x: FloatArray, shift: float) -> None:
    x = np.round(x, 2)  # no value so near an edge of the band that rounding decides
    length = warm_up_length(x)
    assert length is None or 0 <= length <= len(x) // 2
    assert warm_up_length(np.zeros(len(x)) + shift) == (0 if len(x) >= 4 else None)


def test_hodges_lehmann_known_answers() -> None:
    assert hodges_lehmann(np.array([1.0, 2.0, 6.0])) == 2.75  # of 1, 1.5, 2, 3.5, 4, 6
    assert hodges_lehmann(np.array([5.0])) == 5.0
    assert math.isnan(hodges_lehmann(np.array([])))
    assert math.isnan(hodges_lehmann(np.array([1.0, np.nan])))


@given(series, values, st.floats(0.1, 10.0), st.randoms(use_true_random=False))
def test_hodges_lehmann_is_equivariant_symmetric_and_within_the_data(
    x: FloatArray, shift: float, scale: float, random: Any
) -> None:
    centre = hodges_lehmann(x)
    shuffled = x.copy()
    random.shuffle(shuffled)
    assert hodges_lehmann(shuffled) == pytest.approx(centre)
    assert hodges_lehmann(scale * x + shift) == pytest.approx(scale * centre + shift, abs=1e-9)
    assert hodges_lehmann(-x) == pytest.approx(-centre, abs=1e-12)
    assert x.min() - 1e-12 <= centre <= x.max() + 1e-12


def test_hodges_lehmann_of_a_long_series_is_reduced_without_harm() -> None:
    x = np.random.default_rng(3).normal(0.0, 1.0, 2001)
    assert hodges_lehmann(x) == pytest.approx(hodges_lehmann(x[1:]), abs=2e-3)


def test_paired_speed_survives_bursts_that_hit_both_sides() -> None:
    rng = np.random.default_rng(4)
    bursts = np.where(rng.random(40) < 0.3, 6.0, 1.0)
    ours, theirs = bursts * rng.lognormal(0.0, 0.02, 40), 1.5 * bursts * rng.lognormal(0.0, 0.02, 40)
    speed = known(paired_speed(slices(list(ours)), slices(list(theirs))))
    assert speed.centre == pytest.approx(math.log(1.5), abs=0.02)
    assert speed.steady
    assert speed.rounds + speed.dropped == 40


@given(st.floats(0.2, 5.0), st.integers(4, 30))
def test_paired_speed_of_an_exact_ratio_is_that_ratio_without_error(ratio: float, rounds: int) -> None:
    speed = known(paired_speed(slices([1.0] * rounds), slices([ratio] * rounds)))
    assert speed.centre == pytest.approx(math.log(ratio))
    assert speed.stderr == pytest.approx(0.0, abs=1e-12)
    assert (speed.rounds, speed.dropped, speed.steady) == (rounds, 0, True)


def test_paired_speed_drops_warm_up_and_says_when_there_is_no_steady_state() -> None:
    noise = np.random.default_rng(5).lognormal(0.0, 0.01, 30)
    compiling = noise.copy()
    compiling[:4] += 5.0
    speed = known(paired_speed(slices(list(compiling)), slices([1.0] * 30)))
    assert (speed.dropped, speed.rounds, speed.steady) == (4, 26, True)
    drifting = known(paired_speed(slices(list(noise * np.linspace(1.0, 4.0, 30))), slices([1.0] * 30)))
    assert (drifting.dropped, drifting.rounds, drifting.steady) == (15, 15, False)


@pytest.mark.parametrize("rounds", [0, 1, 3, 4, 30])
def test_too_few_rounds_give_no_speed(rounds: int) -> None:
    answer = paired_speed(slices([1.0] * rounds), slices([1.0] * 30))
    assert (rounds < 4) == isinstance(answer, Unknown)


@pytest.mark.parametrize("autocorrelation", [0.0, 0.4])
def test_standard_error_is_the_spread_of_centres(autocorrelation: float) -> None:
    rng = np.random.default_rng(6)
    speeds: list[PairedSpeed] = []
    for _ in range(150):
        shocks = rng.normal(0.0, 0.05 * math.sqrt(1 - autocorrelation**2), 60)
        for i in range(1, 60):
            shocks[i] += autocorrelation * shocks[i - 1]
        speeds.append(known(paired_speed(slices(list(np.exp(shocks))), slices([1.0] * 60))))
    claimed = math.sqrt(np.mean([s.stderr**2 for s in speeds]))
    assert 0.85 < claimed / np.std([s.centre for s in speeds]) < 1.35


def test_rate_is_the_steady_one() -> None:
    noise = np.random.default_rng(7).lognormal(0.0, 0.01, 20)
    noise[:3] = (30.0, 4.0, 2.0)
    noise[12] = 9.0
    assert known(tokens_per_second(slices(list(noise * 0.5)))) == pytest.approx(2000.0, rel=0.01)
    assert tokens_per_second(slices([0.5])) == pytest.approx(2000.0)
    assert isinstance(tokens_per_second([]), Unknown)
    assert isinstance(tokens_per_second(slices([0.0, math.nan])), Unknown)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=20))
def test_rate_lies_between_the_slices_rates(seconds: list[float]) -> None:
    rate = known(tokens_per_second(slices(seconds)))
    assert TOKENS / max(seconds) <= rate * (1 + 1e-9)
    assert rate <= TOKENS / min(seconds) * (1 + 1e-9)


def test_interval_over_restarts_is_students() -> None:
    interval = known(interval_over_restarts([0.1, 0.2, 0.3], 0.9))
    half = 2.919986 * 0.1 / math.sqrt(3)  # t(0.95, 2 degrees of freedom)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-6)
    assert interval.level == 0.9


def test_interval_needs_two_finite_restarts() -> None:
    assert isinstance(interval_over_restarts([], 0.9), Unknown)
    assert isinstance(interval_over_restarts([0.1], 0.9), Unknown)
    assert isinstance(interval_over_restarts([0.1, math.nan, 0.2], 0.9), Unknown)


@given(st.lists(values, min_size=2, max_size=8), values)
def test_interval_holds_its_estimate_moves_with_the_data_and_widens_with_level(xs: list[float], shift: float) -> None:
    narrow, wide = known(interval_over_restarts(xs, 0.5)), known(interval_over_restarts(xs, 0.95))
    assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high
    moved = known(interval_over_restarts([x + shift for x in xs], 0.95))
    assert (moved.low, moved.high) == pytest.approx((wide.low + shift, wide.high + shift), abs=1e-9)


@given(values, st.integers(2, 6))
def test_equal_restarts_have_an_interval_of_no_width(x: float, count: int) -> None:
    interval = known(interval_over_restarts([x] * count, 0.9))
    assert interval.low == interval.high == interval.estimate == pytest.approx(x)


def test_interval_over_restarts_covers_where_one_over_slices_would_not() -> None:
    rng = np.random.default_rng(8)
    covered = pooled = 0
    for _ in range(400):
        restarts = 0.1 + rng.normal(0.0, 0.02, (3, 1)) + rng.normal(0.0, 0.05, (3, 50))
        interval = known(interval_over_restarts([hodges_lehmann(r) for r in restarts], 0.9))
        covered += interval.low <= 0.1 <= interval.high
        everything = known(interval_over_restarts(restarts.ravel().tolist(), 0.9))
        pooled += everything.low <= 0.1 <= everything.high
    assert 0.87 <= covered / 400 <= 0.94
    assert pooled / 400 < 0.6


@given(st.lists(values, min_size=3, max_size=3))
def test_as_ratio_is_exp_and_keeps_order_and_level(numbers: list[float]) -> None:
    low, estimate, high = sorted(numbers)
    ratio = as_ratio(Interval(estimate=estimate, low=low, high=high, level=0.8))
    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((math.exp(low), math.exp(estimate), math.exp(high)))
    assert ratio.low <= ratio.estimate <= ratio.high
    assert ratio.level == 0.8


def test_as_ratio_of_a_hopelessly_wide_interval_does_not_overflow() -> None:
    assert as_ratio(Interval(estimate=0.0, low=-1e4, high=1e4, level=0.9)).high == math.inf


def test_variance_components_known_answer() -> None:
    # Two restarts of two rounds: MS_within = 2, MS_between = 2 * 8 = 16, between = (16 - 2) / 2.
    components = known(variance_components([np.array([-1.0, 1.0]), np.array([3.0, 5.0])]))
    assert (components.within, components.between) == pytest.approx((2.0, 7.0))


def test_variance_components_find_both_levels_in_unequal_groups() -> None:
    rng = np.random.default_rng(9)
    groups = [rng.normal(0.0, 2.0) + rng.normal(0.0, 1.0, rng.integers(2, 8)) for _ in range(1500)]
    components = known(variance_components(groups))
    assert components.within == pytest.approx(1.0, rel=0.08)
    assert components.between == pytest.approx(4.0, rel=0.12)


@given(st.lists(arrays(np.float64, st.integers(2, 6), elements=values), min_size=2, max_size=5), values)
def test_variance_components_are_no_less_than_nothing_and_ignore_the_level(groups: list[FloatArray], x: float) -> None:
    components = known(variance_components(groups))
    assert min(components.within, components.between) >= 0
    moved = known(variance_components([group + x for group in groups]))
    assert (moved.within, moved.between) == pytest.approx((components.within, components.between), abs=1e-9)


def test_variance_components_need_two_levels_of_data() -> None:
    pair = np.array([1.0, 2.0])
    assert isinstance(variance_components([pair]), Unknown)
    assert isinstance(variance_components([pair, np.array([])]), Unknown)
    assert isinstance(variance_components([pair[:1], pair[:1]]), Unknown)
    assert isinstance(variance_components([pair, np.array([1.0, math.inf])]), Unknown)


def test_slices_per_restart_known_answers_and_bounds() -> None:
    components = VarianceComponents(within=0.16, between=0.01)
    assert slices_per_restart(components, 9.0, 1.0) == 12  # sqrt(9 * 16)
    assert slices_per_restart(components, 0.0, 1.0) == 3
    assert slices_per_restart(VarianceComponents(within=0.0, between=0.01), 9.0, 1.0) == 3
    assert slices_per_restart(VarianceComponents(within=0.16, between=0.0), 9.0, 1.0) == 1000
    assert slices_per_restart(VarianceComponents(within=math.nan, between=0.01), 9.0, 1.0) == 3


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.floats(0.1, 100), st.floats(0.1, 10), st.floats(1, 9))
def test_dearer_restarts_call_for_no_fewer_slices(
    within: float, between: float, restart: float, slice_seconds: float, dearer: float
) -> None:
    components = VarianceComponents(within=within, between=between)
    count = slices_per_restart(components, restart, slice_seconds)
    assert 3 <= count <= slices_per_restart(components, restart * dearer, slice_seconds) <= 1000


def test_noise_floor_known_answer() -> None:
    half = 2.919986 * 0.1 * math.sqrt(2 / 3)
    assert noise_floor([0.1, 0.2, 0.3], restarts=3, level=0.9) == pytest.approx(half, rel=1e-6)


def test_noise_floor_needs_noise_copies_and_restarts() -> None:
    for centres in ([], [0.1], [0.1, 0.1, 0.1], [0.1, math.nan]):
        assert isinstance(noise_floor(centres, restarts=3, level=0.9), Unknown)
    assert isinstance(noise_floor([0.1, 0.2], restarts=0, level=0.9), Unknown)


@given(st.lists(values, min_size=2, max_size=6, unique=True), values, st.integers(1, 9))
def test_noise_floor_ignores_the_references_own_luck_and_falls_with_restarts(
    centres: list[float], luck: float, restarts: int
) -> None:
    rounded = sorted({round(c, 3) for c in centres})
    if len(rounded) < 2:
        rounded = [0.0, 0.001]
    floor = known(noise_floor(rounded, restarts=restarts, level=0.9))
    assert known(noise_floor([c + luck for c in rounded], restarts=restarts, level=0.9)) == pytest.approx(floor)
    assert known(noise_floor(rounded, restarts=4 * restarts, level=0.9)) == pytest.approx(floor / 2)


def test_noise_floor_is_seldom_passed_by_nothing() -> None:
    rng = np.random.default_rng(10)
    passed = 0
    for _ in range(1000):
        reference, *copies = rng.normal(0.0, 0.02, 5)
        floor = known(noise_floor([copy - reference for copy in copies], restarts=3, level=0.9))
        later = np.mean(rng.normal(0.0, 0.02, 3) - rng.normal(0.0, 0.02, 3))
        passed += abs(later) > floor
    assert 0.07 <= passed / 1000 <= 0.13
