"""What is recommended: what is expected beyond the claim, when that is shown, and what to do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_case import (
    ANCHORS,
    HORIZON,
    LEARNING,
    SPACE,
    TEXT,
    case_of,
    claimed,
    climbed,
    confirmed,
    learned,
    record,
    small_space,
    starved,
    turned,
)

from autotune.analysis.case import BaselineLog, Case
from autotune.analysis.choice import Choice
from autotune.analysis.claims import Claim
from autotune.analysis.conclude import conclude
from autotune.analysis.decision import Claimed, Expected, Keep, Look, NotInformative, Prospect, Watch
from autotune.analysis.evidence import SYSTEM_PART
from autotune.analysis.recommendation import Expectation, Verdict
from autotune.quantity import Interval, Unknown
from autotune.trial.types import Stage, StageEnd, TrialRecord

WHOLE = {"attention": "sdpa", "dtype": "bf16_autocast"}
LESS = {"dtype": "bf16_autocast"}
NEAR = small_space(TEXT.replace("30_000_000", "1_000_000").replace("runs = 10", "runs = 1_000"))
"""A plan of many runs that are hardly longer than the longest trial."""


def chosen(case: Case) -> Choice:
    return Choice(case=case)


# -- speed: what trials show, and nothing confirmed ---------------------------------------------------

FAST, PRECISE = {"attention": "sdpa"}, {"dtype": "bf16_autocast"}


def explored(knobs: dict[str, object], log_speed: float, *, compile_seconds: float = 0.0) -> TrialRecord:
    """A trial of system knobs, on speed alone."""
    made = record(knobs, label="proposal", stage=Stage.EXPLORE_SYSTEM, log_speed=log_speed)
    return replace(made, evaluations=(), costs=replace(made.costs, compile_seconds=compile_seconds))


def test_a_system_that_trials_show_to_be_faster_is_expected_and_watched_where_nothing_was_confirmed() -> None:
    case = case_of([explored(FAST, 0.4)])
    decision = chosen(case).decision
    assert isinstance(decision, Expected)
    assert (decision.config, decision.guard) == (turned(FAST), Watch())
    assert 0.25 < decision.prospect.mean < 0.4, "one trial may be luck"
    result = conclude(case)
    assert (result.verdict, result.claimed, result.recommended) == (Verdict.EXPECTED, SPACE.baseline, turned(FAST))
    assert isinstance(result.over_baseline.speedup, Unknown), "nothing expected is in the claim"
    assert isinstance(result.expectation, Expectation)
    assert result.expectation.knobs == {"attention": "sdpa"}


def test_a_lead_within_the_noise_of_a_trial_is_not_expected() -> None:
    for lead in (-0.4, 0.0, 0.05, 0.1):
        assert not isinstance(chosen(case_of([explored(FAST, lead)])).decision, Expected), lead


def test_speed_says_nothing_of_another_precision() -> None:
    assert not isinstance(chosen(case_of([explored(PRECISE, 0.4)])).decision, Expected)
    beside = case_of([explored(PRECISE, 0.3), explored(FAST | PRECISE, 0.6), *confirmed(PRECISE)])
    decision = chosen(beside).decision
    assert isinstance(decision, Expected)
    assert beside.claimed_config == turned(PRECISE)
    assert decision.config == turned(FAST | PRECISE), "the precision that was confirmed, and faster"


def test_what_compiling_takes_in_every_run_is_taken_off() -> None:
    free, dear = (chosen(case_of([explored(FAST, 0.4, compile_seconds=s)])).prospect for s in (0.0, 300.0))
    assert isinstance(free, Prospect)
    assert isinstance(dear, Prospect)
    assert free.mean - dear.mean == pytest.approx(300.0 * 10 / (10 * 30_000_000 / 1e4))
    assert not isinstance(chosen(case_of([explored(FAST, 0.4, compile_seconds=1e4)])).decision, Expected)


def test_a_faster_system_is_added_to_the_learning_knobs_that_are_expected() -> None:
    case = case_of([explored(FAST, 0.4), *learned(0.1)])
    decision = chosen(case).decision
    assert isinstance(decision, Expected)
    assert decision.config == turned(FAST | LEARNING)
    alone = chosen(case_of(learned(0.1))).prospect
    assert isinstance(alone, Prospect)
    assert decision.prospect.mean > alone.mean + 0.2
    assert decision.guard != Watch(), "its loss is in doubt, too"


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
    assert isinstance(chosen(slight).decision, Keep)
    assert isinstance(chosen(clear).decision, Expected)


# -- learning: what is expected, and what is shown ----------------------------------------------------


def test_a_learning_gain_is_shown_near_the_tested_length_and_expected_far_from_it() -> None:
    near, far = case_of(learned(0.42), space=NEAR), case_of(learned(0.3))
    assert claimed(near).config == turned(LEARNING)
    assert isinstance(chosen(near).decision, Claimed)
    assert isinstance(far.claim, Unknown)
    assert far.candidate == SPACE.baseline
    decision = chosen(far).decision
    assert isinstance(decision, Expected)
    assert decision.config == turned(LEARNING)


def test_a_learning_gain_is_shown_only_if_fresh_seeds_agree() -> None:
    disagreeing = case_of(learned(0.3, fresh=0.0), space=NEAR)
    assert isinstance(disagreeing.claim, Unknown)
    assert isinstance(chosen(disagreeing).hopeful, Claim)
    for_speed = [replace(r, evaluations=()) for r in confirmed(LEARNING, (0.0,) * 3)]
    unseen = case_of([*climbed(0.3), *for_speed], space=NEAR)
    assert isinstance(unseen.claim, Unknown)
    assert isinstance(chosen(unseen).hopeful, Claim)


def test_a_shown_gain_whose_search_may_not_pay_back_is_still_expected_to_pay() -> None:
    few_runs = small_space(TEXT.replace("30_000_000", "1_000_000").replace("runs = 10", "runs = 60"))
    shown, unshown = (case_of(learned(0.42, fresh=fresh), space=few_runs) for fresh in (0.42, 0.0))
    assert isinstance(chosen(unshown).decision, Expected)
    assert not claimed(shown).is_expected
    assert not isinstance(chosen(shown).decision, Keep), "more evidence of the gain is no reason against it"


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
    hopeful, prospect = chosen(case).hopeful, chosen(case).prospect
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
    free, dear = chosen(case_of(learned(0.1))).prospect, chosen(case_of(learned(0.1), space=priced)).prospect
    assert isinstance(free, Prospect)
    assert isinstance(dear, Prospect)
    plan_usd = 10 * 30_000_000 / 1e4 / 3_600 * 2.0
    assert free.mean - dear.mean == pytest.approx(0.1 * 100.0 / plan_usd)
    assert dear.sd == free.sd


def test_the_first_run_is_the_look_and_a_log_of_a_run_saves_that_of_the_baseline() -> None:
    logs = (BaselineLog(is_given=has) for has in (False, True))
    without, with_log = (chosen(case_of(learned(0.1), baseline_log=log)).decision for log in logs)
    assert isinstance(without, Expected)
    assert isinstance(with_log, Expected)
    assert (without.guard, with_log.guard) == (Look(needs_run=True), Look(needs_run=False))
    assert with_log.cost < without.cost < 1.0


def test_trials_too_short_to_inform_give_no_figure_and_say_what_length_would() -> None:
    case = case_of([*starved(), *confirmed({"learning_rate": 0.0015}, (0.0,) * 3, (0.4,) * 3)])
    assert case.is_starved
    assert isinstance(case.claim, Unknown)
    assert all(isinstance(c.total, Unknown) for c in case.claims)
    decision = chosen(case).decision
    assert isinstance(decision, NotInformative)
    assert decision.tokens >= 4 * HORIZON
    assert decision.cost_seconds > 0.0
    assert conclude(case).recommended == SPACE.baseline


def test_trials_too_short_to_inform_about_learning_do_not_touch_what_system_knobs_gain() -> None:
    case = case_of([*starved(), *confirmed(WHOLE)])
    assert chosen(case).decision == Claimed(config=turned(WHOLE))


def test_a_search_that_found_nothing_keeps_the_baseline() -> None:
    slower = record(WHOLE, label="proposal 1", stage=Stage.EXPLORE_SYSTEM, log_speed=-0.1)
    assert chosen(case_of([slower])).decision == Keep()
    confirmed_slower = case_of(confirmed(WHOLE, (-0.30, -0.31, -0.29)))
    assert chosen(confirmed_slower).decision == Keep()
    assert confirmed_slower.claimed_config == SPACE.baseline
    assert chosen(case_of(stage_ends={Stage.CONFIRM: StageEnd.NOT_WORTH_IT})).decision == Keep()


def test_a_search_that_ended_before_it_could_confirm_what_it_saw_is_not_informative() -> None:
    faster = record(WHOLE, label="proposal 1", stage=Stage.EXPLORE_SYSTEM, log_speed=0.3)
    for case in (case_of(), case_of([faster], stage_ends={Stage.CONFIRM: StageEnd.BUDGET})):
        decision = chosen(case).decision
        assert isinstance(decision, NotInformative)
        assert decision.tokens == 0.0, "the length of trials is not why"
