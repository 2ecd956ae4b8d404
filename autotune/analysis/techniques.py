"""The effect of each technique by itself: the source's table 4.2, measured (METHOD 6.3). Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from autotune_model.config import TrainingConfig
from autotune_model.knobs import KNOBS, Knob, KnobClass

from autotune.analysis.attribution import judge
from autotune.analysis.claims import (
    Claim,
    adoption_cost,
    economics_of,
    plan_tokens_of,
    speed_of,
    sum_of,
)
from autotune.analysis.evidence import BASELINE, CLAIM, LEVEL, WINNER, Calibration, Effect, changed, effects_of
from autotune.analysis.exploration import explored_effect
from autotune.analysis.power import power_of
from autotune.analysis.rates import KnownSpread, as_ratio, interval_over_restarts
from autotune.analysis.recommendation import TechniqueEffect, TechniqueVerdict
from autotune.analysis.roi import break_even_seconds
from autotune.quantity import Interval, Quantity, Unknown
from autotune.space.limits import Pruned
from autotune.space.moves import turned_back
from autotune.space.space import Dimension, SearchSpace
from autotune.trial.types import Infeasible, Stage, TrialRecord, outcome_reason


def without(config: TrainingConfig, baseline: TrainingConfig) -> dict[str, TrainingConfig]:
    """`config` with one changed knob at a time back at the baseline, by label, where such a combination can exist.

    A knob that others depend on takes them along. What is left out together is listed once, under the first.
    """
    return {label: variant for variant, label in _labels(config, baseline).items()}


def label_without(config: TrainingConfig, baseline: TrainingConfig, name: str) -> str:
    """The label under which `without` lists `config` without the knob; empty where it does not."""
    variant = next(turned_back(config, name, baseline), None)
    return "" if variant is None else _labels(config, baseline)[variant]


def _labels(config: TrainingConfig, baseline: TrainingConfig) -> dict[TrainingConfig, str]:
    labels: dict[TrainingConfig, str] = {}
    for name in changed(config, baseline):
        variant = next(turned_back(config, name, baseline), None)
        if variant is not None:
            labels.setdefault(variant, f"without {name}")
    return labels


def technique_effects(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    *,
    adopted: TrainingConfig,
    search_seconds: float,
) -> tuple[TechniqueEffect, ...]:
    """One row for every searched knob: measured where it is part of `claim`, else the reason why not.

    `adopted` is the configuration that is to be recommended: a knob that was dropped from it is neutral.
    """
    return tuple(
        _effect(space, records, calibration, claim, adopted, dimension, search_seconds)
        for dimension in space.dimensions
    )


def not_measurable(space: SearchSpace, pruned: Sequence[Pruned]) -> tuple[TechniqueEffect, ...]:
    """A row for every knob of which no value was left to try on this machine, with the reasons."""
    searched = {d.knob.name for d in space.dimensions}
    rows = []
    for name in dict.fromkeys(p.knob for p in pruned if p.knob not in searched):
        knob, value = KNOBS[name], str(getattr(space.baseline, name))
        reasons = dict.fromkeys(f"{p.value}: {p.reason}" for p in pruned if p.knob == name)
        none = Unknown(reason=f"not measurable here: {'; '.join(reasons)}")
        rows.append(
            TechniqueEffect(
                name=name,
                title=knob.title,
                section=knob.technique,
                knob_class=knob.knob_class,
                complexity=int(knob.complexity),
                baseline_value=value,
                value=value,
                speed_effect=none,
                quality_effect=none,
                saving=none,
                roi=none,
                break_even_tokens=none,
                verdict=TechniqueVerdict.NOT_MEASURED,
                reason=none.reason,
            )
        )
    return tuple(rows)


def is_droppable(technique: TechniqueEffect, floor: float) -> bool:
    """Whether a changed technique has earned no place: it harms, its gain is below the noise floor, or it does not pay.

    `floor` is in log units. An effect that is merely uncertain is kept: it was confirmed with the rest.
    """
    speed, quality, saving = technique.speed_effect, technique.quality_effect, technique.saving
    if isinstance(speed, Unknown) or isinstance(quality, Unknown) or isinstance(saving, Unknown):
        return False
    gain = math.log(speed.estimate * quality.estimate)
    return technique.verdict is TechniqueVerdict.HARMFUL or gain <= floor or saving.estimate <= 0


def _effect(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    adopted: TrainingConfig,
    dimension: Dimension,
    search_seconds: float,
) -> TechniqueEffect:
    knob = dimension.knob
    before = getattr(space.baseline, knob.name)
    after = before if isinstance(claim, Unknown) else getattr(claim.config, knob.name)
    row = TechniqueEffect(
        name=knob.name,
        title=knob.title,
        section=knob.technique,
        knob_class=knob.knob_class,
        complexity=int(knob.complexity),
        baseline_value=str(before),
        value=str(after),
        speed_effect=(unknown := _why_unmeasured(records, claim, knob.name, before, after)),
        quality_effect=unknown,
        saving=unknown,
        roi=unknown,
        break_even_tokens=unknown,
        verdict=TechniqueVerdict.NOT_MEASURED,
        reason=unknown.reason,
    )
    if isinstance(claim, Unknown) or after == before:
        return _explored(row, records, calibration, claim, space, knob, search_seconds)
    speed, quality = _measured(records, calibration, claim, space, knob.name)
    if isinstance(speed, Unknown):
        return _explored(row, records, calibration, claim, space, knob, search_seconds)
    variant = next(turned_back(claim.config, knob.name, space.baseline))
    plan_tokens = plan_tokens_of(space, calibration)
    row = replace(row, speed_effect=_ratio(speed), quality_effect=_ratio(quality))
    for missing in (speed, quality, plan_tokens, claim.total):
        if isinstance(missing, Unknown):
            return replace(row, saving=missing, roi=missing, break_even_tokens=missing, reason=missing.reason)
    return _priced(
        row,
        space=space,
        calibration=calibration,
        claim=claim,
        speed=speed,
        quality=cast(Interval, quality),
        plan_tokens=cast(float, plan_tokens),
        own_seconds=_own_seconds(
            records, space, knob, search_seconds, label_without(claim.config, space.baseline, knob.name)
        ),
        is_adopted=getattr(adopted, knob.name) != before,
        along=changed(claim.config, variant),
    )


def _priced(
    row: TechniqueEffect,
    *,
    space: SearchSpace,
    calibration: Calibration,
    claim: Claim,
    speed: Interval,
    quality: Interval,
    plan_tokens: float,
    own_seconds: float,
    is_adopted: bool,
    along: Mapping[str, object],
) -> TechniqueEffect:
    """The row with what the technique saves on the plan, against what finding and adopting it alone cost."""
    saving, roi, break_even = _worth(
        sum_of(speed, quality),
        math.expm1,
        name=row.name,
        config=claim.config,
        speedup=cast(Interval, claim.total).estimate,
        space=space,
        calibration=calibration,
        plan_tokens=plan_tokens,
        own_seconds=own_seconds,
    )
    floor = calibration.floor(max(1, claim.restarts), claim.rounds)
    verdict = judge(
        speed=speed,
        quality=quality,
        net_saving_low=saving.low,
        net_saving=saving.estimate,
        noise_floor=0.0 if isinstance(floor, Unknown) else floor,
        learning_claimed=not claim.is_hypothesis,
    )
    return replace(
        row,
        saving=saving,
        roi=roi,
        break_even_tokens=break_even,
        verdict=verdict,
        reason=_reason(verdict, is_adopted=is_adopted) + _together(along),
    )


def _worth(
    total: Interval,
    share_saved: Callable[[float], float],
    *,
    name: str,
    config: TrainingConfig,
    speedup: float,
    space: SearchSpace,
    calibration: Calibration,
    plan_tokens: float,
    own_seconds: float,
) -> tuple[Interval, Quantity, Quantity]:
    """Saving over the plan, ROI and break-even in tokens of one technique whose effect is `total`, in log units.

    `share_saved` makes of it the share of the plan's time at a log speed-up of `speedup`: what leaving the
    technique out would add, or what taking it in would save.
    """
    economics = economics_of(
        space,
        calibration,
        config,
        power_of(space.plan, calibration.power),
        plan_tokens=plan_tokens,
        search_seconds=own_seconds,
        compile_seconds=0.0,
    )
    adoption = adoption_cost(space.plan, [name])
    plan_cost = economics.baseline_device_seconds * math.exp(-speedup) * economics.price_per_device_second
    saving = _map(total, lambda x: plan_cost * share_saved(x) - adoption)
    spent = economics.search_cost + adoption
    roi: Quantity = Unknown(reason="it cost nothing")
    if spent > 0:
        roi = _map(saving, lambda x: (x - economics.search_cost) / spent)
    break_even = break_even_seconds(own_seconds, as_ratio(total))
    if isinstance(break_even, Interval):
        break_even = _map(break_even, lambda x: x * calibration.rate.estimate)
    return saving, roi, break_even


def _explored(
    row: TechniqueEffect,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    space: SearchSpace,
    knob: Knob,
    search_seconds: float,
) -> TechniqueEffect:
    """The row with what exploration saw of the knob's best other value; as it is where it saw nothing."""
    seen = explored_effect(records, calibration, space.baseline, knob.name)
    if seen is None:
        return row
    quality = seen.quality
    if knob.knob_class is KnobClass.SYSTEM:  # it computes the same, or its gate would have excluded it
        quality = Interval(estimate=0.0, low=0.0, high=0.0, level=LEVEL)
    row = replace(
        row,
        value=str(getattr(seen.config, knob.name)),
        speed_effect=_ratio(seen.speed),
        quality_effect=_ratio(quality),
        verdict=TechniqueVerdict.EXPLORED,
        reason=(
            "one process and one seed, not confirmed"
            if row.value == row.baseline_value
            else "confirmed with the rest; what is its own was seen on one process and one seed"
        )
        + _together(seen.along),
    )
    plan_tokens = plan_tokens_of(space, calibration)
    missing = seen.speed if isinstance(seen.speed, Unknown) else plan_tokens
    if knob.knob_class is KnobClass.LEARNING:
        missing = Unknown(reason="what it does at the tested horizon is not carried to the plan unconfirmed")
    if isinstance(missing, Unknown):
        return replace(row, saving=missing, roi=missing, break_even_tokens=missing)
    total = cast(Interval, seen.speed)
    if isinstance(quality, Interval):
        total = sum_of(total, quality)
    known = 0.0 if isinstance(claim, Unknown) or isinstance(claim.total, Unknown) else claim.total.estimate
    saving, roi, break_even = _worth(
        total,
        lambda x: -math.expm1(-x),
        name=row.name,
        config=seen.config,
        speedup=known if row.value == row.baseline_value else 0.0,
        space=space,
        calibration=calibration,
        plan_tokens=cast(float, plan_tokens),
        own_seconds=_own_seconds(records, space, knob, search_seconds, f"without {knob.name}"),
    )
    return replace(row, saving=saving, roi=roi, break_even_tokens=break_even)


def _own_seconds(
    records: Sequence[TrialRecord], space: SearchSpace, knob: Knob, search_seconds: float, label: str
) -> float:
    """What finding out about one knob cost: its share of the exploration, and the runs without it."""
    learning = knob.knob_class is KnobClass.LEARNING
    stage = Stage.EXPLORE_LEARNING if learning else Stage.EXPLORE_SYSTEM
    peers = [d for d in space.dimensions if (d.knob.knob_class is KnobClass.LEARNING) == learning]
    explored = sum(r.costs.total_seconds for r in records if r.spec.stage is stage)
    left_out = sum(r.costs.total_seconds for r in records if r.spec.label == label)
    return min(search_seconds, explored / len(peers) + left_out)


def _why_unmeasured(
    records: Sequence[TrialRecord], claim: Claim | Unknown, name: str, before: object, after: object
) -> Unknown:
    if isinstance(claim, Unknown):
        return Unknown(reason="no configuration was confirmed")
    if after != before:
        return Unknown(reason="not measured yet")
    tried = {getattr(r.spec.config, name) for r in records} - {before}
    return Unknown(reason=_not_part(len(tried), claim, records, name))


def _not_part(tried: int, claim: Claim, records: Sequence[TrialRecord], name: str) -> str:
    winner = next((r.spec.config for r in records if r.spec.label == WINNER), claim.config)
    if getattr(winner, name) != getattr(claim.config, name):
        return "its gain at the tested horizon is a hypothesis at the plan's"
    if reasons := _why_infeasible(records, name, getattr(claim.config, name)):
        return f"not measurable here: {reasons}"
    if tried:
        return f"the best configuration keeps the baseline's value; {tried} other value(s) were tried"
    return "the search ended before another value was tried"


def _why_infeasible(records: Sequence[TrialRecord], name: str, before: object) -> str:
    """Why each other value of a knob could not be used, where none could."""
    tried = [r for r in records if getattr(r.spec.config, name) != before]
    if any(not isinstance(r.outcome, Infeasible) for r in tried):
        return ""
    return "; ".join(dict.fromkeys(f"{getattr(r.spec.config, name)}: {outcome_reason(r.outcome)}" for r in tried))


def _together(along: Mapping[str, object]) -> str:
    """The values that depend on each other and were turned together, where there are several."""
    return f"; {', '.join(f'{name}={value}' for name, value in along.items())} together" if len(along) > 1 else ""


def _reason(verdict: TechniqueVerdict, *, is_adopted: bool) -> str:
    if not is_adopted:
        return "left out: the configuration was confirmed jointly without it"
    match verdict:
        case TechniqueVerdict.ADOPT:
            return "pays by itself"
        case TechniqueVerdict.NEUTRAL:
            return "no effect above the noise floor, or none that pays; kept because it was confirmed with the rest"
        case TechniqueVerdict.HARMFUL:
            return "better without it; kept only because nothing without it was confirmed"
        case TechniqueVerdict.HYPOTHESIS | TechniqueVerdict.EXPLORED | TechniqueVerdict.NOT_MEASURED:
            return ""


def _measured(
    records: Sequence[TrialRecord], calibration: Calibration, claim: Claim, space: SearchSpace, name: str
) -> tuple[Interval | Unknown, Interval | Unknown]:
    """What having the technique does to speed and to token efficiency, in log units."""
    if len(changed(claim.config, space.baseline)) == 1:
        return claim.speed, claim.efficiency  # the only technique: its effect is the whole
    attribution = [r for r in records if r.spec.stage is Stage.ATTRIBUTE]
    effects = effects_of(
        attribution, CLAIM, against=label_without(claim.config, space.baseline, name), curve=calibration.curve
    )
    if not effects:
        none = Unknown(reason="the budget ended before it could be left out")
        return none, none
    return speed_of(effects, calibration), _quality(effects, records, calibration, claim)


def _quality(
    effects: Sequence[Effect], records: Sequence[TrialRecord], calibration: Calibration, claim: Claim
) -> Interval | Unknown:
    values = []
    for effect in effects:
        if isinstance(effect.efficiency, Unknown):
            return effect.efficiency
        values.append(effect.efficiency.value)
    confirmation = [r for r in records if r.spec.stage is Stage.CONFIRM]
    seen = [
        e.efficiency.value
        for e in effects_of(confirmation, claim.label, against=BASELINE, curve=calibration.curve)
        if not isinstance(e.efficiency, Unknown)
    ]
    known = KnownSpread(variance=statistics.variance(seen), degrees_of_freedom=len(seen) - 1) if len(seen) > 1 else None
    return interval_over_restarts(values, LEVEL, known)


def _ratio(value: Interval | Unknown) -> Quantity:
    return value if isinstance(value, Unknown) else as_ratio(value)


def _map(value: Interval, function: Callable[[float], float]) -> Interval:
    """An increasing function of an interval."""
    return Interval(
        estimate=function(value.estimate), low=function(value.low), high=function(value.high), level=value.level
    )
