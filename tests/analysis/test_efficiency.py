"""Curves, equivalent tokens and horizons: recovery, identities, bounds, honest variances."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotune.analysis.efficiency import (
    HorizonPoint,
    LogEfficiency,
    bootstrap_curves,
    curve_variance,
    extrapolate,
    fit_curve,
    interpolated_log_efficiency,
    log_efficiency,
    loss_after,
    tokens_to_reach,
)
from autotune.analysis.recommendation import Curve
from autotune.quantity import Unknown

HORIZONS = (25_000, 50_000, 100_000, 200_000)
TRUTH = Curve(points=tuple((d, 0.0) for d in HORIZONS), irreducible=3.0, amplitude=40.0, exponent=0.25)
differences = st.floats(-0.3, 0.3)
tokens_in_range = st.integers(25_000, 200_000)
horizon_points = st.lists(
    st.builds(
        HorizonPoint,
        tokens=st.integers(1_000, 10**9),
        log_efficiency=st.floats(-1.0, 1.0),
        variance=st.floats(1e-4, 1.0),
    ),
    min_size=1,
    max_size=4,
)


def known(answer: Any) -> Any:
    assert not isinstance(answer, Unknown), answer
    return answer


def runs(sd: float, seeds: int, rng: np.random.Generator, truth: Curve = TRUTH) -> list[tuple[int, float]]:
    return [(d, loss_after(truth, d) + rng.normal(0.0, sd)) for d in HORIZONS for _ in range(seeds)]


@pytest.mark.parametrize(("irreducible", "exponent"), [(3.0, 0.25), (0.0, 0.1), (1.5, 0.6), (4.0, 1.5)])
def test_a_curve_without_noise_is_recovered(irreducible: float, exponent: float) -> None:
    truth = replace(TRUTH, irreducible=irreducible, exponent=exponent, amplitude=2.0 * 25_000**exponent)
    curve = known(fit_curve(runs(0.0, 1, np.random.default_rng(0), truth)))
    assert curve.exponent == pytest.approx(exponent, rel=0.02)
    assert curve.irreducible == pytest.approx(irreducible, abs=0.06)
    for tokens in (12_500, 70_000, 400_000):
        assert loss_after(curve, tokens) == pytest.approx(loss_after(truth, tokens), abs=1e-3)
    assert curve.points == tuple((d, pytest.approx(loss_after(truth, d))) for d in HORIZONS)


def test_one_run_gone_wrong_does_not_bend_the_curve() -> None:
    points = runs(0.01, 3, np.random.default_rng(1))
    points[4] = (points[4][0], points[4][1] + 2.0)
    curve = known(fit_curve(points))
    for tokens in HORIZONS:
        assert loss_after(curve, tokens) == pytest.approx(loss_after(TRUTH, tokens), abs=0.03)


@example([(1000, 2.0), (1000, 2.0), (1068, 1.0), (1068, 2.0), (6751, 1.0)])
@given(st.lists(st.tuples(st.integers(1_000, 10**6), st.floats(1.0, 10.0)), max_size=10))
def test_whatever_is_fitted_falls_and_stays_above_nothing(points: list[tuple[int, float]]) -> None:
    curve = fit_curve(points)
    if isinstance(curve, Curve):
        assert curve.irreducible >= 0
        assert curve.amplitude > 0
        assert curve.exponent > 0
        turned = known(fit_curve(points[::-1]))
        for tokens, _ in points:
            assert loss_after(turned, tokens) == pytest.approx(loss_after(curve, tokens), rel=1e-6)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1000, 5.0), (2000, 4.5)],
        [(1000, 5.0), (1000, 5.1), (2000, 4.5), (2000, 4.4)],
        [(1000, 5.0), (2000, 4.5), (4000, math.nan)],
        [(1000, 5.0), (2000, 4.5), (4000, -1.0)],
        [(0, 5.0), (2000, 4.5), (4000, 4.0)],
        [(1000, 4.0), (2000, 4.5), (4000, 5.0)],
        [(1000, 4.0), (2000, 4.0), (4000, 4.0)],
        [(1000, 9.0), (2000, 4.0), (4000, 4.0), (8000, 4.0)],
    ],
)
def test_bad_points_give_no_curve(points: list[tuple[int, float]]) -> None:
    assert isinstance(fit_curve(points), Unknown)


def test_bootstrapped_curves_spread_like_curves_of_fresh_runs() -> None:
    rng = np.random.default_rng(2)
    fresh, claimed = [], []
    for _ in range(40):
        points = runs(0.05, 2, rng)
        fresh.append(known(log_efficiency(known(fit_curve(points)), 100_000, -0.05)).value)
        claimed.append(curve_variance(bootstrap_curves(points, draws=30, rng=rng), 100_000, -0.05))
    assert 0.5 < math.sqrt(np.mean(claimed)) / np.std(fresh) < 2.0


def test_bootstrap_is_fixed_by_its_generator_and_needs_residuals() -> None:
    points = runs(0.05, 1, np.random.default_rng(3))
    once, again = (bootstrap_curves(points, draws=5, rng=np.random.default_rng(4)) for _ in range(2))
    assert once == again
    assert len(once) == 5
    assert bootstrap_curves(points[:3], draws=5, rng=np.random.default_rng(4)) == ()
    assert bootstrap_curves([], draws=5, rng=np.random.default_rng(4)) == ()


@given(st.integers(1_000, 10**9))
def test_tokens_to_reach_inverts_the_curve(tokens: int) -> None:
    assert known(tokens_to_reach(TRUTH, loss_after(TRUTH, tokens))) == pytest.approx(tokens, rel=1e-6)


@pytest.mark.parametrize("loss", [3.0, 2.0, -math.inf, math.nan, 3.0 + 1e-12, 50.0, math.inf])
def test_losses_off_the_curve_are_unreachable(loss: float) -> None:
    assert isinstance(tokens_to_reach(TRUTH, loss), Unknown)


@given(tokens_in_range)
def test_no_difference_is_no_gain(tokens: int) -> None:
    assert log_efficiency(TRUTH, tokens, 0.0) == LogEfficiency(value=0.0, censored=False)


@given(tokens_in_range, differences)
def test_log_efficiency_is_the_ratio_of_equivalent_tokens_or_its_bound(tokens: int, difference: float) -> None:
    answer = known(log_efficiency(TRUTH, tokens, difference))
    equivalent = known(tokens_to_reach(TRUTH, loss_after(TRUTH, tokens) + difference))
    if 12_500 < equivalent < 400_000:
        assert answer.value == pytest.approx(math.log(equivalent / tokens), abs=1e-6)
        assert not answer.censored
    else:
        assert answer.censored
        assert tokens * math.exp(answer.value) == pytest.approx(12_500 if difference > 0 else 400_000)


@given(tokens_in_range, differences, st.floats(0.0, 0.2))
def test_a_lower_loss_is_never_less_efficient(tokens: int, difference: float, better: float) -> None:
    assert (
        known(log_efficiency(TRUTH, tokens, difference - better)).value
        >= known(log_efficiency(TRUTH, tokens, difference)).value
    )


@given(tokens_in_range, differences, st.floats(0.1, 10.0))
def test_log_efficiency_does_not_depend_on_the_unit_of_loss(tokens: int, difference: float, unit: float) -> None:
    other = replace(TRUTH, irreducible=TRUTH.irreducible * unit, amplitude=TRUTH.amplitude * unit)
    ours, theirs = known(log_efficiency(TRUTH, tokens, difference)), log_efficiency(other, tokens, difference * unit)
    assert known(theirs).value == pytest.approx(ours.value, abs=1e-9)


def test_a_loss_the_baseline_never_reaches_is_censored_and_outlandish_questions_are_unknown() -> None:
    assert log_efficiency(TRUTH, 100_000, -9.0) == LogEfficiency(value=math.log(4.0), censored=True)
    assert isinstance(log_efficiency(TRUTH, 100_000, math.nan), Unknown)
    assert isinstance(log_efficiency(TRUTH, 100_000, math.inf), Unknown)
    assert isinstance(log_efficiency(TRUTH, 500_000, 0.0), Unknown)
    assert isinstance(log_efficiency(TRUTH, 10_000, 0.0), Unknown)


def test_curve_variance_known_answers() -> None:
    curves = [replace(TRUTH, exponent=b) for b in (0.2, 0.25, 0.3)]
    values = [-math.log1p(0.1 / (40.0 * 1e5**-b)) / b for b in (0.2, 0.3)]
    assert curve_variance(curves, 100_000, 0.1) == pytest.approx(((values[0] - values[1]) / 2) ** 2)
    assert curve_variance([TRUTH, TRUTH], 100_000, 0.1) == 0.0
    assert curve_variance(curves, 100_000, 0.0) == 0.0
    assert curve_variance([TRUTH], 100_000, 0.1) == math.inf
    assert curve_variance(curves, 100_000, -50.0) == math.inf


def test_one_wild_curve_does_not_make_the_variance() -> None:
    curves = [replace(TRUTH, exponent=0.25 + i / 1000) for i in range(20)]
    wild = replace(TRUTH, amplitude=1e-6)
    assert curve_variance([*curves, wild], 100_000, -0.1) < 2 * curve_variance(curves, 100_000, -0.1)


def test_one_horizon_is_carried_with_the_prior_of_the_slope() -> None:
    point = HorizonPoint(tokens=1_000, log_efficiency=0.2, variance=0.01)
    interval = known(extrapolate([point], 1e5, level=0.9))
    half = 1.6448536 * math.sqrt(0.01 + (0.2 * math.log(100.0)) ** 2)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-6)


def test_two_exact_horizons_give_their_line_under_a_wide_prior_and_their_mean_under_none() -> None:
    points = [HorizonPoint(tokens=d, log_efficiency=0.05 * math.log(d), variance=0.0) for d in (1_000, 8_000)]
    line = known(extrapolate(points, 1e6, level=0.9, slope_prior_sd=1.0))
    assert line.estimate == pytest.approx(0.05 * math.log(1e6), rel=1e-4)
    assert line.high - line.low < 1e-3
    mean = known(extrapolate(points, 1e6, level=0.9, slope_prior_sd=0.0))
    assert mean.estimate == pytest.approx(0.05 * math.log(math.sqrt(8e6)))


@given(horizon_points, st.floats(1e3, 1e10), st.floats(-1.0, 1.0))
def test_extrapolation_is_equivariant_and_widens_with_level(
    points: list[HorizonPoint], plan_tokens: float, shift: float
) -> None:
    interval = known(extrapolate(points, plan_tokens, level=0.9))
    moved = [replace(p, log_efficiency=p.log_efficiency + shift) for p in points]
    assert known(extrapolate(moved, plan_tokens, level=0.9)).estimate == pytest.approx(
        interval.estimate + shift, abs=1e-6
    )
    wider = known(extrapolate(points, plan_tokens, level=0.99))
    assert wider.low < interval.low < interval.estimate < interval.high < wider.high


@given(horizon_points, st.floats(1e3, 1e10), st.floats(1.5, 100.0))
def test_another_horizon_never_widens_and_a_farther_plan_never_narrows(
    points: list[HorizonPoint], plan_tokens: float, farther: float
) -> None:
    def width(used: list[HorizonPoint], plan: float) -> float:
        interval = known(extrapolate(used, plan, level=0.9))
        return float(interval.high - interval.low)

    assert width(points, plan_tokens) <= width(points[:1], plan_tokens) * (1 + 1e-9)
    beyond = max(plan_tokens, *(float(p.tokens) for p in points), 0.0)
    assert width(points, beyond * farther) > width(points, beyond) * (1 - 1e-9)


def test_extrapolation_covers_when_slopes_are_as_the_prior_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(500):
        slope, noise = rng.normal(0.0, 0.2), rng.normal(0.0, 0.05, 2)
        points = [
            HorizonPoint(tokens=d, log_efficiency=0.3 + slope * math.log(d / 1e4) + e, variance=0.05**2)
            for d, e in zip((5_000, 20_000), noise, strict=True)
        ]
        interval = known(extrapolate(points, 1e7, level=0.9))
        covered += interval.low <= 0.3 + slope * math.log(1e3) <= interval.high
    assert 0.86 <= covered / 500 <= 0.94


@pytest.mark.parametrize(
    ("tokens", "value", "variance", "plan"),
    [
        (1_000, 0.1, math.inf, 1e6),
        (1_000, math.nan, 0.1, 1e6),
        (1_000, 0.1, -0.1, 1e6),
        (0, 0.1, 0.1, 1e6),
        (1_000, 0.1, 0.1, 0.0),
        (1_000, 0.1, 0.1, math.nan),
    ],
)
def test_bad_horizons_give_no_extrapolation(tokens: int, value: float, variance: float, plan: float) -> None:
    point = HorizonPoint(tokens=tokens, log_efficiency=value, variance=variance)
    assert isinstance(extrapolate([point], plan, level=0.9), Unknown)


def test_no_horizon_gives_no_extrapolation() -> None:
    assert isinstance(extrapolate([], 1e6, level=0.9), Unknown)


# -- read off the baseline's own losses ----------------------------------------------------------------

falls = st.lists(st.floats(0.02, 0.5), min_size=1, max_size=5)


def interpolated(points: list[tuple[int, float]], tokens: float) -> float:
    """The loss after `tokens`, linear in ln of the token budget."""
    lengths, losses = zip(*points, strict=True)
    return float(np.interp(math.log(tokens), np.log(lengths), losses))


@given(falls, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_between_the_baselines_lengths_the_answer_is_exact_for_losses_that_are_linear_there(
    steps: list[float], here: float, there: float
) -> None:
    losses = 5.0 - np.cumsum([0.0, *steps])
    points = [(25_000 * 2**n, float(loss)) for n, loss in enumerate(losses)]
    reach = points[-1][0] / points[0][0]
    tokens, equivalent = int(points[0][0] * reach**here), points[0][0] * reach**there
    difference = interpolated(points, equivalent) - interpolated(points, tokens)
    answer = known(interpolated_log_efficiency(points, tokens, difference))
    assert answer.value == pytest.approx(math.log(equivalent / tokens), abs=1e-6)
    assert known(interpolated_log_efficiency(points[::-1], tokens, difference)) == answer


@given(st.floats(0.05, 0.3), st.integers(0, 4), st.floats(-1.0, 1.0))
def test_a_power_law_known_at_every_doubling_is_read_within_two_per_cent_of_tokens(
    exponent: float, place: int, log_efficiency_: float
) -> None:
    truth = replace(TRUTH, exponent=exponent, amplitude=2.0 * 100_000**exponent)
    points = [(12_500 * 2**n, loss_after(truth, 12_500 * 2**n)) for n in range(9)]
    tokens = points[2 + place][0]
    difference = loss_after(truth, tokens * math.exp(log_efficiency_)) - loss_after(truth, tokens)
    assert known(interpolated_log_efficiency(points, tokens, difference)).value == pytest.approx(
        log_efficiency_, abs=0.02
    )


def test_what_the_baseline_never_reached_is_bounded_by_twice_its_lengths() -> None:
    points = [(50_000, 5.0), (100_000, 4.0), (200_000, 3.5)]
    for difference, equivalent, is_bound in ((-0.25, 282_843, False), (-9.0, 400_000, True), (9.0, 25_000, True)):
        answer = known(interpolated_log_efficiency(points, 200_000, difference))
        assert 200_000 * math.exp(answer.value) == pytest.approx(equivalent, rel=1e-5), "the outermost slope goes on"
        assert answer.censored == is_bound


@given(falls, differences, st.floats(0.0, 0.2))
def test_a_lower_loss_is_never_read_as_less_efficient(steps: list[float], difference: float, better: float) -> None:
    points = [(25_000 * 2**n, float(loss)) for n, loss in enumerate(5.0 - np.cumsum([0.0, *steps]))]
    worse, lower = (known(interpolated_log_efficiency(points, 25_000, d)) for d in (difference, difference - better))
    assert lower.value >= worse.value
    assert math.log(0.5) - 1e-9 <= worse.value <= math.log(2 * points[-1][0] / 25_000) + 1e-9


def test_several_runs_of_a_length_count_as_their_mean() -> None:
    many = [(50_000, 5.1), (50_000, 4.9), (100_000, 4.0), (100_000, 4.2), (100_000, 3.8)]
    assert interpolated_log_efficiency(many, 100_000, 0.3) == interpolated_log_efficiency(
        [(50_000, 5.0), (100_000, 4.0)], 100_000, 0.3
    )


@pytest.mark.parametrize(
    ("points", "tokens", "difference"),
    [
        ([], 100_000, 0.0),
        ([(100_000, 4.0), (100_000, 4.1)], 100_000, 0.0),
        ([(50_000, 4.0), (100_000, 4.0)], 100_000, 0.0),
        ([(50_000, 4.0), (100_000, 4.2), (200_000, 3.0)], 100_000, 0.0),
        ([(50_000, 5.0), (100_000, 4.0)], 20_000, 0.0),
        ([(50_000, 5.0), (100_000, 4.0)], 250_000, 0.0),
        ([(50_000, 5.0), (100_000, 4.0)], 100_000, math.nan),
        ([(50_000, 5.0), (100_000, 4.0)], 100_000, math.inf),
    ],
)
def test_a_baseline_that_does_not_fall_or_was_not_near_gives_no_answer(
    points: list[tuple[int, float]], tokens: int, difference: float
) -> None:
    assert isinstance(interpolated_log_efficiency(points, tokens, difference), Unknown)
