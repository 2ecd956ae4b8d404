"""Every caveat, made by what it warns of; and none where there is nothing to warn of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from small_case import (
    CALIBRATION,
    CURVE,
    HORIZON,
    ROUNDS,
    TEXT,
    case_of,
    confirmed,
    record,
    slices,
    small_space,
    turned,
)

from autotune.analysis import caveat
from autotune.analysis.case import BaselineLog, Case
from autotune.analysis.caveat import Caveat
from autotune.analysis.caveats import caveats_of
from autotune.analysis.choice import Choice
from autotune.analysis.efficiency import loss_after
from autotune.analysis.evidence import BASELINE
from autotune.analysis.informative import least_tokens
from autotune.analysis.power import Power
from autotune.analysis.rates import VarianceComponents
from autotune.quantity import Interval, Unknown
from autotune.simulation.executor import MACHINE
from autotune.simulation.workload import ScriptedWorkload, simulated_gpt
from autotune.space.document import SpaceDocument, parse_document
from autotune.space.limits import Pruned
from autotune.trial.types import Infeasible, InfeasibleKind, Stage, StageEnd, TrialRecord
from autotune.workload.base import NoGate
from autotune.workload.space import SearchSpace, space_of
from autotune_model.left_out import WORDS, LeftOut, Reason, Tally

PRICED = small_space(TEXT.replace("runs = 10", "runs = 10\ndevice_hour_usd = 1.0\ndevice_watts = 60.0"))
SYSTEM = {"attention": "sdpa"}
NUMERICS = {"dtype": "bf16_autocast"}
LEARNING = {"schedule": "wsd"}


def sound(records: list[TrialRecord] | None = None, *, space: SearchSpace = PRICED, **changed: Any) -> Case:
    """A search with nothing to warn of: a system knob, confirmed, in a plan with a price."""
    return case_of(confirmed(SYSTEM) if records is None else records, space=space, **changed)


def left_out(reason: Reason, size: int | None) -> LeftOut:
    tally = Tally()
    tally.add(reason, Path("there"), size)
    return tally.rows()[0]


def unsteady() -> Case:
    records = confirmed(SYSTEM)
    drifting = slices([0.3 + 0.05 * number for number in range(ROUNDS)])
    records[1] = replace(records[1], slices=drifting)
    return sound(records)


def noisy() -> Case:
    noise = VarianceComponents(within=0.01, between=0.1**2, copies=4)
    return sound(calibration=replace(CALIBRATION, noise=noise))


def not_equivalent() -> Case:
    outcome = Infeasible(kind=InfeasibleKind.NOT_EQUIVALENT, message="the logits differ")
    other = record(SYSTEM | NUMERICS, label="proposal 3", stage=Stage.EXPLORE_SYSTEM, outcome=outcome)
    return sound([other, *confirmed(SYSTEM)])


def ungated() -> Case:
    def read_ungated(document: SpaceDocument) -> ScriptedWorkload:
        return replace(simulated_gpt(document), gate_of=lambda _: NoGate(reason="nothing to compare"))

    document = parse_document(
        TEXT.replace("runs = 10", "runs = 10\ndevice_hour_usd = 1.0\ndevice_watts = 60.0"),
        name="small",
        source="small",
        folder=Path(),
    )
    return sound(space=space_of(document, read_ungated))


def overflowing() -> Case:
    records = confirmed(SYSTEM)
    records[1] = replace(records[1], slices=slices([0.3] * ROUNDS, skipped=1))
    return sound(records)


def alternated() -> Case:
    records = confirmed(SYSTEM)
    records[1] = replace(records[1], interleaved=False)
    return sound(records)


def rung(knobs: dict[str, Any], *, tokens: int = HORIZON, log_efficiency: float = 0.0) -> TrialRecord:
    """A trial of the ladder: a complete schedule of that many tokens."""
    label = BASELINE if not knobs else "proposal"
    made = record(knobs, label=label, stage=Stage.EXPLORE_LEARNING)
    loss = loss_after(CURVE, tokens * math.exp(log_efficiency))
    return replace(
        made,
        spec=replace(made.spec, horizon_tokens=tokens),
        evaluations=(replace(made.evaluations[0], tokens_seen=tokens, loss=loss),),
    )


LADDER = [rung({}, tokens=tokens) for tokens in (HORIZON // 4, HORIZON // 2, HORIZON, 2 * HORIZON)]
"""The baseline's learning knobs at all token budgets."""


def hopeful() -> Case:
    """A schedule that gains a little on the ladder, and nothing to speak of on fresh seeds."""
    trials = [rung(LEARNING, tokens=tokens, log_efficiency=0.1) for tokens in (HORIZON // 4, HORIZON)]
    return sound([*LADDER, *trials, *confirmed(LEARNING)])


def fast_in_a_trial() -> list[TrialRecord]:
    """Trials of a precision, and of another attention beside it."""
    speeds = ((NUMERICS, 0.3), (SYSTEM | NUMERICS, 0.9))
    made = [record(knobs, label="proposal", stage=Stage.EXPLORE_SYSTEM, log_speed=speed) for knobs, speed in speeds]
    return [replace(trial, evaluations=()) for trial in made]


def starved() -> Case:
    """Trials whose token efficiency is that of the area under the schedule."""
    rates = {ratio: rung({"learning_rate": 0.001 * ratio}, log_efficiency=math.log(ratio)) for ratio in (0.7, 0.8, 1.5)}
    return sound([*LADDER, *rates.values(), *confirmed(SYSTEM)])


def steepening() -> Case:
    points = ((25_000, 8.0), (50_000, 7.8), (100_000, 7.4), (200_000, 6.6))
    return sound(calibration=replace(CALIBRATION, points=points))


def with_a_log_of_another_model() -> Case:
    return sound(baseline_log=BaselineLog(is_given=True, problem="a log must have a loss of at least 3"))


INFORMATIVE = least_tokens(16 * 128)
CASES: dict[str, tuple[Callable[[], Case], Caveat]] = {
    "drift": (unsteady, caveat.NoSteadyState(trial=406)),
    "noise": (noisy, caveat.NoisyMachine(floor=pytest.approx(0.20, abs=0.02))),  # type: ignore[arg-type]
    "budget": (lambda: sound(stage_ends={Stage.CONFIRM: StageEnd.BUDGET}), caveat.BudgetEnded(stage="confirm")),
    "no race": (lambda: sound(stage_ends={Stage.RACE: StageEnd.BUDGET}), caveat.RaceSkipped()),
    "early stop": (
        lambda: sound(stage_ends={Stage.EXPLORE_SYSTEM: StageEnd.NOT_WORTH_IT}),
        caveat.SearchStoppedEarly(stage="explore_system"),
    ),
    "busy": (
        lambda: sound([replace(r, others_share=0.6) for r in confirmed(SYSTEM)]),
        caveat.BusyMachine(others_share=0.6),
    ),
    "impossible": (
        lambda: sound(stage_ends={Stage.EXPLORE_SYSTEM: StageEnd.NOTHING_FOUND}),
        caveat.CombinationsNotFound(stage="explore_system"),
    ),
    "two restarts": (lambda: sound(confirmed(SYSTEM)[:4]), caveat.FewRestarts(restarts=2)),
    "expected": (hopeful, caveat.LearningIsExpected(knobs="schedule", factor=pytest.approx(1.1, abs=0.1))),  # type: ignore[arg-type]
    "fast": (
        lambda: sound([*fast_in_a_trial(), *confirmed(NUMERICS)]),
        caveat.SpeedIsExpected(knobs="attention"),
    ),
    "starved": (
        starved,
        caveat.TrialsTooShort(
            horizon_tokens=HORIZON,
            slope=pytest.approx(1.0, abs=0.1),  # type: ignore[arg-type]
            r_squared=pytest.approx(1.0, abs=0.02),  # type: ignore[arg-type]
            informative_tokens=round(INFORMATIVE),
            cost_seconds=round(3 * INFORMATIVE / CALIBRATION.rate.estimate),
        ),
    ),
    "another model's log": (
        with_a_log_of_another_model,
        caveat.BaselineLogUnfit(reason="a log must have a loss of at least 3"),
    ),
    "steepening": (steepening, caveat.CurveSteepening(horizon_tokens=200_000)),
    "short trials": (
        hopeful,
        caveat.ShortHorizon(knobs="schedule", horizon_tokens=HORIZON, plan_tokens=30_000_000.0),
    ),
    "little text": (
        lambda: sound(corpus=replace(MACHINE.corpus, train_tokens=HORIZON // 2)),
        caveat.RepeatedData(epochs=2.0),
    ),
    "few different pairs": (
        lambda: sound(corpus=replace(MACHINE.corpus, vocab_size=758, vocab_wanted=32_000)),
        caveat.VocabularyShort(wanted=32_000, had=758),
    ),
    "much left out": (
        lambda: sound(corpus=replace(MACHINE.corpus, text_bytes=200, left_out=(left_out(Reason.BINARY, 800),))),
        caveat.TextLeftOut(share=0.8, bytes=800, unknown_sizes=0, reasons=WORDS[Reason.BINARY][0]),
    ),
    "a folder not entered": (
        lambda: sound(corpus=replace(MACHINE.corpus, text_bytes=200, left_out=(left_out(Reason.LINKED_FOLDER, None),))),
        caveat.TextLeftOut(share=0.0, bytes=0, unknown_sizes=1, reasons=WORDS[Reason.LINKED_FOLDER][0]),
    ),
    "no curve": (
        lambda: sound(calibration=replace(CALIBRATION, curve=Unknown(reason="it does not fall"))),
        caveat.CurveNotFitted(reason="it does not fall"),
    ),
    "off the curve": (
        lambda: sound(confirmed(LEARNING, log_efficiencies=(2.0, 2.0, 2.0))),
        caveat.EfficiencyCensored(bound=4.0),
    ),
    "gate": (
        not_equivalent,
        caveat.NotEquivalent(knobs="dtype = bf16_autocast, attention = sdpa", reason="the logits differ"),
    ),
    "no gate": (ungated, caveat.NotGated(knobs="attention", reason="nothing to compare")),
    "pruned": (
        lambda: sound(pruned=(Pruned(knob="threads", value="5-8", reason="there are 4 cores"),)),
        caveat.ValuePruned(knobs="threads = 5-8", reason="there are 4 cores"),
    ),
    "overflow": (overflowing, caveat.Overflow(skipped=ROUNDS, steps=ROUNDS)),
    "memory": (alternated, caveat.AlternatedSessions()),
    "no meter": (
        lambda: sound(space=small_space(TEXT.replace("runs = 10", "runs = 10\ndevice_hour_usd = 1.0"))),
        caveat.EnergyUnknown(reason="no energy meter was read and the plan names no device_watts"),
    ),
    "no price": (
        lambda: sound(space=small_space(TEXT.replace("runs = 10", "runs = 10\ndevice_watts = 60.0"))),
        caveat.Unpriced(),
    ),
    "expert": (
        lambda: sound(expert_anywhere=turned(SYSTEM | {"optimizer_kernel": "fused"})),
        caveat.ExpertPartial(knobs="optimizer_kernel"),
    ),
    "undecided": (
        lambda: sound(confirmed(NUMERICS, log_efficiencies=(0.05, -0.06, 0.0))),
        caveat.NumericsUndecided(knobs="dtype", lost=pytest.approx(0.09, abs=0.02), margin=0.02),  # type: ignore[arg-type]
    ),
    "inferior": (
        lambda: sound(confirmed(NUMERICS, log_efficiencies=(-0.05, -0.052, -0.048))),
        caveat.NumericsInferior(knobs="dtype", lost=round(-math.expm1(-0.05), 4), margin=0.02),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_caveat_warns_of_makes_it(name: str) -> None:
    make, expected = CASES[name]
    found = caveats_of(Choice(case=make()))
    assert expected in found
    others = {type(c) for c in found} - {type(expected)}
    assert others <= {caveat.ShortHorizon, caveat.LearningIsExpected}, "nothing else is wrong"


def test_there_is_a_case_for_every_caveat() -> None:
    assert {type(expected) for _, expected in CASES.values()} == set(get_args(Caveat))


def test_a_sound_search_has_nothing_to_warn_of() -> None:
    assert caveats_of(Choice(case=sound())) == ()


def test_a_raced_stage_that_spent_its_budget_was_not_skipped() -> None:
    raced = confirmed(SYSTEM, label="finalist 1", stage=Stage.RACE)
    assert caveats_of(Choice(case=sound(raced + confirmed(SYSTEM), stage_ends={Stage.RACE: StageEnd.BUDGET}))) == ()


def test_a_wish_of_the_expert_that_the_space_searches_is_not_missing() -> None:
    assert caveats_of(Choice(case=sound(expert_anywhere=turned(SYSTEM | NUMERICS)))) == ()


def test_what_is_paid_for_energy_and_not_known_is_said_to_be_missing() -> None:
    owned = "runs = 10\ndevice_hour_usd = 1.0\nowned = true\nkwh_usd = 0.3"
    (found,) = caveats_of(Choice(case=sound(space=small_space(TEXT.replace("runs = 10", owned)))))
    assert isinstance(found, caveat.EnergyUnknown)
    assert found.reason.endswith("no figure includes its cost")


def test_a_measured_draw_needs_no_estimate() -> None:
    watts = Interval.exactly(math.log(50.0))
    power = Power(baseline=watts, candidate=watts, ratio=watts, degrees_of_freedom=2.0, provenance="measured (m)")
    unconfirmed = case_of((), space=PRICED, calibration=replace(CALIBRATION, power=power))
    assert unconfirmed.power is power
    assert caveats_of(Choice(case=unconfirmed)) == ()
