"""From records of the ladder to what they say of learning: partners, the gate by length, failures, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from small_case import CURVE, HORIZON, SPACE, TEXT, confirmed, record, rung, slices, small_space, turned

from autotune.analysis.efficiency import loss_after
from autotune.analysis.evidence import BASELINE, CONFIRM_SEED
from autotune.analysis.learning import failed_on_ladder, learning_speed, learnt_from, partner_of
from autotune.analysis.surface import Surface, surface_of
from autotune.quantity import Unknown
from autotune.trial.types import (
    Completed,
    Failed,
    FailedKind,
    Infeasible,
    InfeasibleKind,
    Outcome,
    Pruned,
    Stage,
    TrialRecord,
    TrialSpec,
)

WSD: dict[str, Any] = {"schedule": "wsd"}
LENGTHS = (HORIZON, 4 * HORIZON)
ANCHORS = [rung(tokens=tokens) for tokens in (HORIZON // 4, HORIZON // 2, HORIZON, 2 * HORIZON, 4 * HORIZON)]
AREAS = {0.6: math.log(0.6), 0.8: math.log(0.8), 1.4: math.log(1.4), 1.8: math.log(1.8)}
"""ln of the area under the schedule, by the factor on the baseline's learning rate."""


def spec(**changes: Any) -> TrialSpec:
    """The spec of a trial of a schedule on the ladder."""
    return replace(rung(WSD).spec, **changes)


def at_rates(log_efficiencies: Mapping[float, float], *, tokens: int = HORIZON) -> list[TrialRecord]:
    """Trials at those factors on the baseline's learning rate."""
    return [rung({"learning_rate": 1e-3 * f}, tokens=tokens, log_efficiency=e) for f, e in log_efficiencies.items()]


def unlucky(records: Sequence[TrialRecord], nats: float) -> list[TrialRecord]:
    """Those records with another seed's luck: all losses are higher by as much."""
    return [replace(r, evaluations=(replace(r.evaluations[0], loss=r.evaluations[0].loss + nats),)) for r in records]


# -- partners --------------------------------------------------------------------------------------------


def test_a_trial_is_compared_with_the_baselines_learning_on_its_seed_and_length_and_in_its_precision() -> None:
    anchor = ANCHORS[2]
    assert partner_of(spec(), ANCHORS, SPACE) is anchor
    assert partner_of(spec(horizon_tokens=4 * HORIZON), ANCHORS, SPACE) is ANCHORS[4]
    low = rung({"dtype": "bf16_autocast"})
    in_low = spec(config=turned(WSD | {"dtype": "bf16_autocast"}))
    assert partner_of(in_low, [*ANCHORS, low], SPACE) is low
    assert partner_of(spec(), [low, *ANCHORS], SPACE) is anchor


def test_system_knobs_make_no_difference_to_a_partner() -> None:
    quick = rung({"attention": "sdpa"})
    assert partner_of(spec(), [quick], SPACE) is quick


@pytest.mark.parametrize(
    "other",
    [
        spec(seed=1),
        spec(horizon_tokens=3 * HORIZON),
        spec(config=turned(WSD | {"dtype": "bf16_autocast"})),
    ],
)
def test_without_a_partner_there_is_none(other: TrialSpec) -> None:
    assert isinstance(partner_of(other, ANCHORS, SPACE), Unknown)


def test_neither_other_learning_knobs_nor_a_run_without_evaluation_is_a_partner() -> None:
    others = [rung(WSD), rung({"learning_rate": 2e-3}), replace(ANCHORS[2], evaluations=())]
    assert isinstance(partner_of(spec(), others, SPACE), Unknown)


# -- what was measured -----------------------------------------------------------------------------------


def test_losses_are_read_as_tokens_of_the_baseline_at_every_length() -> None:
    records = [*ANCHORS, *(rung(WSD, tokens=tokens, log_efficiency=0.3) for tokens in LENGTHS)]
    learnt = learnt_from(records, SPACE)
    assert learnt.is_informative
    assert learnt.informed == learnt.measured, "one schedule is too few for the gate"
    assert [(s.tokens, s.config, s.seed) for s in learnt.measured] == [(d, turned(WSD), 0) for d in LENGTHS]
    for seen in learnt.measured:
        assert seen.log_efficiency == pytest.approx(0.3, abs=0.03)
        assert seen.variance == pytest.approx((0.1 * seen.log_efficiency) ** 2)


def test_a_schedule_that_ends_on_another_step_is_compared_by_tokens() -> None:
    longer = rung(WSD, log_efficiency=0.0)
    loss = loss_after(CURVE, 1.1 * HORIZON)
    longer = replace(longer, evaluations=(replace(longer.evaluations[0], tokens_seen=110_000, loss=loss),))
    (seen,) = learnt_from([*ANCHORS, longer], SPACE).measured
    assert seen.log_efficiency == pytest.approx(0.0, abs=0.01)


def test_the_luck_of_a_seed_cancels() -> None:
    blocks = confirmed(WSD, log_efficiencies=(0.2, 0.2, 0.2))
    records = [*ANCHORS, rung(WSD, log_efficiency=0.2)]
    usual, lucky = (learnt_from([*records, *each], SPACE).measured for each in (blocks, unlucky(blocks, -0.3)))
    assert [s.seed for s in usual[1:]] == [CONFIRM_SEED, CONFIRM_SEED + 1, CONFIRM_SEED + 2]
    for one, other in zip(usual, lucky, strict=True):
        assert one.log_efficiency == pytest.approx(other.log_efficiency, abs=1e-9)
    shifted = learnt_from(unlucky(records, 0.3), SPACE).measured
    assert shifted[0].log_efficiency == pytest.approx(usual[0].log_efficiency, abs=1e-9), "nor does the slope feel it"


def test_runs_of_the_baseline_on_other_seeds_do_not_bend_what_losses_are_worth() -> None:
    records = [*ANCHORS, rung(WSD, log_efficiency=0.2)]
    others = unlucky([rung(seed=1), record({}, label=BASELINE, stage=Stage.CALIBRATE, seed=2)], 0.1)
    assert learnt_from([*records, *others], SPACE).measured == learnt_from(records, SPACE).measured


def test_only_lengths_of_the_ladder_are_read_from_confirmation() -> None:
    records = [*ANCHORS[:3], rung(WSD), *confirmed(WSD, horizon_tokens=4 * HORIZON), *ANCHORS[3:4]]
    assert {s.tokens for s in learnt_from(records, SPACE).measured} == {HORIZON}
    on_ladder = [*records, rung(WSD, tokens=4 * HORIZON), rung(tokens=4 * HORIZON)]
    measured = learnt_from(on_ladder, SPACE).measured
    assert sum(s.tokens == 4 * HORIZON for s in measured) == 4, "the ladder's and three of confirmation"


@pytest.mark.parametrize("stage", [Stage.CALIBRATE, Stage.EXPLORE_SYSTEM, Stage.RACE, Stage.ATTRIBUTE])
def test_trials_of_other_stages_are_not_read(stage: Stage) -> None:
    elsewhere = record(WSD, label="other", stage=stage, seed=0, log_efficiency=0.3)
    assert learnt_from([*ANCHORS, elsewhere], SPACE).measured == ()


@pytest.mark.parametrize(
    "broken",
    [
        rung(WSD, outcome=Pruned(reason="slower")),
        rung(WSD, outcome=Failed(kind=FailedKind.CRASH, message="it crashed")),
        replace(rung(WSD), evaluations=()),
        rung(WSD, seed=7),
    ],
)
def test_a_trial_without_an_end_or_a_partner_is_not_measured(broken: TrialRecord) -> None:
    learnt = learnt_from([*ANCHORS, broken], SPACE)
    assert learnt.measured == learnt.informed == ()
    assert not learnt.is_informative


def test_without_the_baseline_at_two_lengths_no_loss_is_read() -> None:
    assert learnt_from([ANCHORS[2], rung(WSD)], SPACE).measured == ()


# -- the gate, by length ---------------------------------------------------------------------------------------


def test_lengths_at_which_only_the_area_shows_inform_of_nothing_and_longer_ones_do() -> None:
    short = at_rates(AREAS)
    long = at_rates({0.6: -0.05, 0.8: 0.02, 1.4: -0.05, 1.8: -0.15}, tokens=4 * HORIZON)
    learnt = learnt_from([*ANCHORS, *short, *long], SPACE)
    assert learnt.starved == (HORIZON,)
    assert len(learnt.measured) == 8
    assert {s.tokens for s in learnt.informed} == {4 * HORIZON}
    assert not learnt_from([*ANCHORS, *short], SPACE).is_informative


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_where_the_area_is_only_part_of_what_shows_every_trial_informs(share: float) -> None:
    rates = {0.6: -0.2, 0.8: -0.02, 1.4: -0.05, 1.8: -0.3}
    learnt = learnt_from([*ANCHORS, *at_rates({f: share * AREAS[f] or e for f, e in rates.items()})], SPACE)
    assert learnt.informed == learnt.measured
    assert learnt.starved == ()
    assert learnt.starvation[HORIZON].slope == pytest.approx(share or -0.1, abs=0.1)


# -- failures and speed -------------------------------------------------------------------------------------------


def test_what_diverged_or_broke_on_the_ladder_is_remembered_and_nothing_else() -> None:
    diverged = Infeasible(kind=InfeasibleKind.DIVERGED, message="the loss is not finite")
    outcomes: list[Outcome] = [diverged, Failed(kind=FailedKind.CRASH, message=""), Pruned(reason=""), Completed()]
    rates = (2e-3, 3e-3, 4e-3, 5e-3)
    records = [rung({"learning_rate": x}, outcome=o) for x, o in zip(rates, outcomes, strict=True)]
    elsewhere = record({"learning_rate": 6e-3}, label="other", stage=Stage.EXPLORE_SYSTEM, outcome=diverged)
    confirming = record({"learning_rate": 7e-3}, label="winner", stage=Stage.CONFIRM, outcome=diverged)
    found = failed_on_ladder([*ANCHORS, *records, elsewhere, confirming])
    assert [c["learning_rate"] for c in found] == [2e-3, 3e-3, 7e-3]


BATCHES = small_space(
    TEXT.replace("[knobs]", "[knobs]\nglobal_batch = [8, 16, 32]\nlearning_rate = { low = 1e-4, high = 1e-2 }")
)


def surface_with(*configs: Mapping[str, Any]) -> Surface:
    candidates = [BATCHES.turned(BATCHES.baseline, values) for values in configs]
    return surface_of(BATCHES, 3e7, [], candidates=candidates)


def test_the_effect_of_a_batch_on_speed_is_recovered_whatever_trials_run_on() -> None:
    per_log_batch, common = 0.15, 0.4
    records = [
        rung({"global_batch": batch}, tokens=tokens, log_speed=common + per_log_batch * math.log(batch / 16))
        for batch in (8, 16, 32)
        for tokens in LENGTHS
    ]
    wsd = rung(WSD, log_speed=common - 0.08)
    found = learning_speed([*records, wsd], surface_with({"global_batch": 32}, WSD))
    assert found["global_batch", None] == pytest.approx(per_log_batch, abs=0.02)
    assert found["schedule", "wsd"] == pytest.approx(-0.08, abs=0.02)
    assert ("learning_rate", None) not in found, "a rate costs no time"


def test_rates_that_happened_to_run_fast_change_no_speed() -> None:
    fast = [rung({"learning_rate": 1e-3 * f}, log_speed=0.2) for f in (0.5, 2.0)]
    batches = [rung({"global_batch": b}, log_speed=0.2) for b in (8, 32)]
    found = learning_speed([*fast, *batches], surface_with({"global_batch": 32}))
    assert found["global_batch", None] == pytest.approx(0.0, abs=1e-9)


def test_without_trials_no_effect_on_speed_is_expected() -> None:
    assert learning_speed([], surface_with(WSD)) == {("global_batch", None): 0.0, ("schedule", "wsd"): 0.0}


def test_speed_is_read_from_the_ladder_alone() -> None:
    elsewhere = record({"global_batch": 32}, label="other", stage=Stage.EXPLORE_SYSTEM, log_speed=0.5)
    unpaired = replace(rung({"global_batch": 32}, log_speed=0.5), reference_slices=())
    few = replace(rung({"global_batch": 32}), slices=slices([]), reference_slices=slices([]))
    assert learning_speed([elsewhere, unpaired, few], surface_with())["global_batch", None] == 0.0
