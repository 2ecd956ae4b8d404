"""What follows from a case: the claim that stands, what is expected beyond it, what to do, and what it is worth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_case import CALIBRATION, HORIZON, LEARNING, SPACE, case_of, claimed, confirmed, record, starved, turned

from autotune.analysis.case import Case
from autotune.analysis.conclude import conclude
from autotune.analysis.evidence import CLAIM, REDUCED, known_speed
from autotune.analysis.ladder import Ladder
from autotune.analysis.rates import VarianceComponents
from autotune.analysis.recommendation import TechniqueVerdict, Verdict
from autotune.analysis.techniques import technique_effects
from autotune.quantity import Interval, Unknown
from autotune.trial.types import Failed, FailedKind, Stage

WHOLE = {"attention": "sdpa", "dtype": "bf16_autocast"}
LESS = {"dtype": "bf16_autocast"}


def with_reduced(log_speeds: tuple[float, ...]) -> Case:
    efficiencies = (0.0,) * len(log_speeds)
    reduced = confirmed(LESS, log_speeds, efficiencies, label=REDUCED, stage=Stage.ATTRIBUTE)
    return case_of([*confirmed(WHOLE), *reduced])


def test_without_confirmation_nothing_is_claimed_and_the_baseline_stays() -> None:
    case = case_of()
    assert case.claims == ()
    assert case.claim == Unknown(reason="no configuration was confirmed against the baseline")
    assert case.candidate == SPACE.baseline
    assert case.forecast is case.claim
    assert not isinstance(case.economics, Unknown), "the plan with the baseline has its price all the same"
    assert conclude(case).verdict is Verdict.NOT_INFORMATIVE


def test_what_was_confirmed_is_claimed_with_its_speed() -> None:
    case = case_of(confirmed(WHOLE))
    assert case.candidate == turned(WHOLE)
    total = claimed(case).total
    assert isinstance(total, Interval)
    assert total.estimate == pytest.approx(0.30)
    assert conclude(case).verdict is Verdict.CLAIMED


def test_everything_is_worked_out_once() -> None:
    case = case_of(confirmed(WHOLE))
    assert case.claim is case.claim is case.whole
    assert case.forecast is case.forecast
    ours, theirs = case.records[1], case.records[0]
    assert known_speed(ours.slices, theirs.slices) is known_speed(ours.slices, theirs.slices)


def test_the_reduced_configuration_takes_over_where_it_is_not_worse() -> None:
    assert claimed(with_reduced((0.31, 0.30, 0.32))).label == REDUCED
    assert claimed(with_reduced((0.20, 0.21, 0.19))).label == "winner"
    assert claimed(with_reduced((0.31,))).label == "winner", "one block confirms nothing"
    assert with_reduced((0.31, 0.30, 0.32)).candidate == turned(LESS)


def test_no_more_trials_are_run_where_they_were_seen_to_be_too_short() -> None:
    case = case_of(starved())
    for rungs, left in (((HORIZON, 4 * HORIZON), (4 * HORIZON,)), ((HORIZON,), (HORIZON,))):
        ladder = case.ladder(SPACE.baseline, (turned(LEARNING),), rungs)
        assert isinstance(ladder, Ladder)
        assert ladder.rungs == left
        assert {length for option in ladder.options(lambda _, __: 0.0) for length in option.lengths} <= set(left)


# -- what it is worth ---------------------------------------------------------------------------------


def test_the_forecast_is_the_plan_at_the_claimed_speed_less_the_search() -> None:
    case = case_of(confirmed(WHOLE))
    plan_seconds = 10 * 30_000_000 / 1e4
    assert case.plan_seconds == plan_seconds
    saving = conclude(case).net_saving.hours
    assert isinstance(saving, Interval)
    assert saving.estimate == pytest.approx((plan_seconds * -math.expm1(-0.30) - 1_800.0) / 3_600.0)


def test_over_the_hand_tuned_default_only_blocks_with_both_count() -> None:
    expert = turned(LESS)
    beside = [record(expert, label="expert default", block=b, log_speed=0.1) for b in range(3)]
    ratio = conclude(case_of(confirmed(WHOLE) + beside, expert=expert)).over_expert.throughput
    assert isinstance(ratio, Interval)
    assert ratio.estimate == pytest.approx(math.exp(0.2))
    alone = conclude(case_of(confirmed(WHOLE), expert=expert)).over_expert
    assert alone.speedup == Unknown(reason="it was not run side by side with the hand-tuned default")
    same = conclude(case_of(confirmed(WHOLE), expert=turned(WHOLE))).over_expert
    assert same.speedup == Interval.exactly(1.0, level=0.9)
    baseline = conclude(case_of(confirmed(WHOLE)))
    assert baseline.over_expert == baseline.over_baseline, "the hand-tuned default is the baseline"


def test_a_technique_is_worth_what_leaving_it_out_costs() -> None:
    whole = turned(WHOLE)
    left_out = [
        member
        for block in range(3)
        for member in (
            record(whole, label=CLAIM, stage=Stage.ATTRIBUTE, block=block, log_speed=0.3),
            record(LESS, label="without attention", stage=Stage.ATTRIBUTE, block=block, log_speed=0.2),
            record({"attention": "sdpa"}, label="without dtype", stage=Stage.ATTRIBUTE, block=block, log_speed=0.29),
        )
    ]
    rows = {t.name: t for t in technique_effects(case_of(confirmed(WHOLE) + left_out))}
    for name, speed in (("attention", 0.1), ("dtype", 0.01)):
        effect = rows[name].speed_effect
        assert isinstance(effect, Interval)
        assert effect.estimate == pytest.approx(math.exp(speed))
        assert rows[name].verdict in (TechniqueVerdict.ADOPT, TechniqueVerdict.NEUTRAL)
    assert rows["attention"].verdict is TechniqueVerdict.ADOPT
    assert rows["schedule"].verdict is TechniqueVerdict.NOT_MEASURED


def test_the_floor_is_that_of_the_claim_or_of_the_coarsest_comparison_allowed() -> None:
    calibration = replace(CALIBRATION, noise=VarianceComponents(within=0.01, between=0.02**2, copies=4))
    case = case_of(confirmed(WHOLE, (0.30, 0.31, 0.29, 0.30), (0.0,) * 4), calibration=calibration)
    assert case.floor_of(case.claim) == calibration.floor(4, claimed(case).rounds)
    assert case.floor_of(Unknown(reason="nothing is claimed")) == calibration.floor(3, 12)
    assert case_of().floor_of(case.claim) is CALIBRATION.noise, "no copies, no floor"


def test_an_explored_trial_is_seen_against_the_baselines_loss_on_its_seed() -> None:
    calibrating = record({}, label="baseline", stage=Stage.CALIBRATE)
    tried = record(LEARNING, label="proposal 1", stage=Stage.EXPLORE_LEARNING, log_speed=0.02, log_efficiency=0.1)
    broken = replace(tried, outcome=Failed(kind=FailedKind.CRASH, message="it crashed"))
    case = case_of([calibrating, tried])
    seen = case.seen(tried)
    assert not isinstance(seen, Unknown)
    assert seen.total == pytest.approx(0.12)
    assert case.explored[Stage.EXPLORE_LEARNING] == {turned(LEARNING): seen}
    assert case.seen(broken) == Unknown(reason="it crashed")
    unread = case_of([tried]).seen(tried)
    assert not isinstance(unread, Unknown)
    assert isinstance(unread.efficiency, Unknown)
