"""From the records of a study to its recommendation: the last step of the method. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from autotune_model.config import TrainingConfig
from autotune_model.knobs import KnobClass

from autotune.analysis.caveats import Circumstances, caveats_of, floor_for
from autotune.analysis.claims import (
    Claim,
    choose,
    claim_of,
    economics_of,
    forecast_of,
    plan_tokens_of,
    speed_of,
    total_of,
)
from autotune.analysis.evidence import (
    BASELINE,
    EXPERT,
    LEVEL,
    REDUCED,
    SYSTEM_PART,
    WINNER,
    Calibration,
    Effect,
    changed,
    effects_of,
    of_stage,
)
from autotune.analysis.footprint import footprint_of
from autotune.analysis.montecarlo import Economics, Forecast
from autotune.analysis.power import Power, measured_power, power_of
from autotune.analysis.rates import as_ratio, interval_over_restarts, paired_speed
from autotune.analysis.recommendation import (
    Comparison,
    Contender,
    NetSaving,
    Recommendation,
    Roi,
    SearchCost,
    TrialSummary,
    Verdict,
)
from autotune.analysis.roi import break_even_seconds
from autotune.analysis.techniques import not_measurable, technique_effects
from autotune.quantity import Interval, Quantity, Unknown
from autotune.space.space import SearchSpace
from autotune.trial.types import (
    Stage,
    StageEnd,
    TrialRecord,
    outcome_kind,
    outcome_reason,
)

_HOUR_SECONDS = 3600.0
_RUNNERS_UP = 5
_NORMAL_QUANTILE = statistics.NormalDist().inv_cdf(0.5 + LEVEL / 2)


def confirmed_claims(space: SearchSpace, records: Sequence[TrialRecord], calibration: Calibration) -> tuple[Claim, ...]:
    """What confirmation says of the winner and of its system part, boldest first; empty where none was confirmed."""
    plan_tokens = plan_tokens_of(space, calibration)
    if isinstance(plan_tokens, Unknown):
        return ()
    confirmation = of_stage(records, Stage.CONFIRM)
    configs = {r.spec.label: r.spec.config for r in confirmation}
    return tuple(
        claim_of(
            label,
            configs[label],
            effects_of(confirmation, label, against=BASELINE, curve=calibration.curve),
            space,
            calibration,
            plan_tokens,
        )
        for label in (WINNER, SYSTEM_PART)
        if label in configs
    )


def reduced_claim(space: SearchSpace, records: Sequence[TrialRecord], calibration: Calibration) -> Claim | Unknown:
    """What the joint confirmation of the winner without its idle techniques says."""
    plan_tokens = plan_tokens_of(space, calibration)
    attribution = _joint_confirmation(records)
    configs = [r.spec.config for r in attribution if r.spec.label == REDUCED]
    if isinstance(plan_tokens, Unknown) or not configs:
        return Unknown(reason="nothing was left out")
    effects = effects_of(attribution, REDUCED, against=BASELINE, curve=calibration.curve)
    return claim_of(REDUCED, configs[0], effects, space, calibration, plan_tokens)


def _power(
    space: SearchSpace, records: Sequence[TrialRecord], calibration: Calibration, claim: Claim | Unknown
) -> Power | Unknown:
    """What the claimed configuration draws beside the baseline in the blocks that confirmed it.

    Where nothing is claimed, what the baseline draws beside itself.
    """
    if isinstance(claim, Unknown):
        return power_of(space.plan, calibration.power)
    confirming = _joint_confirmation(records) if claim.label == REDUCED else of_stage(records, Stage.CONFIRM)
    claimed = [r for r in confirming if r.spec.label == claim.label and r.is_complete]
    return power_of(space.plan, measured_power(claimed, level=LEVEL))


def _joint_confirmation(records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """The blocks in which the reduced configuration ran beside the baseline and the expert default."""
    together = (BASELINE, REDUCED, EXPERT)
    return tuple(r for r in of_stage(records, Stage.ATTRIBUTE) if r.spec.label in together)


def forecast_for(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    search_seconds: float,
) -> Forecast | Unknown:
    """The plan with the claimed configuration after `search_seconds` of search."""
    economics = _economics(space, records, calibration, claim, search_seconds)
    if isinstance(claim, Unknown) or isinstance(economics, Unknown):
        return claim if isinstance(claim, Unknown) else Unknown(reason="the plan's length is not known")
    return forecast_of(claim, economics)


def conclude(
    space: SearchSpace, records: Sequence[TrialRecord], calibration: Calibration, facts: Circumstances
) -> Recommendation:
    """The recommendation that the records support, or the honest absence of one."""
    claims = confirmed_claims(space, records, calibration)
    whole = choose(claims)
    reduced = reduced_claim(space, records, calibration)
    claim = _simpler(whole, reduced, calibration)
    economics = _economics(space, records, calibration, claim, facts.search_seconds)
    forecast = forecast_for(space, records, calibration, claim, facts.search_seconds)
    power = _power(space, records, calibration, claim)
    verdict = _verdict(claim, forecast, calibration, facts, claims, records)
    candidate = space.baseline if isinstance(claim, Unknown) else claim.config
    techniques = technique_effects(
        space, records, calibration, whole, adopted=candidate, search_seconds=facts.search_seconds
    ) + not_measurable(space, facts.pruned)
    hypothesis = next((c for c in claims if c.is_hypothesis), None)
    plan_tokens = plan_tokens_of(space, calibration)
    return Recommendation(
        verdict=verdict,
        baseline=space.baseline,
        expert_default=facts.expert,
        candidate=candidate,
        recommended=candidate if verdict is Verdict.ADOPT else space.baseline,
        over_baseline=_over_baseline(claim),
        over_expert=_over_expert(space, records, calibration, claim, facts.expert),
        plan=space.plan,
        plan_tokens=_exactly(plan_tokens) if isinstance(plan_tokens, float) else plan_tokens,
        baseline_tokens_per_second=calibration.rate,
        baseline_hours=_baseline_hours(economics),
        recommended_hours=_recommended_hours(verdict, economics, forecast),
        baseline_footprint=footprint_of(records, space.baseline, facts.peak_flops),
        candidate_footprint=footprint_of(records, candidate, facts.peak_flops),
        net_saving=_net_saving(space, calibration, claim, forecast, power, facts.search_seconds),
        roi=_roi(forecast),
        break_even_tokens=_break_even(calibration, claim, facts.search_seconds),
        search_cost=_search_cost(economics, records, facts),
        noise_floor=_floor_ratio(calibration, claim),
        curve=calibration.curve,
        techniques=techniques,
        hypotheses={} if hypothesis is None else _learned(hypothesis.config, space.baseline),
        hypothesis_efficiency=_hypothesis_efficiency(hypothesis),
        noise_scales=calibration.noise_scales,
        runners_up=_runners_up(records, calibration, candidate),
        trials=tuple(_summary(r, calibration) for r in records),
        environment=facts.environment,
        caveats=caveats_of(space, records, calibration, claim, claims, facts, power),
    )


def _simpler(whole: Claim | Unknown, reduced: Claim | Unknown, calibration: Calibration) -> Claim | Unknown:
    """The reduced configuration where, confirmed jointly, it is not worse than the whole by more than the floor."""
    if isinstance(whole, Unknown) or isinstance(reduced, Unknown):
        return whole
    if reduced.is_hypothesis or isinstance(reduced.total, Unknown) or isinstance(whole.total, Unknown):
        return whole
    floor = floor_for(calibration, reduced)
    slack = 0.0 if isinstance(floor, Unknown) else floor
    return reduced if reduced.total.estimate >= whole.total.estimate - slack else whole


def _verdict(
    claim: Claim | Unknown,
    forecast: Forecast | Unknown,
    calibration: Calibration,
    facts: Circumstances,
    claims: Sequence[Claim],
    records: Sequence[TrialRecord],
) -> Verdict:
    """Adopt only what surely pays and exceeds the noise floor; inconclusive where nothing could be confirmed."""
    if isinstance(claim, Unknown) or isinstance(claim.total, Unknown) or isinstance(forecast, Unknown):
        hypotheses_only = bool(claims) and all(c.is_hypothesis for c in claims)
        return Verdict.KEEP_BASELINE if hypotheses_only or _nothing_better(records, facts) else Verdict.INCONCLUSIVE
    floor = floor_for(calibration, claim)
    shown = claim.total.low > 0 and (isinstance(floor, Unknown) or claim.total.estimate > floor)
    return Verdict.ADOPT if shown and forecast.net.low > 0 else Verdict.KEEP_BASELINE


def _nothing_better(records: Sequence[TrialRecord], facts: Circumstances) -> bool:
    """Whether other configurations were looked at, or not worth a look, and none came out ahead of the baseline."""
    explored = [r for r in records if r.spec.stage in (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING)]
    not_worth_it = StageEnd.NOT_WORTH_IT in facts.stage_ends.values()
    return (bool(explored) or not_worth_it) and not of_stage(records, Stage.CONFIRM)


def _economics(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    search_seconds: float,
) -> Economics | Unknown:
    plan_tokens = plan_tokens_of(space, calibration)
    if isinstance(plan_tokens, Unknown):
        return plan_tokens
    config = space.baseline if isinstance(claim, Unknown) else claim.config
    compiling = [r.costs.compile_seconds for r in records if r.spec.config == config and r.is_complete]
    return economics_of(
        space,
        calibration,
        config,
        _power(space, records, calibration, claim),
        plan_tokens=plan_tokens,
        search_seconds=search_seconds,
        compile_seconds=statistics.median(compiling) if compiling else 0.0,
    )


def _over_baseline(claim: Claim | Unknown) -> Comparison:
    if isinstance(claim, Unknown):
        return Comparison(speedup=claim, throughput=claim, token_efficiency=claim)
    return Comparison(
        speedup=_ratio(claim.total), throughput=_ratio(claim.speed), token_efficiency=_ratio(claim.efficiency)
    )


def _over_expert(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    calibration: Calibration,
    claim: Claim | Unknown,
    expert: TrainingConfig,
) -> Comparison:
    """The claimed configuration against the expert default, from the blocks in which both ran side by side.

    At the tested horizon: what either learns is not carried to the plan here.
    """
    if isinstance(claim, Unknown):
        return Comparison(speedup=claim, throughput=claim, token_efficiency=claim)
    if expert == space.baseline:
        return _over_baseline(claim)
    confirmation = _joint_confirmation(records) if claim.label == REDUCED else of_stage(records, Stage.CONFIRM)
    twin = next((r.spec.label for r in confirmation if r.spec.config == claim.config), "")
    theirs = next((r.spec.label for r in confirmation if r.spec.config == expert), "")
    if claim.config == expert:
        same = Interval(estimate=1.0, low=1.0, high=1.0, level=LEVEL)
        return Comparison(speedup=same, throughput=same, token_efficiency=same)
    if not twin or not theirs:
        none = Unknown(reason="it was not confirmed beside the expert default")
        return Comparison(speedup=none, throughput=none, token_efficiency=none)
    horizon = space.workload.horizon_tokens
    effects = [
        e
        for e in effects_of(confirmation, twin, against=theirs, curve=calibration.curve)
        if e.horizon_tokens == horizon
    ]
    speed = speed_of(effects, calibration)
    quality = _efficiency_over(effects)
    total = total_of(effects, calibration)
    return Comparison(speedup=_ratio(total), throughput=_ratio(speed), token_efficiency=_ratio(quality))


def _efficiency_over(effects: Sequence[Effect]) -> Interval | Unknown:
    values = []
    for effect in effects:
        if isinstance(effect.efficiency, Unknown):
            return effect.efficiency
        values.append(effect.efficiency.value)
    return interval_over_restarts(values, LEVEL)


def _net_saving(
    space: SearchSpace,
    calibration: Calibration,
    claim: Claim | Unknown,
    forecast: Forecast | Unknown,
    power: Power | Unknown,
    search_seconds: float,
) -> NetSaving:
    unknown = claim if isinstance(claim, Unknown) else Unknown(reason="the plan's saving could not be foreseen")
    saving = NetSaving(
        seconds_per_step=unknown,
        hours=unknown,
        money=unknown,
        kwh=unknown,
        baseline_watts=power if isinstance(power, Unknown) else as_ratio(power.baseline),
        candidate_watts=power if isinstance(power, Unknown) else as_ratio(power.candidate),
        energy_provenance=power.reason if isinstance(power, Unknown) else power.provenance,
    )
    if isinstance(claim, Unknown):
        return replace(saving, candidate_watts=claim)
    if isinstance(forecast, Unknown):
        return saving
    step_tokens = space.baseline.global_batch * space.workload.gpt.sequence_length
    step_seconds = step_tokens / calibration.rate.estimate
    return replace(
        saving,
        seconds_per_step=_mapped(claim.total, lambda x: step_seconds * -math.expm1(-x)),
        hours=_mapped(forecast.saved_device_seconds, lambda x: (x - search_seconds) / _HOUR_SECONDS),
        money=forecast.net,
        kwh=forecast.kwh,
    )


def _roi(forecast: Forecast | Unknown) -> Roi:
    if isinstance(forecast, Unknown):
        return Roi(ratio=forecast, probability_positive=0.0)
    return Roi(ratio=forecast.roi, probability_positive=forecast.probability_positive)


def _break_even(calibration: Calibration, claim: Claim | Unknown, search_seconds: float) -> Quantity:
    """Tokens of plan, all runs together, from which the search has paid."""
    if isinstance(claim, Unknown) or isinstance(claim.total, Unknown):
        return claim if isinstance(claim, Unknown) else Unknown(reason="the speed-up is not known")
    seconds = break_even_seconds(search_seconds, as_ratio(claim.total))
    return seconds if isinstance(seconds, Unknown) else _scaled(seconds, calibration.rate.estimate)


def _baseline_hours(economics: Economics | Unknown) -> Quantity:
    if isinstance(economics, Unknown):
        return economics
    hours, half = economics.baseline_device_seconds / _HOUR_SECONDS, _NORMAL_QUANTILE * economics.baseline_log_sd
    return Interval(estimate=hours, low=hours * math.exp(-half), high=hours * math.exp(half), level=LEVEL)


def _recommended_hours(verdict: Verdict, economics: Economics | Unknown, forecast: Forecast | Unknown) -> Quantity:
    if verdict is not Verdict.ADOPT or isinstance(forecast, Unknown):
        return _baseline_hours(economics)
    return _scaled(forecast.plan_device_seconds, 1.0 / _HOUR_SECONDS)


def _search_cost(economics: Economics | Unknown, records: Sequence[TrialRecord], facts: Circumstances) -> SearchCost:
    costs = [r.costs for r in records]
    activities = {
        "stepping candidates": sum(c.step_seconds for c in costs),
        "stepping the reference": sum(c.reference_step_seconds for c in costs),
        "opening sessions": sum(c.open_seconds for c in costs),
        "compiling": sum(c.compile_seconds for c in costs),
        "evaluating": sum(c.evaluate_seconds for c in costs),
    }
    activities["everything else"] = max(0.0, facts.search_seconds - sum(activities.values()))
    return SearchCost(
        total_seconds=facts.search_seconds,
        money=0.0 if isinstance(economics, Unknown) else economics.search_cost,
        adoption_money=0.0 if isinstance(economics, Unknown) else economics.adoption_cost,
        seconds_by_stage=facts.seconds_by_stage,
        seconds_by_activity=activities,
    )


def _floor_ratio(calibration: Calibration, claim: Claim | Unknown) -> Quantity:
    floor = floor_for(calibration, claim)
    return floor if isinstance(floor, Unknown) else _exactly(math.expm1(floor))


def _learned(config: TrainingConfig, baseline: TrainingConfig) -> dict[str, str]:
    return {name: str(value) for name, value in changed(config, baseline, KnobClass.LEARNING).items()}


def _hypothesis_efficiency(claim: Claim | None) -> Quantity:
    return Unknown(reason="there is no hypothesis") if claim is None else _ratio(claim.efficiency)


def _runners_up(
    records: Sequence[TrialRecord], calibration: Calibration, candidate: TrainingConfig
) -> tuple[Contender, ...]:
    """What exploration and race found good beside the candidate: exploratory figures, of speed alone."""
    groups: dict[TrainingConfig, list[TrialRecord]] = {}
    for record in records:
        if record.spec.stage in (Stage.EXPLORE_SYSTEM, Stage.RACE) and record.spec.config != candidate:
            groups.setdefault(record.spec.config, []).append(record)
    found = []
    for config, group in groups.items():
        ratio = _throughput_ratio(group[-1], calibration)
        if group[-1].reference_slices and isinstance(ratio, Interval):
            numbers = tuple(r.spec.number for r in group)
            found.append(Contender(label=group[-1].spec.label, config=config, speedup=ratio, trial_numbers=numbers))
    found.sort(key=lambda c: -c.speedup.estimate if isinstance(c.speedup, Interval) else 0.0)
    return tuple(found[:_RUNNERS_UP])


def _throughput_ratio(record: TrialRecord, calibration: Calibration) -> Quantity:
    """One record's rate over its partner's; the interval has the spread between processes in it (METHOD 3.5)."""
    speed = paired_speed(record.slices, record.reference_slices)
    if isinstance(speed, Unknown):
        return speed
    noise = calibration.noise
    processes = 0.0 if isinstance(noise, Unknown) else 2.0 * noise.between
    half = _NORMAL_QUANTILE * math.sqrt(speed.stderr**2 + processes)
    return as_ratio(Interval(estimate=speed.centre, low=speed.centre - half, high=speed.centre + half, level=LEVEL))


def _summary(record: TrialRecord, calibration: Calibration) -> TrialSummary:
    loss: Quantity = Unknown(reason="it was not evaluated")
    if record.evaluations:
        last = record.evaluations[-1]
        half = _NORMAL_QUANTILE * last.stderr
        loss = Interval(estimate=last.loss, low=last.loss - half, high=last.loss + half, level=LEVEL)
    return TrialSummary(
        number=record.spec.number,
        stage=record.spec.stage.value,
        label=record.spec.label,
        outcome=outcome_kind(record.outcome),
        reason=outcome_reason(record.outcome),
        throughput_ratio=_throughput_ratio(record, calibration),
        loss=loss,
        cost_seconds=record.costs.total_seconds,
    )


def _ratio(value: Interval | Unknown) -> Quantity:
    return value if isinstance(value, Unknown) else as_ratio(value)


def _exactly(value: float) -> Interval:
    return Interval(estimate=value, low=value, high=value, level=1.0)


def _scaled(value: Interval, factor: float) -> Interval:
    return Interval(
        estimate=value.estimate * factor, low=value.low * factor, high=value.high * factor, level=value.level
    )


def _mapped(value: Interval | Unknown, function: Callable[[float], float]) -> Quantity:
    """An increasing function of an interval."""
    if isinstance(value, Unknown):
        return value
    return Interval(
        estimate=function(value.estimate), low=function(value.low), high=function(value.high), level=value.level
    )
