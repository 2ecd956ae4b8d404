"""What follows from a case: the claim that stands, what is expected beyond it, what to do, and what it is worth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_case import CALIBRATION, HORIZON, SPACE, TEXT, case_of, confirmed, record, rung, small_space, turned

from autotune.analysis.case import BaselineLog, Case
from autotune.analysis.claims import Claim
from autotune.analysis.conclude import conclude
from autotune.analysis.decision import Claimed, Expected, Keep, Look, NotInformative, Prospect, Watch
from autotune.analysis.evidence import CLAIM, REDUCED, SYSTEM_PART, known_speed
from autotune.analysis.ladder import Ladder
from autotune.analysis.rates import VarianceComponents
from autotune.analysis.recommendation import Expectation, TechniqueVerdict, Verdict
from autotune.analysis.techniques import technique_effects
from autotune.quantity import Interval, Unknown
from autotune.trial.types import Failed, FailedKind, Stage, StageEnd, TrialRecord

WHOLE = {"attention": "sdpa", "dtype": "bf16_autocast"}
LESS = {"dtype": "bf16_autocast"}
LEARNING = {"schedule": "wsd"}
ANCHORS = [rung(tokens=tokens) for tokens in (HORIZON // 4, HORIZON // 2, HORIZON, 2 * HORIZON, 4 * HORIZON)]
NEAR = small_space(TEXT.replace("30_000_000", "1_000_000").replace("runs = 10", "runs = 1_000"))
"""A plan of many runs that are hardly longer than the longest trial."""


def claimed(case: Case) -> Claim:
    assert isinstance(case.claim, Claim), case.claim
    return case.claim


def with_reduced(log_speeds: tuple[float, ...]) -> Case:
    efficiencies = (0.0,) * len(log_speeds)
    reduced = confirmed(LESS, log_speeds, efficiencies, label=REDUCED, stage=Stage.ATTRIBUTE)
    return case_of([*confirmed(WHOLE), *reduced])


def climbed(log_efficiency: float) -> list[TrialRecord]:
    """The ladder with one schedule that gains as much at both lengths."""
    return [*ANCHORS, *(rung(LEARNING, tokens=d, log_efficiency=log_efficiency) for d in (HORIZON, 4 * HORIZON))]


def learned(log_efficiency: float, *, fresh: float | None = None) -> list[TrialRecord]:
    """That ladder, and blocks of the schedule on fresh seeds, where it gains `fresh` (default: the same)."""
    seen = log_efficiency if fresh is None else fresh
    return [*climbed(log_efficiency), *confirmed(LEARNING, (0.0,) * 3, (seen,) * 3)]


def starved() -> list[TrialRecord]:
    """A ladder of trials in which the area under the schedule is all that shows."""
    rates = [rung({"learning_rate": 0.001 * x}, log_efficiency=math.log(x)) for x in (0.7, 0.8, 1.5)]
    return [*ANCHORS, *rates]


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
    assert case.decision == Claimed(config=turned(WHOLE))


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


# -- speed: what trials show, and nothing confirmed ---------------------------------------------------

FAST, PRECISE = {"attention": "sdpa"}, {"dtype": "bf16_autocast"}


def explored(knobs: dict[str, object], log_speed: float, *, compile_seconds: float = 0.0) -> TrialRecord:
    """A trial of system knobs, on speed alone."""
    made = record(knobs, label="proposal", stage=Stage.EXPLORE_SYSTEM, log_speed=log_speed)
    return replace(made, evaluations=(), costs=replace(made.costs, compile_seconds=compile_seconds))


def test_a_system_that_trials_show_to_be_faster_is_expected_and_watched_where_nothing_was_confirmed() -> None:
    case = case_of([explored(FAST, 0.4)])
    assert isinstance(case.decision, Expected)
    assert (case.decision.config, case.decision.guard) == (turned(FAST), Watch())
    assert 0.25 < case.decision.prospect.mean < 0.4, "one trial may be luck"
    result = conclude(case)
    assert (result.verdict, result.claimed, result.recommended) == (Verdict.EXPECTED, SPACE.baseline, turned(FAST))
    assert isinstance(result.over_baseline.speedup, Unknown), "nothing expected is in the claim"
    assert isinstance(result.expectation, Expectation)
    assert result.expectation.knobs == {"attention": "sdpa"}


def test_a_lead_within_the_noise_of_a_trial_is_not_expected() -> None:
    for lead in (-0.4, 0.0, 0.05, 0.1):
        assert not isinstance(case_of([explored(FAST, lead)]).decision, Expected), lead


def test_speed_says_nothing_of_another_precision() -> None:
    assert not isinstance(case_of([explored(PRECISE, 0.4)]).decision, Expected)
    beside = case_of([explored(PRECISE, 0.3), explored(FAST | PRECISE, 0.6), *confirmed(PRECISE)])
    assert isinstance(beside.decision, Expected)
    assert beside.claimed_config == turned(PRECISE)
    assert beside.decision.config == turned(FAST | PRECISE), "the precision that was confirmed, and faster"


def test_what_compiling_takes_in_every_run_is_taken_off() -> None:
    free, dear = (case_of([explored(FAST, 0.4, compile_seconds=s)]).prospect for s in (0.0, 300.0))
    assert isinstance(free, Prospect)
    assert isinstance(dear, Prospect)
    assert free.mean - dear.mean == pytest.approx(300.0 * 10 / (10 * 30_000_000 / 1e4))
    assert not isinstance(case_of([explored(FAST, 0.4, compile_seconds=1e4)]).decision, Expected)


def test_a_faster_system_is_added_to_the_learning_knobs_that_are_expected() -> None:
    case = case_of([explored(FAST, 0.4), *learned(0.1)])
    assert isinstance(case.decision, Expected)
    assert case.decision.config == turned(FAST | LEARNING)
    alone = case_of(learned(0.1)).prospect
    assert isinstance(alone, Prospect)
    assert case.decision.prospect.mean > alone.mean + 0.2
    assert case.decision.guard != Watch(), "its loss is in doubt, too"


def test_a_lead_in_speed_that_may_be_luck_and_does_not_pay_is_not_expected() -> None:
    few_runs = small_space(TEXT.replace("30_000_000", "1_000_000").replace("runs = 10", "runs = 1"))
    slight, clear = (
        case_of(confirmed(FAST, speeds), space=few_runs) for speeds in ((0.025, 0.05, 0.075), (0.04, 0.05, 0.06))
    )
    for case in (slight, clear):
        total = claimed(case).total
        assert isinstance(total, Interval)
        assert total.low > 0.0
        assert not case.is_claimed, "the search cost more"
    assert isinstance(slight.decision, Keep)
    assert isinstance(clear.decision, Expected)


# -- learning: what is expected, and what is shown ----------------------------------------------------


def test_a_learning_gain_is_shown_near_the_tested_length_and_expected_far_from_it() -> None:
    near, far = case_of(learned(0.42), space=NEAR), case_of(learned(0.3))
    assert claimed(near).config == turned(LEARNING)
    assert isinstance(near.decision, Claimed)
    assert isinstance(far.claim, Unknown)
    assert far.candidate == SPACE.baseline
    assert isinstance(far.decision, Expected)
    assert far.decision.config == turned(LEARNING)


def test_a_learning_gain_is_shown_only_if_fresh_seeds_agree() -> None:
    disagreeing = case_of(learned(0.3, fresh=0.0), space=NEAR)
    assert isinstance(disagreeing.claim, Unknown)
    assert isinstance(disagreeing.hopeful, Claim)
    for_speed = [replace(r, evaluations=()) for r in confirmed(LEARNING, (0.0,) * 3)]
    unseen = case_of([*climbed(0.3), *for_speed], space=NEAR)
    assert isinstance(unseen.claim, Unknown)
    assert isinstance(unseen.hopeful, Claim)


def test_a_shown_gain_whose_search_may_not_pay_back_is_still_expected_to_pay() -> None:
    few_runs = small_space(TEXT.replace("30_000_000", "1_000_000").replace("runs = 10", "runs = 60"))
    shown, unshown = (case_of(learned(0.42, fresh=fresh), space=few_runs) for fresh in (0.42, 0.0))
    assert isinstance(unshown.decision, Expected)
    assert not claimed(shown).is_expected
    assert not isinstance(shown.decision, Keep), "more evidence of the gain is no reason against it"


def test_what_only_other_peoples_runs_show_is_not_claimed() -> None:
    """The baseline keeps its rate constant; a decay is expected to gain 0.8 +- 0.45 whatever trials say."""
    constant = turned({"schedule": "constant"})
    text = TEXT.replace("[baseline]", '[baseline]\nschedule = "constant"').replace('["cosine"', '["constant", "cosine"')
    little = [*climbed(0.3)[: len(ANCHORS) + 1], *confirmed(LEARNING, (0.0,) * 3, (0.3,) * 3)]
    as_constant = [
        replace(r, spec=replace(r.spec, config=constant)) if r.spec.config == SPACE.baseline else r for r in little
    ]
    case = case_of(as_constant, space=small_space(text))
    assert isinstance(case.claim, Unknown), "trials show 0.3 at one length, 300 times shorter than the plan"


def test_what_is_expected_leaves_the_claim_to_the_system_part_and_is_counted_over_it() -> None:
    both = confirmed(LEARNING | LESS, log_efficiencies=(0.1, 0.1, 0.1))
    part = [r for r in confirmed(LESS, label=SYSTEM_PART) if r.spec.label == SYSTEM_PART]
    case = case_of([*climbed(0.1), *both, *part])
    assert [c.label for c in case.claims] == ["winner", SYSTEM_PART]
    assert claimed(case).label == SYSTEM_PART
    hopeful, prospect = case.hopeful, case.prospect
    assert isinstance(hopeful, Claim)
    assert isinstance(hopeful.total, Interval)
    assert isinstance(prospect, Prospect)
    assert hopeful.config == turned(LEARNING | LESS)
    assert prospect.mean == pytest.approx(hopeful.total.estimate - 0.30)
    assert prospect.sd == pytest.approx(hopeful.total.half_width / 1.6448536)
    result = conclude(case)
    assert result.verdict is Verdict.EXPECTED
    assert (result.claimed, result.recommended) == (turned(LESS), turned(LEARNING | LESS))
    assert isinstance(result.expectation, Expectation)
    assert result.expectation.knobs == {"schedule": "wsd"}
    assert isinstance(result.over_baseline.speedup, Interval)
    assert result.over_baseline.speedup.estimate == pytest.approx(math.exp(0.30)), "nothing expected is in the claim"


def test_what_adopting_costs_is_taken_off_what_is_expected() -> None:
    priced = small_space(TEXT.replace("runs = 10", "runs = 10\ndevice_hour_usd = 2.0\nengineer_hour_usd = 100.0"))
    free, dear = case_of(learned(0.1)).prospect, case_of(learned(0.1), space=priced).prospect
    assert isinstance(free, Prospect)
    assert isinstance(dear, Prospect)
    plan_usd = 10 * 30_000_000 / 1e4 / 3_600 * 2.0
    assert free.mean - dear.mean == pytest.approx(0.1 * 100.0 / plan_usd)
    assert dear.sd == free.sd


def test_the_first_run_is_the_look_and_a_log_of_a_run_saves_that_of_the_baseline() -> None:
    logs = (BaselineLog(is_given=has) for has in (False, True))
    without, with_log = (case_of(learned(0.1), baseline_log=log).decision for log in logs)
    assert isinstance(without, Expected)
    assert isinstance(with_log, Expected)
    assert (without.guard, with_log.guard) == (Look(needs_run=True), Look(needs_run=False))
    assert with_log.cost < without.cost < 1.0


def test_no_more_trials_are_run_where_they_were_seen_to_be_too_short() -> None:
    case = case_of(starved())
    for rungs, left in (((HORIZON, 4 * HORIZON), (4 * HORIZON,)), ((HORIZON,), (HORIZON,))):
        ladder = case.ladder(SPACE.baseline, (turned(LEARNING),), rungs)
        assert isinstance(ladder, Ladder)
        assert ladder.rungs == left
        assert {length for option in ladder.options(lambda _, __: 0.0) for length in option.lengths} <= set(left)


def test_trials_too_short_to_inform_give_no_figure_and_say_what_length_would() -> None:
    case = case_of([*starved(), *confirmed({"learning_rate": 0.0015}, (0.0,) * 3, (0.4,) * 3)])
    assert case.is_starved
    assert isinstance(case.claim, Unknown)
    assert all(isinstance(c.total, Unknown) for c in case.claims)
    decision = case.decision
    assert isinstance(decision, NotInformative)
    assert decision.tokens >= 4 * HORIZON
    assert decision.cost_seconds > 0.0
    assert conclude(case).recommended == SPACE.baseline


def test_trials_too_short_to_inform_about_learning_do_not_touch_what_system_knobs_gain() -> None:
    case = case_of([*starved(), *confirmed(WHOLE)])
    assert case.decision == Claimed(config=turned(WHOLE))


def test_a_search_that_found_nothing_keeps_the_baseline() -> None:
    slower = record(WHOLE, label="proposal 1", stage=Stage.EXPLORE_SYSTEM, log_speed=-0.1)
    assert case_of([slower]).decision == Keep()
    confirmed_slower = case_of(confirmed(WHOLE, (-0.30, -0.31, -0.29)))
    assert confirmed_slower.decision == Keep()
    assert confirmed_slower.claimed_config == SPACE.baseline
    assert case_of(stage_ends={Stage.CONFIRM: StageEnd.NOT_WORTH_IT}).decision == Keep()


def test_a_search_that_ended_before_it_could_confirm_what_it_saw_is_not_informative() -> None:
    faster = record(WHOLE, label="proposal 1", stage=Stage.EXPLORE_SYSTEM, log_speed=0.3)
    for case in (case_of(), case_of([faster], stage_ends={Stage.CONFIRM: StageEnd.BUDGET})):
        assert isinstance(case.decision, NotInformative)
        assert case.decision.tokens == 0.0, "the length of trials is not why"


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


def test_the_floor_is_that_of_the_claim_or_of_the_coarsest_comparison_allowed() -> None:
    calibration = replace(CALIBRATION, noise=VarianceComponents(within=0.01, between=0.02**2, copies=4))
    case = case_of(confirmed(WHOLE, (0.30, 0.31, 0.29, 0.30), (0.0,) * 4), calibration=calibration)
    assert case.floor_of(case.claim) == calibration.floor(4, claimed(case).rounds)
    assert case.floor_of(Unknown(reason="nothing is claimed")) == calibration.floor(3, 12)
    assert case_of().floor_of(case.claim) is CALIBRATION.noise, "no copies, no floor"
