"""Draws the recommendation from a case: the last step of the method. Pure."""

from __future__ import annotations

import math

from autotune.analysis.case import Case
from autotune.analysis.caveats import caveats_of
from autotune.analysis.choice import Choice
from autotune.analysis.claims import Claim, efficiency_of, speed_of, total_of
from autotune.analysis.decision import Expected
from autotune.analysis.evidence import LEVEL, effects_of, normal_interval
from autotune.analysis.footprint import footprint_of
from autotune.analysis.montecarlo import Economics
from autotune.analysis.rates import as_ratio
from autotune.analysis.recommendation import Batches, Comparison, Expectation, NetSaving, Recommendation, Roi
from autotune.analysis.roi import break_even_seconds
from autotune.analysis.summaries import runners_up, search_cost, trials_of
from autotune.analysis.techniques import not_measurable, technique_effects
from autotune.quantity import Interval, Quantity, Unknown, combine, or_else
from autotune.space.configuration import Configuration

_HOUR_SECONDS = 3600.0


def conclude(case: Case) -> Recommendation:
    """The recommendation that the records support; it may be to keep the baseline."""
    choice = Choice(case=case)
    decision = choice.decision
    return Recommendation(
        decision=decision,
        baseline=case.baseline,
        expert_default=case.facts.expert,
        candidate=case.candidate,
        claimed=case.claimed_config,
        recommended=decision.config if isinstance(decision, Expected) else case.claimed_config,
        knobs=case.space.workload.knobs,
        over_baseline=_over_baseline(case.claim),
        over_expert=_over_expert(case),
        plan=case.space.plan,
        plan_tokens=combine(Interval.exactly, case.plan_tokens),
        baseline_tokens_per_second=case.calibration.rate,
        baseline_hours=combine(_baseline_hours, case.economics),
        claimed_hours=_claimed_hours(case),
        baseline_footprint=footprint_of(case, case.baseline),
        candidate_footprint=footprint_of(case, case.candidate),
        net_saving=_net_saving(case),
        roi=_roi(case),
        break_even_tokens=_break_even(case),
        search_cost=search_cost(case),
        noise_floor=combine(lambda floor: Interval.exactly(math.expm1(floor)), case.floor_of(case.claim)),
        curve=case.calibration.curve,
        techniques=technique_effects(case) + not_measurable(case),
        expectation=_expectation(choice),
        noise_scales=case.calibration.noise_scales,
        batches=_batches(choice),
        runners_up=runners_up(case),
        trials=trials_of(case),
        corpus=case.facts.corpus,
        environment=case.facts.environment,
        caveats=caveats_of(choice),
    )


# -- how it compares (docs/method.md, 3 and 4) --------------------------------------------------------


def _over_baseline(claim: Claim | Unknown) -> Comparison:
    return Comparison(
        speedup=as_ratio(combine(lambda known: known.total, claim)),
        throughput=as_ratio(combine(lambda known: known.speed, claim)),
        token_efficiency=as_ratio(combine(lambda known: known.efficiency, claim)),
    )


def _over_expert(case: Case) -> Comparison:
    """The claimed configuration against the hand-tuned default, from the blocks in which both ran side by side.

    At the tested token budget, not extrapolated to the plan.
    """
    claim, expert = case.claim, case.facts.expert
    if isinstance(claim, Unknown) or expert == case.baseline:
        return _over_baseline(claim)
    if claim.config == expert:
        same = Interval.exactly(1.0, level=LEVEL)
        return Comparison(speedup=same, throughput=same, token_efficiency=same)
    blocks = case.confirming(claim)
    ours = next((r.spec.label for r in blocks if r.spec.config == claim.config), "")
    theirs = next((r.spec.label for r in blocks if r.spec.config == expert), "")
    if not ours or not theirs:
        none = Unknown(reason="it was not run side by side with the hand-tuned default")
        return Comparison(speedup=none, throughput=none, token_efficiency=none)
    horizon = case.space.workload.horizon_tokens
    together = effects_of(blocks, ours, against=theirs, curve=case.calibration.curve)
    effects = [effect for effect in together if effect.horizon_tokens == horizon]
    return Comparison(
        speedup=as_ratio(total_of(effects, case.calibration)),
        throughput=as_ratio(speed_of(effects, case.calibration)),
        token_efficiency=as_ratio(efficiency_of(effects)),
    )


def _expectation(choice: Choice) -> Expectation | Unknown:
    """What is expected of the learning knobs that trials support, whatever the decision about them."""
    case, claim, prospect = choice.case, choice.hopeful, choice.prospect
    if isinstance(claim, Unknown) or isinstance(prospect, Unknown):
        return Unknown(reason=claim.reason if isinstance(claim, Unknown) else _why(prospect))
    forecast, search_seconds = case.forecast_for(claim), case.facts.search_seconds
    ahead = normal_interval(prospect.mean, prospect.sd)
    beyond = case.space.changed(claim.config, base=case.claimed_config)
    return Expectation(
        config=claim.config,
        knobs={name: str(value) for name, value in beyond.items()},
        speedup=as_ratio(claim.total),
        throughput=as_ratio(claim.speed),
        token_efficiency=as_ratio(claim.plan_efficiency),
        over_claimed=as_ratio(ahead),
        probability_worse=prospect.probability_worse,
        hours=combine(lambda f: f.saved_device_seconds.map(lambda x: (x - search_seconds) / _HOUR_SECONDS), forecast),
        money=combine(lambda f: f.net, forecast),
        roi=combine(lambda f: f.roi, forecast),
    )


def _why(value: object) -> str:
    return value.reason if isinstance(value, Unknown) else ""


def _batches(choice: Choice) -> Batches:
    """Batch sizes in sequences. The noise scale gives the baseline's; the others are in proportion to their tokens."""
    case, hope = choice.case, choice.hopeful
    known = case.calibration.noise_scales[-1].batch if case.calibration.noise_scales else 0
    per_token = known / case.space.workload.cost(case.baseline).tokens

    def of(configuration: Configuration) -> int:
        return round(per_token * case.space.workload.cost(configuration).tokens)

    return Batches(
        baseline=known,
        candidate=of(case.candidate),
        expected=0 if isinstance(hope, Unknown) else of(hope.config),
    )


# -- what it is worth (docs/method.md, 7) ----------------------------------------------------------


def _baseline_hours(economics: Economics) -> Interval:
    hours = economics.baseline_device_seconds / _HOUR_SECONDS
    off = normal_interval(0.0, economics.baseline_log_sd)
    return off.map(lambda log_factor: hours * math.exp(log_factor))


def _claimed_hours(case: Case) -> Quantity:
    if not case.is_claimed:
        return combine(_baseline_hours, case.economics)
    return combine(lambda forecast: forecast.plan_device_seconds.scaled(1.0 / _HOUR_SECONDS), case.forecast)


def _net_saving(case: Case) -> NetSaving:
    claim, forecast, power = case.claim, case.forecast, case.power
    step_seconds = case.space.workload.cost(case.baseline).tokens / case.calibration.rate.estimate
    search_seconds = case.facts.search_seconds

    def per_step(log_speedup: float) -> float:
        return step_seconds * -math.expm1(-log_speedup)

    def hours(saved_seconds: float) -> float:
        return (saved_seconds - search_seconds) / _HOUR_SECONDS

    return NetSaving(
        seconds_per_step=combine(lambda known: known.total.map(per_step), claim),
        hours=combine(lambda known: known.saved_device_seconds.map(hours), forecast),
        money=combine(lambda known: known.net, forecast),
        kwh=combine(lambda known: known.kwh, forecast),
        baseline_watts=combine(lambda known: as_ratio(known.baseline), power),
        candidate_watts=combine(lambda _, known: as_ratio(known.candidate), claim, power),
        energy_provenance=power.reason if isinstance(power, Unknown) else power.provenance,
    )


def _roi(case: Case) -> Roi:
    return Roi(
        ratio=combine(lambda forecast: forecast.roi, case.forecast),
        probability_positive=or_else(combine(lambda forecast: forecast.probability_positive, case.forecast), 0.0),
    )


def _break_even(case: Case) -> Quantity:
    """Break-even in tokens of the plan, all runs together."""
    total = combine(lambda claim: claim.total, case.claim)
    seconds = combine(lambda known: break_even_seconds(case.facts.search_seconds, as_ratio(known)), total)
    return seconds.scaled(case.calibration.rate.estimate)
