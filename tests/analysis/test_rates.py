"""Slices to intervals: known answers, invariances, and coverage in small simulations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from autotune.analysis.rates import (
    FloatArray,
    KnownSpread,
    PairedSpeed,
    VarianceComponents,
    as_ratio,
    hodges_lehmann,
    implausible,
    interval_over_restarts,
    log_ratios,
    long_run_rate,
    noise_floor,
    pair_variance,
    paired_speed,
    slices_per_restart,
    variance_components,
    warm_up_length,
)
from autotune.quantity import Interval, Unknown
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


def copy_of(centre: float, stderr: float, rounds: int) -> PairedSpeed:
    return PairedSpeed(centre=centre, stderr=stderr, rounds=rounds, dropped=0, steady=True)


def components_of(within: float, between: float, copies: int = 3) -> VarianceComponents:
    return VarianceComponents(within=within, between=between, copies=copies)


def copies_against_one_reference(
    rng: np.random.Generator, *, process: float, round_sd: float, rounds: int, count: int
) -> list[PairedSpeed]:
    """Copies of one configuration beside one warm reference: the luck of each process, and the noise of each round."""
    reference = rng.normal(0.0, process)
    centres = rng.normal(0.0, process, count) - reference + rng.normal(0.0, round_sd / math.sqrt(rounds), count)
    return [copy_of(float(centre), round_sd / math.sqrt(rounds), rounds) for centre in centres]


sets_of_copies = st.lists(
    st.builds(copy_of, values, st.floats(0.0, 1.0, allow_subnormal=False), st.integers(3, 60)), min_size=2, max_size=6
)


def test_variance_components_known_answer() -> None:
    # Of the centres 0.1, 0.2, 0.3 the variance is 0.01; 0.05^2 of it is what 4 rounds leave.
    components = known(variance_components([copy_of(c, 0.05, 4) for c in (0.1, 0.2, 0.3)]))
    assert (components.within, components.between) == pytest.approx((0.01, 0.0075))
    assert components.copies == 3


def test_copies_that_differ_less_than_their_rounds_show_no_luck_of_processes() -> None:
    components = known(variance_components([copy_of(c, 0.05, 4) for c in (0.1, 0.11)]))
    assert components.between == 0.0


@given(sets_of_copies, values)
def test_variance_components_are_no_less_than_nothing_and_ignore_the_references_own_luck(
    speeds: list[PairedSpeed], luck: float
) -> None:
    components = known(variance_components(speeds))
    assert min(components.within, components.between) >= 0
    moved = known(variance_components([replace(s, centre=s.centre + luck) for s in speeds]))
    assert (moved.within, moved.between) == pytest.approx((components.within, components.between), abs=1e-9)


def test_both_levels_of_noise_are_recovered_from_copies() -> None:
    copies = copies_against_one_reference(np.random.default_rng(9), process=0.02, round_sd=0.1, rounds=25, count=2_000)
    components = known(variance_components(copies))
    assert components.within == pytest.approx(0.1**2)
    assert components.between == pytest.approx(0.02**2, rel=0.2)  # its standard error is 6 %


@pytest.mark.parametrize("rounds", [12, 40])
def test_both_levels_of_noise_are_recovered_from_slices(rounds: int) -> None:
    rng = np.random.default_rng(10)

    def process(luck: float) -> list[Slice]:
        return slices(list(np.exp(luck + rng.normal(0.0, 0.05 / math.sqrt(2), rounds))))

    speeds = [known(paired_speed(process(rng.normal(0.0, 0.02)), process(0.03))) for _ in range(300)]
    components = known(variance_components(speeds))
    # A standard error from few rounds is on the safe side, see above; what is left for the processes is not.
    assert 1.0 < components.within / 0.05**2 < 1.6
    assert components.between == pytest.approx(0.02**2, rel=0.3)


def test_variance_components_need_two_finite_copies() -> None:
    one = copy_of(0.1, 0.05, 4)
    assert isinstance(variance_components([]), Unknown)
    assert isinstance(variance_components([one]), Unknown)
    assert isinstance(variance_components([one, copy_of(math.nan, 0.05, 4)]), Unknown)
    assert isinstance(variance_components([one, copy_of(0.2, math.inf, 4)]), Unknown)


def test_slices_per_restart_known_answers_and_bounds() -> None:
    # sqrt(9 * 16): the spread of either process counts, for both are opened anew.
    assert slices_per_restart(components_of(0.16, 0.005), 9.0, 1.0) == 12
    assert slices_per_restart(components_of(0.16, 0.005), 0.0, 1.0) == 3
    assert slices_per_restart(components_of(0.0, 0.005), 9.0, 1.0) == 3
    assert slices_per_restart(components_of(0.16, 0.0), 9.0, 1.0) == 1000
    assert slices_per_restart(components_of(math.nan, 0.005), 9.0, 1.0) == 3


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.floats(0.1, 100), st.floats(0.1, 10), st.floats(1, 9))
def test_dearer_restarts_call_for_no_fewer_slices(
    within: float, between: float, restart: float, slice_seconds: float, dearer: float
) -> None:
    components = components_of(within, between)
    count = slices_per_restart(components, restart, slice_seconds)
    assert 3 <= count <= slices_per_restart(components, restart * dearer, slice_seconds) <= 1000


@given(st.floats(1e-4, 1), st.floats(1e-4, 1), st.floats(0.1, 100), st.floats(0.1, 10), st.integers(3, 1000))
def test_no_other_number_of_slices_resolves_more_for_the_same_time(
    within: float, between: float, restart: float, slice_seconds: float, other: int
) -> None:
    components = components_of(within, between)

    def variance_in_a_second(rounds: int) -> float:
        return (restart + rounds * slice_seconds) * pair_variance(components, rounds)

    best = slices_per_restart(components, restart, slice_seconds)
    assert variance_in_a_second(best) <= variance_in_a_second(other) * 1.05 + 1e-12  # it is rounded up to a whole one


def test_pair_variance_is_that_of_two_processes_and_of_the_rounds() -> None:
    assert pair_variance(components_of(0.16, 0.01), 8) == pytest.approx(0.04)
    assert pair_variance(components_of(0.16, 0.01), 0) == pair_variance(components_of(0.16, 0.01), 1)


def test_noise_floor_known_answer() -> None:
    half = 2.919986 * math.sqrt((2 * 0.01 + 0.16 / 8) / 3)  # t(0.95, 2 degrees of freedom)
    assert noise_floor(components_of(0.16, 0.01), restarts=3, rounds=8, level=0.9) == pytest.approx(half, rel=1e-6)


def test_noise_floor_needs_noise_and_restarts() -> None:
    for within, between in ((0.0, 0.0), (math.nan, 0.01)):
        assert isinstance(noise_floor(components_of(within, between), restarts=3, rounds=8, level=0.9), Unknown)
    assert isinstance(noise_floor(components_of(0.16, 0.01), restarts=0, rounds=8, level=0.9), Unknown)


@given(
    st.floats(1e-6, 1), st.floats(1e-6, 1), st.integers(2, 9), st.integers(1, 9), st.integers(1, 60), st.integers(2, 9)
)
def test_noise_floor_falls_with_restarts_as_their_root_and_with_rounds_to_what_processes_leave(
    within: float, between: float, copies: int, restarts: int, rounds: int, times: int
) -> None:
    components = components_of(within, between, copies)
    floor = known(noise_floor(components, restarts=restarts, rounds=rounds, level=0.9))
    assert known(noise_floor(components, restarts=4 * restarts, rounds=rounds, level=0.9)) == pytest.approx(floor / 2)
    without_rounds = components_of(0.0, between, copies)
    least = known(noise_floor(without_rounds, restarts=restarts, rounds=rounds, level=0.9))
    longer = known(noise_floor(components, restarts=restarts, rounds=times * rounds, level=0.9))
    assert least < longer < floor


@pytest.mark.parametrize("rounds", [12, 40])
def test_noise_floor_is_seldom_passed_by_nothing(rounds: int) -> None:
    """Two processes of one configuration, 6 copies to judge by, and later 3 restarts, as in a study."""
    rng = np.random.default_rng(11)
    passed = 0
    for _ in range(1000):
        copies = copies_against_one_reference(rng, process=0.02, round_sd=0.126, rounds=rounds, count=6)
        floor = known(noise_floor(known(variance_components(copies)), restarts=3, rounds=rounds, level=0.9))
        luck = rng.normal(0.0, 0.02, 3) - rng.normal(0.0, 0.02, 3)
        passed += abs(np.mean(luck + rng.normal(0.0, 0.126 / math.sqrt(rounds), 3))) > floor
    # Where rounds hide the processes, the few degrees of freedom are those of a small part: fewer pass.
    assert 0.03 <= passed / 1000 <= 0.13


def test_a_long_run_pays_for_the_bursts_that_a_median_leaves_out() -> None:
    rate = known(long_run_rate(slices([0.5] * 9 + [5.5]), level=0.9))
    assert rate.estimate == pytest.approx(TOKENS)  # 10 slices in 10 seconds, though nine of ten ran at twice that rate
    assert rate.low < TOKENS < rate.high


def test_an_even_rate_is_known_exactly_and_one_slice_tells_no_more_than_itself() -> None:
    for seconds in ([0.5] * 20, [0.5]):
        rate = known(long_run_rate(slices(seconds), level=0.8))
        assert rate.low == pytest.approx(rate.estimate) == pytest.approx(rate.high) == pytest.approx(2 * TOKENS)
        assert rate.level == 0.8


def test_slices_without_a_positive_duration_or_tokens_tell_no_rate() -> None:
    empty = [replace(s, tokens=0) for s in slices([9.0])]
    bad = [*slices([0.0, -1.0, math.nan, math.inf]), *empty]
    assert isinstance(long_run_rate([], level=0.9), Unknown)
    assert isinstance(long_run_rate(bad, level=0.9), Unknown)
    sound = slices([0.5, 1.5, 1.0, 1.2])
    assert long_run_rate([bad[0], sound[0], bad[2], *sound[1:], *empty], level=0.9) == long_run_rate(sound, level=0.9)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=30), st.floats(0.1, 10.0))
def test_a_long_run_rate_lies_between_the_slices_rates_and_has_a_unit(seconds: list[float], slower: float) -> None:
    rate = known(long_run_rate(slices(seconds), level=0.9))
    assert rate.low <= rate.estimate <= rate.high
    assert TOKENS / max(seconds) <= rate.estimate * (1 + 1e-9)
    assert rate.estimate <= TOKENS / min(seconds) * (1 + 1e-9)
    slowed = known(long_run_rate(slices([s * slower for s in seconds]), level=0.9))
    assert slowed.estimate * slower == pytest.approx(rate.estimate)


def test_a_long_run_rates_interval_widens_with_level() -> None:
    seconds = np.random.default_rng(12).lognormal(0.0, 0.3, 100).tolist()
    narrow, wide = (known(long_run_rate(slices(seconds), level=level)) for level in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high


def slow_moments(rng: np.random.Generator, count: int) -> FloatArray:
    """Factors that one step shares with the next (lag-1 autocorrelation 0.8), and bursts of five steps in a hundred."""
    kept, spread, begins, ends = 0.8, 0.2, 0.01, 0.2
    shocks = rng.normal(0.0, spread * math.sqrt(1 - kept**2), count)
    shocks[0] = rng.normal(0.0, spread)
    bursts = np.empty(count)
    is_burst = rng.random() < begins / (begins + ends)
    for i in range(count):
        shocks[i] += kept * shocks[i - 1] if i else 0.0
        bursts[i] = 5.0 if is_burst else 1.0
        is_burst = rng.random() >= ends if is_burst else rng.random() < begins
    factors: FloatArray = np.exp(shocks) * bursts
    return factors


def test_the_interval_of_a_long_run_rate_holds_what_a_long_run_averages() -> None:
    rng = np.random.default_rng(13)
    truth = TOKENS / (math.exp(0.2**2 / 2) * (1 + 4 * 0.01 / (0.01 + 0.2)))
    covered = 0
    for _ in range(300):
        rate = known(long_run_rate(slices(slow_moments(rng, 600).tolist()), level=0.9))
        covered += rate.low <= truth <= rate.high
    assert 0.82 <= covered / 300 <= 0.96


def test_a_known_spread_keeps_restarts_that_agree_by_luck_from_looking_certain() -> None:
    spread = KnownSpread(variance=0.04, degrees_of_freedom=2)
    lucky = known(interval_over_restarts([0.1, 0.1, 0.1], 0.9, spread))
    pooled = 2 * 0.04 / 4  # no variance seen on 2 degrees of freedom, 0.04 known on 2
    half = float(stats.t.ppf(0.95, 4)) * math.sqrt(pooled / 3)
    assert (lucky.low, lucky.high) == pytest.approx((0.1 - half, 0.1 + half))
    alone = known(interval_over_restarts([0.1], 0.9, spread))
    assert alone.high - 0.1 == pytest.approx(float(stats.t.ppf(0.95, 2)) * 0.2)
    assert isinstance(interval_over_restarts([], 0.9, spread), Unknown)


def test_what_no_device_can_do_is_named() -> None:
    sound = slices([0.5, 0.5])
    rate = sound[0].tokens / 0.5
    assert implausible(sound, flops_per_token=1.0, peak_flops=rate) == ""
    assert implausible(sound, flops_per_token=1.0, peak_flops=0.0) == "", "an unknown peak excludes nothing"
    assert "MFU" in implausible(sound, flops_per_token=2.0, peak_flops=rate)
    assert "take time" in implausible(slices([0.5, 0.0]), flops_per_token=1.0, peak_flops=rate)
    assert "take time" in implausible(slices([-0.5]), flops_per_token=1.0, peak_flops=rate)
