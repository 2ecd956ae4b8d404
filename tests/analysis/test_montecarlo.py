"""The forecast: exact without uncertainty, and its intervals those of the exact distribution with it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autotune.analysis.montecarlo import Economics, Forecast, forecast
from autotune.analysis.power import Power
from autotune.quantity import Interval, Unknown


def log_interval(value: float, half: float = 0.0) -> Interval:
    """An interval in log units about ln of a value."""
    return Interval(estimate=math.log(value), low=math.log(value) - half, high=math.log(value) + half, level=0.9)


def drawing(baseline: float, candidate: float, *, half: float = 0.0, ratio_half: float = 0.0) -> Power:
    """Mean watts, the half-widths of their intervals in log units."""
    return Power(
        baseline=log_interval(baseline, half),
        candidate=log_interval(candidate, half),
        ratio=log_interval(candidate / baseline, ratio_half),
        degrees_of_freedom=2.0,
        provenance="measured (imagined)",
    )


PLAN = Economics(
    baseline_device_seconds=36_000.0,
    baseline_log_sd=0.0,
    device_price_per_second=2.0 / 3600,
    kwh_price=0.0,
    pue=1.0,
    power=drawing(400.0, 400.0),
    one_off_device_seconds=360.0,
    search_device_seconds=1800.0,
    adoption_cost=0.5,
)


def of(economics: Economics, mean: float, stderr: float, freedom: float = 2.0, *, seed: int = 0) -> Forecast:
    return forecast(
        economics=economics,
        log_speedup_mean=mean,
        log_speedup_stderr=stderr,
        degrees_of_freedom=freedom,
        level=0.9,
        draws=4000,
        seed=seed,
    )


def width(interval: Interval | Unknown) -> float:
    assert isinstance(interval, Interval)
    return interval.high - interval.low


@given(st.floats(-1.0, 2.0), st.floats(0.0, 1e4))
@settings(max_examples=30)
def test_without_uncertainty_every_figure_is_the_exact_one(mean: float, one_off: float) -> None:
    answer = of(replace(PLAN, one_off_device_seconds=one_off), mean, 0.0)
    saved = 36_000.0 - 36_000.0 / math.exp(mean) - one_off
    net = saved * 2.0 / 3600 - 1.5
    for quantity, value in (
        (answer.plan_device_seconds, 36_000.0 / math.exp(mean) + one_off),
        (answer.saved_device_seconds, saved),
        (answer.kwh, (saved - 1800.0) / 3600 * 0.4),
        (answer.net, net),
        (answer.roi, net / 1.5),
    ):
        assert isinstance(quantity, Interval)
        assert quantity.low == quantity.estimate == quantity.high == pytest.approx(value, abs=1e-6)
        assert quantity.level == 0.9
    assert answer.probability_positive == float(answer.net.estimate > 0)


def test_interval_is_the_exact_one_of_a_monotone_function() -> None:
    saved = of(PLAN, 0.2, 0.02, 2.0).saved_device_seconds
    reach = stats.t.ppf(0.95, 2.0) * 0.02
    assert saved.low == pytest.approx(36_000.0 * -math.expm1(reach - 0.2) - 360.0, rel=0.03)
    assert saved.high == pytest.approx(36_000.0 * -math.expm1(-0.2 - reach) - 360.0, rel=0.03)


def test_what_the_plan_costs_is_as_uncertain_as_the_baselines_cost_and_the_speed_up_together() -> None:
    costs = of(replace(PLAN, baseline_log_sd=0.03), 0.2, 0.04, math.inf).plan_device_seconds
    reach = stats.norm.ppf(0.95) * math.hypot(0.03, 0.04)
    running = 36_000.0 * math.exp(-0.2)
    assert costs.estimate == pytest.approx(running + 360.0)
    assert costs.low == pytest.approx(running * math.exp(-reach) + 360.0, rel=0.01)
    assert costs.high == pytest.approx(running * math.exp(reach) + 360.0, rel=0.01)


def test_what_the_plan_costs_and_what_it_saves_are_the_baselines_cost() -> None:
    answer = of(PLAN, 0.2, 0.02)
    costs, saved = answer.plan_device_seconds, answer.saved_device_seconds
    assert costs.estimate + saved.estimate == pytest.approx(36_000.0)
    assert (costs.low + saved.high, costs.high + saved.low) == pytest.approx((36_000.0, 36_000.0))


def test_probability_positive_is_that_of_passing_the_break_even_speed() -> None:
    needed = -math.log1p(-(1.5 * 1800.0 + 360.0) / 36_000.0)
    answer = of(PLAN, needed + 0.03, 0.03, 4.0)
    assert answer.probability_positive == pytest.approx(stats.t.cdf(1.0, 4.0), abs=0.02)


def test_every_uncertainty_widens_and_the_seed_fixes_the_answer() -> None:
    certain, fewer, rough = of(PLAN, 0.3, 0.02, math.inf), of(PLAN, 0.3, 0.02, 1.0), of(PLAN, 0.3, 0.04, math.inf)
    noisy = of(replace(PLAN, baseline_log_sd=0.3), 0.3, 0.02, math.inf)
    for wider in (fewer, rough, noisy):
        assert width(wider.net) > 1.5 * width(certain.net)
        assert width(wider.roi) > 1.5 * width(certain.roi)
    assert of(PLAN, 0.3, 0.02) == of(PLAN, 0.3, 0.02)
    assert of(PLAN, 0.3, 0.02) != of(PLAN, 0.3, 0.02, seed=1)


def test_what_is_not_known_or_not_spent_is_unknown() -> None:
    unmetered = Unknown(reason="not metered")
    free = of(replace(PLAN, search_device_seconds=0.0, adoption_cost=0.0, power=unmetered), 0.1, 0.01)
    assert isinstance(free.roi, Unknown)
    assert free.kwh == unmetered


def test_energy_is_each_configurations_own_draw_and_the_search_draws_as_the_baseline() -> None:
    power = drawing(300.0, 240.0)
    answer = of(replace(PLAN, power=power, pue=1.5, kwh_price=0.25), math.log(1.25), 0.0)
    plan_seconds = 36_000.0 / 1.25 + 360.0
    kwh = 1.5 * (300.0 * 36_000.0 - 240.0 * plan_seconds - 300.0 * 1800.0) / 3.6e6
    assert isinstance(answer.kwh, Interval)
    assert answer.kwh.low == answer.kwh.estimate == answer.kwh.high == pytest.approx(kwh)
    net = 2.0 / 3600 * (36_000.0 - plan_seconds - 1800.0) + 0.25 * kwh - 0.5
    assert answer.net.estimate == pytest.approx(net)
    search = 1800.0 * (2.0 / 3600 + 0.25 * 1.5 * 300.0 / 3.6e6)
    assert isinstance(answer.roi, Interval)
    assert answer.roi.estimate == pytest.approx(net / (search + 0.5))


def test_a_faster_configuration_may_cost_energy() -> None:
    answer = of(replace(PLAN, power=drawing(300.0, 600.0)), math.log(1.25), 0.0)
    assert answer.saved_device_seconds.low > 0
    assert isinstance(answer.kwh, Interval)
    assert answer.kwh.high < 0


def test_an_uncertain_draw_makes_energy_uncertain_and_money_only_where_energy_is_paid_for() -> None:
    sure = replace(PLAN, power=drawing(300.0, 240.0))
    rough = replace(PLAN, power=drawing(300.0, 240.0, half=0.1, ratio_half=0.05))
    assert width(of(rough, 0.2, 0.02).kwh) > 1.5 * width(of(sure, 0.2, 0.02).kwh)
    assert of(rough, 0.2, 0.02).net == of(sure, 0.2, 0.02).net
    paid = [of(replace(e, kwh_price=5.0), 0.2, 0.02).net for e in (rough, sure)]
    assert width(paid[0]) > 1.2 * width(paid[1])
    alone = of(replace(PLAN, one_off_device_seconds=0.0, search_device_seconds=0.0, power=rough.power), 0.0, 0.0)
    reach = 0.05  # of the ratio; the draw of both alike changes no saving of nothing
    assert isinstance(alone.kwh, Interval)
    assert alone.kwh.low == pytest.approx(3.0 * (1 - 0.8 * math.exp(reach)), rel=0.1)


@pytest.mark.parametrize(("mean", "stderr", "freedom"), [(math.nan, 0.1, 2.0), (0.1, math.nan, 2.0), (0.1, 0.1, 0.0)])
def test_bad_input_is_seen_in_every_figure(mean: float, stderr: float, freedom: float) -> None:
    answer = of(PLAN, mean, stderr, freedom)
    assert math.isnan(answer.probability_positive)
    assert math.isnan(answer.net.low)
    assert math.isnan(answer.saved_device_seconds.high)


def test_the_far_tails_of_two_restarts_do_not_overflow() -> None:
    answer = of(PLAN, 0.1, 5.0, 1.0)
    assert -math.inf < answer.net.low < answer.net.high <= 36_000.0 * 2.0 / 3600
