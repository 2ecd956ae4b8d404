"""The effect of each technique alone: measured, priced and judged (docs/method.md, 6.3). Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotune.analysis.attribution import judge
from autotune.analysis.case import Case
from autotune.analysis.claims import Claim, efficiency_of, speed_of
from autotune.analysis.evidence import BASELINE, CLAIM, LEVEL, WINNER, Effect, effects_of
from autotune.analysis.exploration import explored_effect
from autotune.analysis.rates import KnownSpread, as_ratio
from autotune.analysis.recommendation import TechniqueEffect, TechniqueVerdict
from autotune.analysis.roi import break_even_seconds
from autotune.quantity import Interval, Quantity, Unknown, all_known, combine, first_unknown, only_known, or_else
from autotune.space.configuration import Configuration
from autotune.space.knobs import Knob, KnobClass
from autotune.trial.types import Infeasible, Stage, outcome_reason
from autotune.workload.space import SearchSpace


def without(space: SearchSpace, config: Configuration) -> dict[str, Configuration]:
    """Ablations: `config` with one changed knob reset to the baseline, by label, where that combination is valid.

    Knobs that depend on it are reset with it. Knobs that are reset together are listed once, under the first.
    """
    return {label: variant for variant, label in _labels(space, config).items()}


def label_without(space: SearchSpace, config: Configuration, name: str) -> str:
    """The label of the ablation of knob `name` in `without`; empty if there is none."""
    variant = next(space.turned_back(config, name), None)
    return "" if variant is None else _labels(space, config)[variant]


def _labels(space: SearchSpace, config: Configuration) -> dict[Configuration, str]:
    labels: dict[Configuration, str] = {}
    for name in space.changed(config):
        variant = next(space.turned_back(config, name), None)
        if variant is not None:
            labels.setdefault(variant, f"without {name}")
    return labels


def technique_effects(case: Case) -> tuple[TechniqueEffect, ...]:
    """One row per searched knob: its effect if it is part of the confirmed configuration, else the reason why not."""
    return tuple(_effect(case, dimension.knob) for dimension in case.space.dimensions)


def not_measurable(case: Case) -> tuple[TechniqueEffect, ...]:
    """One row, with the reasons, per knob that has no value left to try on this machine."""
    searched = {d.knob.name for d in case.space.dimensions}
    rows = []
    for name in dict.fromkeys(p.knob for p in case.facts.pruned if p.knob not in searched):
        value = case.baseline[name]
        reasons = dict.fromkeys(f"{p.value}: {p.reason}" for p in case.facts.pruned if p.knob == name)
        why = Unknown(reason=f"not measurable here: {'; '.join(reasons)}")
        rows.append(_unmeasured(case.space.workload.knobs[name], value, value, why))
    return tuple(rows)


def is_droppable(technique: TechniqueEffect, floor: float) -> bool:
    """Whether to drop a changed technique: it is harmful, its gain is below the noise floor, or it does not pay.

    `floor` is in log units. A technique whose effect is merely uncertain is kept: it was confirmed with the rest.
    """
    known = all_known((technique.speed_effect, technique.quality_effect, technique.saving))
    if isinstance(known, Unknown):
        return False
    speed, quality, saving = known
    gain = math.log(speed.estimate * quality.estimate)
    return technique.verdict is TechniqueVerdict.HARMFUL or gain <= floor or saving.estimate <= 0


def _effect(case: Case, knob: Knob) -> TechniqueEffect:
    whole, before = case.whole, case.baseline[knob.name]
    after = before if isinstance(whole, Unknown) else whole.config[knob.name]
    row = _unmeasured(knob, before, after, _why_unmeasured(case, knob.name, after))
    if isinstance(whole, Unknown) or after == before:
        return _explored(row, case, knob)
    speed, quality = _measured(case, whole, knob.name)
    if isinstance(speed, Unknown):
        return _explored(row, case, knob)
    row = replace(row, speed_effect=as_ratio(speed), quality_effect=as_ratio(quality))
    own_seconds = _own_seconds(case, knob, label_without(case.space, whole.config, knob.name))
    worth = combine(
        lambda effect, total: _worth(
            case, knob.name, whole.config, effect, math.expm1, speedup=total.estimate, own_seconds=own_seconds
        ),
        combine(Interval.plus, speed, quality),
        whole.total,
    )
    if isinstance(worth, Unknown) or isinstance(quality, Unknown):
        missing = first_unknown(quality, case.plan_tokens, worth) or Unknown(reason="it cannot be priced")
        return replace(row, saving=missing, roi=missing, break_even_tokens=missing, reason=missing.reason)
    verdict = judge(
        speed=speed,
        quality=quality,
        net_saving_low=worth.saving.low,
        net_saving=worth.saving.estimate,
        noise_floor=or_else(case.calibration.floor(max(1, whole.restarts), whole.rounds), 0.0),
        learning_claimed=not whole.is_expected,
    )
    variant = next(case.space.turned_back(whole.config, knob.name))
    reason = _reason(verdict, is_adopted=case.candidate[knob.name] != before)
    return replace(
        row,
        saving=worth.saving,
        roi=worth.roi,
        break_even_tokens=worth.break_even_tokens,
        verdict=verdict,
        reason=reason + _together(case.space.changed(whole.config, base=variant)),
    )


def _unmeasured(knob: Knob, before: object, after: object, why: Unknown) -> TechniqueEffect:
    return TechniqueEffect(
        name=knob.name,
        title=knob.title,
        section=knob.technique,
        knob_class=knob.knob_class,
        complexity=int(knob.complexity),
        baseline_value=str(before),
        value=str(after),
        speed_effect=why,
        quality_effect=why,
        saving=why,
        roi=why,
        break_even_tokens=why,
        verdict=TechniqueVerdict.NOT_MEASURED,
        reason=why.reason,
    )


# -- what it does ------------------------------------------------------------------------------------


def _measured(case: Case, whole: Claim, name: str) -> tuple[Interval | Unknown, Interval | Unknown]:
    """The effect of having the technique on speed and token efficiency, in log units."""
    if len(case.space.changed(whole.config)) == 1:
        return whole.speed, whole.efficiency  # the only technique: its effect is the whole
    left_out = label_without(case.space, whole.config, name)
    effects = effects_of(case.of_stage(Stage.ATTRIBUTE), CLAIM, against=left_out, curve=case.calibration.curve)
    if not effects:
        none = Unknown(reason="the budget ended before its ablation")
        return none, none
    return speed_of(effects, case.calibration), _quality(case, whole, name, effects)


def _quality(case: Case, whole: Claim, name: str, effects: Sequence[Effect]) -> Interval | Unknown:
    """The effect on token efficiency: measured where learning knobs change.

    Elsewhere a system knob has none, and that of precision is the confirmed one of the whole.
    """
    if case.space.changed(whole.config, KnobClass.LEARNING):
        return efficiency_of(effects, _seed_spread(case, whole))
    if case.space.workload.knobs[name].knob_class is KnobClass.SYSTEM:
        return Interval.exactly(0.0, level=LEVEL)
    return whole.efficiency


def _seed_spread(case: Case, whole: Claim) -> KnownSpread | None:
    """The spread of the confirmed efficiency between seeds."""
    confirmed = effects_of(case.confirmation, whole.label, against=BASELINE, curve=case.calibration.curve)
    seen = [e.value for e in only_known(e.efficiency for e in confirmed)]
    return KnownSpread(variance=statistics.variance(seen), degrees_of_freedom=len(seen) - 1) if len(seen) > 1 else None


def _explored(row: TechniqueEffect, case: Case, knob: Knob) -> TechniqueEffect:
    """The row with the exploratory effect of the knob's best other value; unchanged if there is none."""
    seen = explored_effect(case, knob.name)
    if seen is None:
        return row
    # A system knob computes the same, or the equivalence gate would have excluded it.
    computes_the_same = knob.knob_class is KnobClass.SYSTEM
    quality = Interval.exactly(0.0, level=LEVEL) if computes_the_same else seen.quality
    if knob.knob_class is KnobClass.LEARNING and case.is_starved:
        quality = Unknown(reason="trials too short: they measure the area under the learning-rate schedule")
    is_part = row.value != row.baseline_value
    row = replace(
        row,
        value=str(seen.config[knob.name]),
        speed_effect=as_ratio(seen.speed),
        quality_effect=as_ratio(quality),
        verdict=TechniqueVerdict.EXPLORED,
        reason=(
            "confirmed with the rest; its own effect was seen in one process on one seed"
            if is_part
            else "seen in one process on one seed, not confirmed"
        )
        + _together(seen.along),
    )
    if knob.knob_class is KnobClass.LEARNING:
        tokens = max((seen.tokens for seen in case.learnt.measured), default=case.space.workload.horizon_tokens)
        missing = Unknown(reason=f"no figure for the plan: tested on {tokens:,} tokens at most")
        return replace(row, saving=missing, roi=missing, break_even_tokens=missing)
    own_seconds = _own_seconds(case, knob, f"without {knob.name}")
    worth = combine(
        lambda speed: _worth(
            case,
            knob.name,
            seen.config,
            speed if isinstance(quality, Unknown) else speed.plus(quality),
            lambda effect: -math.expm1(-effect),
            speedup=0.0,  # on the plan at the baseline
            own_seconds=own_seconds,
        ),
        seen.speed,
    )
    if isinstance(worth, Unknown):
        return replace(row, saving=worth, roi=worth, break_even_tokens=worth)
    return replace(row, saving=worth.saving, roi=worth.roi, break_even_tokens=worth.break_even_tokens)


# -- what it is worth --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worth:
    saving: Interval
    roi: Quantity
    break_even_tokens: Quantity


def _worth(
    case: Case,
    name: str,
    config: Configuration,
    effect: Interval,
    share_saved: Callable[[float], float],
    *,
    speedup: float,
    own_seconds: float,
) -> _Worth | Unknown:
    """Saving over the plan, ROI and break-even of one technique, against the cost of finding and adopting it alone.

    `share_saved` converts its `effect`, in log units, to a share of the plan's time at a log speed-up of `speedup`:
    the time that dropping the technique would add, or that adopting it would save.
    """
    economics = case.economics_of(config, power=case.baseline_power, search_seconds=own_seconds)
    if isinstance(economics, Unknown):
        return economics
    adoption = case.adoption_cost([name])
    plan_cost = economics.baseline_device_seconds * math.exp(-speedup) * economics.price_per_device_second
    saving = effect.map(lambda x: plan_cost * share_saved(x) - adoption)
    spent = economics.search_cost + adoption
    roi: Quantity = Unknown(reason="it cost nothing")
    if spent > 0:
        roi = saving.map(lambda x: (x - economics.search_cost) / spent)
    break_even = break_even_seconds(own_seconds, as_ratio(effect))
    return _Worth(saving=saving, roi=roi, break_even_tokens=break_even.scaled(case.calibration.rate.estimate))


def _own_seconds(case: Case, knob: Knob, label: str) -> float:
    """The cost of finding out about one knob: its share of exploration, plus its ablation runs."""
    learning = knob.knob_class is KnobClass.LEARNING
    stage = Stage.EXPLORE_LEARNING if learning else Stage.EXPLORE_SYSTEM
    peers = [d for d in case.space.dimensions if (d.knob.knob_class is KnobClass.LEARNING) == learning]
    explored = sum(r.costs.total_seconds for r in case.records if r.spec.stage is stage)
    left_out = sum(r.costs.total_seconds for r in case.records if r.spec.label == label)
    return min(case.facts.search_seconds, explored / len(peers) + left_out)


# -- why -------------------------------------------------------------------------------------------


def _why_unmeasured(case: Case, name: str, after: object) -> Unknown:
    before = case.baseline[name]
    if isinstance(case.whole, Unknown):
        return Unknown(reason="no configuration was confirmed")
    if after != before:
        return Unknown(reason="not measured yet")
    tried = {r.spec.config[name] for r in case.records} - {before}
    return Unknown(reason=_not_part(case, case.whole, len(tried), name))


def _not_part(case: Case, whole: Claim, tried: int, name: str) -> str:
    winner = next((r.spec.config for r in case.records if r.spec.label == WINNER), whole.config)
    if winner[name] != whole.config[name]:
        return "expected to gain at the plan's length, not shown: see what is expected"
    if reasons := _why_infeasible(case, name):
        return f"not measurable here: {reasons}"
    if tried:
        return f"the best configuration keeps the baseline's value; {tried} other value(s) were tried"
    return "the search ended before another value was tried"


def _why_infeasible(case: Case, name: str) -> str:
    """Why each other value of a knob could not be used; empty if one could."""
    tried = [r for r in case.records if r.spec.config[name] != case.baseline[name]]
    if any(not isinstance(r.outcome, Infeasible) for r in tried):
        return ""
    return "; ".join(dict.fromkeys(f"{r.spec.config[name]}: {outcome_reason(r.outcome)}" for r in tried))


def _together(along: Mapping[str, object]) -> str:
    """A suffix that lists values that were changed together, if there are several."""
    return f"; {', '.join(f'{name}={value}' for name, value in along.items())} together" if len(along) > 1 else ""


def _reason(verdict: TechniqueVerdict, *, is_adopted: bool) -> str:
    if not is_adopted:
        return "left out: the rest was confirmed without it"
    match verdict:
        case TechniqueVerdict.ADOPT:
            return "pays by itself"
        case TechniqueVerdict.NEUTRAL:
            return "no effect above the noise floor, or none that pays; kept because it was confirmed with the rest"
        case TechniqueVerdict.HARMFUL:
            return "better without it; kept only because nothing without it was confirmed"
        case TechniqueVerdict.EXPECTED | TechniqueVerdict.EXPLORED | TechniqueVerdict.NOT_MEASURED:
            return ""
