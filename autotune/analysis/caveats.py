"""What a reader must know before believing a recommendation, as data. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune_model.config import TrainingConfig
from autotune_model.knobs import KnobClass

from autotune.analysis.claims import Claim, is_inferior, plan_tokens_of
from autotune.analysis.evidence import BASELINE, WINNER, Calibration, changed, effects_of, of_stage
from autotune.analysis.power import Power
from autotune.analysis.rates import paired_speed
from autotune.analysis.recommendation import Caveat, CaveatKind
from autotune.quantity import Interval, Unknown
from autotune.space.limits import Pruned
from autotune.space.space import EXPERT_WISHES, SearchSpace
from autotune.trial.types import Infeasible, InfeasibleKind, Stage, StageEnd, TrialRecord

FEWEST_RESTARTS, _FEWEST_ROUNDS = 3, 12  # METHOD 3.5, 3.4
_NOISY = 0.10  # a floor above this ratio says more about the machine than about any technique


def floor_for(calibration: Calibration, claim: Claim | Unknown) -> float | Unknown:
    """The noise floor of as fine a comparison as the claim's, or of the least that METHOD 3.5 asks for."""
    if isinstance(claim, Unknown) or claim.restarts < 1:
        return calibration.floor(FEWEST_RESTARTS, _FEWEST_ROUNDS)
    return calibration.floor(claim.restarts, claim.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the conclusion needs beside the records: `search_seconds` in all and by stage, why stages ended."""

    expert: TrainingConfig
    search_seconds: float
    seconds_by_stage: Mapping[str, float]
    stage_ends: Mapping[Stage, StageEnd]
    train_tokens: int
    environment: Mapping[str, str]
    peak_flops: Mapping[str, float]
    pruned: tuple[Pruned, ...] = ()


def caveats_of(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    claims: Sequence[Claim],
    facts: Circumstances,
    power: Power | Unknown,
) -> tuple[Caveat, ...]:
    """Everything a reader must know, as data."""
    found: list[Caveat] = []

    def note(kind: CaveatKind, **details: str | int | float) -> None:
        found.append(Caveat(kind=kind, details=details))

    for record in records:
        speed = paired_speed(record.slices, record.reference_slices)
        if record.spec.stage is Stage.CONFIRM and not isinstance(speed, Unknown) and not speed.steady:
            note(CaveatKind.NO_STEADY_STATE, trial=record.spec.number)
    floor = floor_for(calibration, claim)
    if not isinstance(floor, Unknown) and floor > _NOISY:
        note(CaveatKind.NOISY_MACHINE, floor=round(math.expm1(floor), 4))
    for stage, end in facts.stage_ends.items():
        if stage is Stage.RACE and end is StageEnd.BUDGET and not of_stage(records, stage):
            note(CaveatKind.RACE_SKIPPED, candidates=2)
        elif stage in (Stage.CONFIRM, Stage.ATTRIBUTE) and end is StageEnd.BUDGET:
            note(CaveatKind.BUDGET_ENDED, stage=stage.value)
        elif end is StageEnd.NOT_WORTH_IT:
            note(CaveatKind.SEARCH_STOPPED_EARLY, stage=stage.value)
    if not isinstance(claim, Unknown) and claim.restarts < FEWEST_RESTARTS:
        note(CaveatKind.FEW_RESTARTS, restarts=claim.restarts)
    plan_tokens = plan_tokens_of(space, calibration)
    for each in claims:
        learned = ", ".join(changed(each.config, space.baseline, KnobClass.LEARNING))
        if each.is_hypothesis:
            factor = math.exp(each.efficiency.estimate) if isinstance(each.efficiency, Interval) else 0.0
            note(CaveatKind.LEARNING_IS_HYPOTHESIS, knobs=learned, factor=round(factor, 3))
        if not isinstance(each.numerics, Unknown) and not each.numerics.is_shown:
            rounding = ", ".join(changed(each.config, space.baseline, KnobClass.NUMERICS))
            inferior = is_inferior(each.numerics)
            note(
                CaveatKind.NUMERICS_INFERIOR if inferior else CaveatKind.NUMERICS_UNDECIDED,
                knobs=rounding,
                lost=round(-math.expm1(each.numerics.mean if inferior else each.numerics.low), 4),
                margin=round(each.numerics.margin, 4),
            )
        if learned and isinstance(plan_tokens, float):
            note(
                CaveatKind.SHORT_HORIZON,
                knobs=learned,
                horizon_tokens=space.workload.horizon_tokens,
                plan_tokens=plan_tokens,
            )
    epochs = 2 * space.workload.horizon_tokens / max(1, facts.train_tokens)
    if epochs > 1:
        note(CaveatKind.REPEATED_DATA, epochs=round(epochs, 2))
    if isinstance(calibration.curve, Unknown):
        note(CaveatKind.CURVE_NOT_FITTED, reason=calibration.curve.reason)
    for effect in effects_of(of_stage(records, Stage.CONFIRM), WINNER, against=BASELINE, curve=calibration.curve):
        if not isinstance(effect.efficiency, Unknown) and effect.efficiency.censored:
            note(CaveatKind.EFFICIENCY_CENSORED, bound=round(math.exp(effect.efficiency.value), 3))
            break
    for record in records:
        if isinstance(record.outcome, Infeasible) and record.outcome.kind is InfeasibleKind.NOT_EQUIVALENT:
            values = changed(record.spec.config, space.baseline)
            note(
                CaveatKind.NOT_EQUIVALENT,
                knobs=", ".join(f"{name} = {value}" for name, value in values.items()),
                reason=record.outcome.message,
            )
    for value in facts.pruned:
        note(CaveatKind.PRUNED, knobs=f"{value.knob} = {value.value}", reason=value.reason)
    overflowed = [s for r in records if any(s.skipped_steps for s in r.slices) for s in r.slices]
    if overflowed:
        skipped = sum(s.skipped_steps for s in overflowed)
        note(CaveatKind.OVERFLOW, skipped=skipped, steps=sum(len(s.losses) for s in overflowed))
    if any(not r.interleaved for r in records):
        note(CaveatKind.ALTERNATED_SESSIONS)
    if isinstance(power, Unknown):
        unpaid = "; what is paid for it is in none of the figures" if space.plan.pays_for_energy else ""
        note(CaveatKind.ENERGY_UNKNOWN, reason=power.reason + unpaid)
    if space.plan.device_hour_usd <= 0:
        note(CaveatKind.UNPRICED)
    searched = {d.knob.name for d in space.dimensions}
    wanted = {name for name, value in EXPERT_WISHES.items() if getattr(space.baseline, name) != value}
    if left_out := [name for name in EXPERT_WISHES if name in wanted - searched]:
        note(CaveatKind.EXPERT_PARTIAL, knobs=", ".join(left_out))
    return tuple(found)
