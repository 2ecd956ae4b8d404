"""The arithmetic of decisions: expected costs, what a look is worth, and which decision follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.decision import (
    MOST_RISK,
    Expected,
    Look,
    Prospect,
    RaceInRun,
    Trunks,
    Unguarded,
    Watch,
    decided,
    guarded,
)
from autotune.analysis.rates import FloatArray
from autotune.space.configuration import Configuration

CONFIG = Configuration({"schedule": "wsd"})
means, sds = st.floats(-1.0, 1.0), st.floats(0.01, 1.0)
prospects = st.builds(Prospect, mean=means, sd=sds)
runs_of_plan = st.integers(1, 200)
Z: FloatArray = np.linspace(-9.0, 9.0, 3_001)


def normal(mean: float, sd: float) -> tuple[FloatArray, FloatArray]:
    """Points of a normal distribution, and their weights."""
    weights = np.exp(-(Z**2) / 2)
    return mean + sd * Z, weights / weights.sum()


def cost_after_look(prospect: Prospect, look_sd: float) -> float:
    """E[min(1, E[exp(-ln S) | what the look shows])], over everything it may show."""
    both = math.hypot(prospect.sd, look_sd)
    shown, weights = normal(prospect.mean, both)
    share = prospect.sd**2 / both**2
    expected, left = prospect.mean + share * (shown - prospect.mean), share * look_sd**2
    return float(weights @ np.minimum(1.0, np.exp(left / 2 - expected)))


# -- a prospect ------------------------------------------------------------------------------------------


@given(prospects)
def test_the_expected_cost_and_the_risk_are_integrals_over_the_belief(prospect: Prospect) -> None:
    values, weights = normal(prospect.mean, prospect.sd)
    assert prospect.expected_cost == pytest.approx(float(weights @ np.exp(-values)), rel=1e-6)
    assert prospect.expected_cost == pytest.approx(math.exp(-prospect.mean + prospect.sd**2 / 2))
    assert prospect.probability_worse == pytest.approx(float(weights @ (values < 0)), abs=2e-3)


@given(prospects, st.floats(0.01, 1.0))
def test_the_cost_after_a_look_is_that_of_the_better_one_by_what_it_shows(prospect: Prospect, look_sd: float) -> None:
    cost = prospect.cost_if_looked_at(look_sd)
    assert cost == pytest.approx(cost_after_look(prospect, look_sd), abs=1e-5)
    assert cost <= min(1.0, prospect.expected_cost) + 1e-12


@given(prospects, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_sharper_look_never_costs_more(prospect: Prospect, one: float, other: float) -> None:
    sharp, blurred = sorted((one, other))
    assert prospect.cost_if_looked_at(sharp) <= prospect.cost_if_looked_at(blurred) + 1e-12


@given(means, st.floats(0.0, 1.0))
def test_what_is_certain_needs_no_look(mean: float, look_sd: float) -> None:
    certain = Prospect(mean=mean, sd=0.0)
    assert certain.cost_if_looked_at(look_sd) == min(1.0, math.exp(-mean))
    assert certain.probability_worse == float(mean < 0)


# -- how the plan guards it ----------------------------------------------------------------------------------


def test_a_race_of_two_trunks_saves_what_the_method_says() -> None:
    prospect = Prospect(mean=0.2, sd=0.5)  # docs/method.md, 9.5
    guard, cost = guarded(prospect, runs=1, has_baseline_log=False)
    assert prospect.expected_cost == pytest.approx(0.93, abs=0.005)
    assert isinstance(guard, Trunks)
    assert 0.84 <= cost <= 0.89


@given(prospects, runs_of_plan, st.booleans())
def test_several_runs_look_at_the_first_and_need_a_baseline_run_only_without_a_log(
    prospect: Prospect, runs: int, has_log: bool
) -> None:
    guard, cost = guarded(prospect, runs=runs, has_baseline_log=has_log)
    if runs == 1:
        assert isinstance(guard, Trunks | Unguarded)
        assert cost <= prospect.expected_cost
        assert (cost < prospect.expected_cost) == isinstance(guard, Trunks)
    elif runs == 2 and not has_log:
        assert (guard, cost) == (Unguarded(), prospect.expected_cost), "no run is left after both"
    else:
        assert guard == Look(needs_run=not has_log)
        assert min(1.0, prospect.expected_cost, cost_after_look(prospect, 0.05)) - 1e-4 <= cost


@given(prospects)
def test_every_run_of_the_plan_is_counted_once(prospect: Prospect) -> None:
    (_, with_log), (_, without) = (guarded(prospect, runs=3, has_baseline_log=has) for has in (True, False))
    first, later = prospect.expected_cost, cost_after_look(prospect, 0.05)
    assert with_log == pytest.approx((first + 2 * later) / 3, abs=1e-4)
    assert without == pytest.approx((first + 1.0 + later) / 3, abs=1e-4), "the second is the baseline's"


@given(prospects, st.integers(2, 200))
def test_a_log_of_the_baseline_never_costs_more_than_its_run(prospect: Prospect, runs: int) -> None:
    (_, with_log), (_, without) = (guarded(prospect, runs=runs, has_baseline_log=has) for has in (True, False))
    assert with_log <= without + 1e-12


@given(prospects, st.integers(2, 100))
def test_more_runs_leave_more_to_gain_from_the_look(prospect: Prospect, runs: int) -> None:
    (_, few), (_, many) = (guarded(prospect, runs=n, has_baseline_log=True) for n in (runs, runs + 1))
    assert many <= few + 1e-12


def test_with_very_many_runs_the_first_hardly_counts() -> None:
    prospect = Prospect(mean=0.0, sd=0.5)
    _, cost = guarded(prospect, runs=100_000, has_baseline_log=False)
    assert cost == pytest.approx(prospect.cost_if_looked_at(0.05), abs=1e-4)


@given(prospects, runs_of_plan, st.booleans())
def test_what_changes_the_speed_alone_is_watched_in_any_run(prospect: Prospect, runs: int, has_log: bool) -> None:
    guard, cost = guarded(prospect, runs=runs, has_baseline_log=has_log, is_speed_alone=True)
    assert (guard, cost) == (Watch(), prospect.cost_if_looked_at(0.05))
    found = decided(CONFIG, prospect, runs=runs, has_baseline_log=has_log, is_speed_alone=True)
    assert (found is None) == (cost >= 0.99)
    if found:
        assert (found.guard, found.cost) == (Watch(), cost)
        assert isinstance(found, Expected) == (
            prospect.probability_worse <= MOST_RISK and prospect.expected_cost < 0.99
        )


# -- what follows ---------------------------------------------------------------------------------------------


@given(prospects, runs_of_plan, st.booleans())
def test_a_change_is_expected_to_pay_or_raced_or_left_alone(prospect: Prospect, runs: int, has_log: bool) -> None:
    found = decided(CONFIG, prospect, runs=runs, has_baseline_log=has_log)
    pays_unguarded = prospect.expected_cost < 0.99 and prospect.probability_worse <= MOST_RISK
    assert isinstance(found, Expected) == pays_unguarded
    if found is None:
        _, cost = guarded(prospect, runs=runs, has_baseline_log=has_log)
        assert cost >= 0.99 or isinstance(guarded(prospect, runs=runs, has_baseline_log=has_log)[0], Unguarded)
    else:
        assert (found.config, found.prospect) == (CONFIG, prospect)
        assert found.cost < 0.99
        assert found.cost <= prospect.expected_cost or isinstance(found, RaceInRun)
    if isinstance(found, Expected):
        assert isinstance(found.guard, Unguarded) == (found.cost == prospect.expected_cost)


@given(st.floats(-1.0, 0.009), runs_of_plan)
def test_where_there_is_surely_nothing_to_gain_nothing_is_recommended(mean: float, runs: int) -> None:
    assert decided(CONFIG, Prospect(mean=mean, sd=1e-3), runs=runs, has_baseline_log=True) is None


def test_a_likely_loss_with_a_chance_is_raced_only_where_it_can_be_dropped() -> None:
    chance = Prospect(mean=-0.05, sd=0.4)
    assert isinstance(decided(CONFIG, chance, runs=10, has_baseline_log=True), RaceInRun)
    assert decided(CONFIG, chance, runs=2, has_baseline_log=False) is None
    raced = decided(CONFIG, chance, runs=1, has_baseline_log=False)
    assert isinstance(raced, RaceInRun)
    assert isinstance(raced.guard, Trunks)


def test_the_same_gain_is_expected_to_pay_if_it_is_likely_and_raced_if_it_is_a_gamble() -> None:
    likely, gamble = Prospect(mean=0.2, sd=0.2), Prospect(mean=0.2, sd=0.6)
    assert isinstance(decided(CONFIG, likely, runs=10, has_baseline_log=True), Expected)
    assert isinstance(decided(CONFIG, gamble, runs=10, has_baseline_log=True), RaceInRun)


def test_a_sure_gain_is_adopted_in_every_run_at_once() -> None:
    sure = Prospect(mean=0.3, sd=0.01)
    for runs in (1, 2, 10):
        found = decided(CONFIG, sure, runs=runs, has_baseline_log=False)
        assert isinstance(found, Expected)
        assert isinstance(found.guard, Unguarded)
        assert found.cost == sure.expected_cost
