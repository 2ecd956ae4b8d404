"""The lists of a report: all trials, the runners-up, and where the search time went. Pure."""

from __future__ import annotations

import math

from autotune.analysis.case import Case
from autotune.analysis.evidence import LEVEL, NORMAL_QUANTILE, known_speed
from autotune.analysis.rates import PairedSpeed, as_ratio
from autotune.analysis.recommendation import Contender, SearchCost, TrialSummary
from autotune.quantity import Interval, Quantity, Unknown, combine, or_else
from autotune.space.configuration import Configuration
from autotune.trial.types import Stage, TrialRecord, outcome_kind, outcome_reason

_RUNNERS_UP = 5


def trials_of(case: Case) -> tuple[TrialSummary, ...]:
    """One row per trial, by number."""
    return tuple(_summary(case, record) for record in case.records)


def runners_up(case: Case) -> tuple[Contender, ...]:
    """The fastest configurations of exploration and race besides the candidate. Exploratory figures, speed only."""
    groups: dict[Configuration, list[TrialRecord]] = {}
    for record in case.records:
        if record.spec.stage in (Stage.EXPLORE_SYSTEM, Stage.RACE) and record.spec.config != case.candidate:
            groups.setdefault(record.spec.config, []).append(record)
    found = []
    for config, group in groups.items():
        ratio = _throughput_ratio(case, group[-1])
        if group[-1].reference_slices and isinstance(ratio, Interval):
            numbers = tuple(r.spec.number for r in group)
            contender = Contender(label=group[-1].spec.label, config=config, speedup=ratio, trial_numbers=numbers)
            found.append((ratio.estimate, contender))
    found.sort(key=lambda ranked: -ranked[0])
    return tuple(contender for _, contender in found[:_RUNNERS_UP])


def search_cost(case: Case) -> SearchCost:
    """The search time by stage and by activity, and the cost of search and adoption."""
    costs, economics, seconds = [r.costs for r in case.records], case.economics, case.facts.search_seconds
    activities = {
        "stepping candidates": sum(c.step_seconds for c in costs),
        "stepping the reference": sum(c.reference_step_seconds for c in costs),
        "opening sessions": sum(c.open_seconds for c in costs),
        "compiling": sum(c.compile_seconds for c in costs),
        "evaluating": sum(c.evaluate_seconds for c in costs),
    }
    activities["everything else"] = max(0.0, seconds - sum(activities.values()))
    return SearchCost(
        total_seconds=seconds,
        money=or_else(combine(lambda known: known.search_cost, economics), 0.0),
        adoption_money=or_else(combine(lambda known: known.adoption_cost, economics), 0.0),
        seconds_by_stage=case.facts.seconds_by_stage,
        seconds_by_activity=activities,
    )


def _summary(case: Case, record: TrialRecord) -> TrialSummary:
    loss: Quantity = Unknown(reason="it was not evaluated")
    if record.evaluations:
        last = record.evaluations[-1]
        loss = Interval.around(last.loss, NORMAL_QUANTILE * last.stderr, level=LEVEL)
    return TrialSummary(
        number=record.spec.number,
        stage=record.spec.stage.value,
        label=record.spec.label,
        outcome=outcome_kind(record.outcome),
        reason=outcome_reason(record.outcome),
        throughput_ratio=_throughput_ratio(case, record),
        loss=loss,
        cost_seconds=record.costs.total_seconds,
    )


def _throughput_ratio(case: Case, record: TrialRecord) -> Quantity:
    """A trial's rate over its partner's; the interval includes the spread between processes (docs/method.md, 3.5)."""
    processes = 2.0 * case.calibration.process_variance

    def ratio(speed: PairedSpeed) -> Interval:
        half = NORMAL_QUANTILE * math.sqrt(speed.stderr**2 + processes)
        return as_ratio(Interval.around(speed.centre, half, level=LEVEL))

    return combine(ratio, known_speed(record.slices, record.reference_slices))
