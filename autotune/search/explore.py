"""Explore: propose and measure until another trial is expected to cost more than it saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.analysis.case import Case
from autotune.analysis.evidence import Calibration
from autotune.analysis.roi import worth_another_trial
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, combine
from autotune.search.common import (
    ROUNDS,
    begin,
    case_of,
    complete_seconds,
    end,
    expert_of,
    floor_of,
    is_in_sight,
    order_block,
    warm_start,
)
from autotune.search.propose import Proposal, Proposer, one_at_a_time
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import Dimension, KnobClass
from autotune.study.events import IncumbentFound, NextTrialNotWorthIt
from autotune.trial.types import Stage, StageEnd, TrialRecord, outcome_reason
from autotune.workload.space import SearchSpace

_COMPILE_SECONDS = 35.0  # assumed until a compilation was measured
_MOST_TOO_LONG = 20  # end the stage after this many proposals in a row with no time left to compile them
_PRUNING_MARGIN = 0.05  # log units below the best: a single pair of processes resolves no less


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """A configuration and its exploratory ln S over the baseline, from one process and one seed."""

    config: Configuration
    score: float


def explore_system(lab: Lab, calibration: Calibration) -> tuple[Explored, ...]:
    """Explore system and precision knobs by speed alone, seconds per trial (docs/method.md, 2). Best first."""
    stage, space, baseline = Stage.EXPLORE_SYSTEM, lab.space, lab.space.baseline
    dimensions = space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)
    centre = space.system_part(expert_of(lab))
    design = [baseline, centre, *one_at_a_time(space, centre, dimensions)]
    _explore(lab, calibration, stage, dimensions, baseline, design)
    return _ranked(lab, calibration, stage, Explored(config=baseline, score=0.0))


def explore_learning(lab: Lab, calibration: Calibration, system: Sequence[Explored]) -> tuple[Explored, ...]:
    """Explore learning knobs by cost to equal quality, over complete schedules, on the best system configuration.

    Returns the finalists, best first: the best of both explorations combined, by predicted ln S.
    """
    stage, space, base = Stage.EXPLORE_LEARNING, lab.space, system[0].config
    dimensions = space.of_class(KnobClass.LEARNING)
    if isinstance(calibration.curve, Unknown):
        dimensions = ()  # without a curve, loss cannot be converted to tokens
    learned = space.turned(base, space.changed(expert_of(lab), KnobClass.LEARNING, base=base))
    _explore(lab, calibration, stage, dimensions, base, [base, learned, *one_at_a_time(space, base, dimensions)])
    return _combinations(space, system, _ranked(lab, calibration, stage, system[0]))


def _explore(
    lab: Lab,
    calibration: Calibration,
    stage: Stage,
    dimensions: Sequence[Dimension],
    base: Configuration,
    design: Sequence[Configuration],
) -> None:
    if not begin(lab, stage):
        return
    if not dimensions:
        end(lab, stage, StageEnd.NOTHING_TO_DO)
        return
    first, *rest = dict.fromkeys(design)
    proposer = Proposer(
        storage=lab.storage,
        space=lab.space,
        stage=stage,
        dimensions=dimensions,
        base=base,
        design=[first, *warm_start(lab, base, dimensions), *rest],
        seed=0,
    )
    _tell_acknowledged(lab, calibration, stage, proposer)
    reason = _propose_until_done(lab, calibration, stage, proposer)
    proposer.abandon()  # proposals from before a crash that there is no time left to measure
    end(lab, stage, reason)


def _tell_acknowledged(lab: Lab, calibration: Calibration, stage: Stage, proposer: Proposer) -> None:
    """Report results to the proposer that were stored just before a crash."""
    records = {r.spec.block: r for r in lab.study.of_stage(stage)}
    for proposal in proposer.pending():
        if record := records.get(proposal.number):
            _tell(lab, calibration, proposer, proposal, record)


def _tell(
    lab: Lab, calibration: Calibration, proposer: Proposer, proposal: Proposal, record: TrialRecord
) -> float | None:
    """Report a proposal's result to the proposer. Returns its score, None if it could not be judged."""
    known = _score(case_of(lab, calibration), record)
    score = None if isinstance(known, Unknown) else known
    why = "" if score is not None else outcome_reason(record.outcome) or "it could not be judged"
    proposer.tell(proposal, trial_number=record.spec.number, score=score, infeasible=why)
    return score


def _propose_until_done(lab: Lab, calibration: Calibration, stage: Stage, proposer: Proposer) -> StageEnd:
    judged_on_loss = stage is Stage.EXPLORE_LEARNING
    best, too_long = 0.0, 0
    while True:
        scores = _scores(lab, calibration, stage)
        if reason := _reason_to_stop(lab, calibration, stage, list(scores.values())):
            return reason
        proposal = proposer.ask()
        if proposal is None:
            return StageEnd.EXHAUSTED
        config = proposal.config
        if config == lab.space.baseline:
            proposer.tell(proposal, score=0.0)  # 0 by definition, no need to measure
            continue
        if lab.space.workload.cost(config).compiles and _compile_seconds(lab) > lab.budget.left_seconds(stage):
            proposer.pass_over(proposal, "no time is left to compile it")
            too_long += 1
            if too_long == _MOST_TOO_LONG:
                return StageEnd.BUDGET
            continue
        too_long = 0
        (spec,) = order_block(lab, stage, proposal.number, [(f"proposal {proposal.number}", config)], seed=0)
        record = lab.trial(
            spec,
            rounds=ROUNDS,
            complete=judged_on_loss,
            must_beat=float("-inf") if judged_on_loss else best - _PRUNING_MARGIN,
            gate=not judged_on_loss,
        )
        score = _tell(lab, calibration, proposer, proposal, record)
        if score is not None and score > best:
            best = score
            lab.tell(
                IncumbentFound(
                    stage=stage,
                    number=spec.number,
                    label=spec.label,
                    speedup=math.exp(score),
                    changes=lab.space.changed(config),
                )
            )


def _reason_to_stop(lab: Lab, calibration: Calibration, stage: Stage, scores: Sequence[float]) -> StageEnd | None:
    """Why the stage must end: the budget, or the expected value of one more trial (docs/method.md, 5); else None."""
    records = lab.study.of_stage(stage)
    if records:
        seconds = sum(r.costs.total_seconds for r in records) / len(records)
    else:
        seconds = complete_seconds(lab, lab.space.workload.horizon_tokens)
    left = lab.budget.left_seconds(stage)
    if left <= 0 or seconds > left:
        return StageEnd.BUDGET
    if not is_in_sight(lab, calibration, seconds, best=max(scores, default=0.0)):
        return StageEnd.NOT_WORTH_IT
    case = case_of(lab, calibration)
    economics = case.economics_of(case.baseline, power=case.baseline_power, search_seconds=case.facts.search_seconds)
    if isinstance(economics, Unknown):
        return None  # the plan's length is not known: only the budget limits the search
    cost = seconds * economics.price_per_device_second
    worth, saving = worth_another_trial(
        log_speedups=scores,
        floor=floor_of(calibration, restarts=1),
        baseline_cost=economics.baseline_device_seconds * economics.price_per_device_second,
        trial_cost=cost,
    )
    if worth:
        return None
    currency = lab.space.plan.currency
    lab.tell(NextTrialNotWorthIt(stage=stage, expected_saving=saving, trial_cost=cost, currency=currency))
    return StageEnd.NOT_WORTH_IT


def _score(case: Case, record: TrialRecord) -> float | Unknown:
    """The ln S that an exploratory trial showed; Unknown if it cannot be judged."""
    effect = case.seen(record)
    if record.spec.stage is not Stage.EXPLORE_LEARNING:
        return combine(lambda seen: seen.total, effect)
    efficiency = combine(lambda seen: seen.efficiency, effect)
    return combine(lambda seen, _: seen.total, effect, efficiency)


def _scores(lab: Lab, calibration: Calibration, stage: Stage) -> dict[Configuration, float]:
    """The scores of all configurations of the stage that could be judged."""
    case = case_of(lab, calibration)
    found = {r.spec.config: _score(case, r) for r in case.of_stage(stage)}
    return {config: score for config, score in found.items() if not isinstance(score, Unknown)}


def _ranked(lab: Lab, calibration: Calibration, stage: Stage, known: Explored) -> tuple[Explored, ...]:
    """The configurations of a stage and `known`, best first. Pruned trials rank by their score so far."""
    scores = {known.config: known.score} | _scores(lab, calibration, stage)
    return tuple(
        Explored(config=config, score=score) for config, score in sorted(scores.items(), key=lambda item: -item[1])
    )


def _combinations(space: SearchSpace, system: Sequence[Explored], learning: Sequence[Explored]) -> tuple[Explored, ...]:
    """Learning results combined with the best system configuration and with the runner-up, by predicted ln S."""
    predicted = {e.config: e.score for e in learning}
    for other in system[1:2]:
        for found in learning[:2]:
            try:
                config = space.turned(other.config, space.changed(found.config, KnobClass.LEARNING))
            except InvalidConfiguration:
                continue
            predicted.setdefault(config, found.score + other.score - system[0].score)
    return tuple(Explored(config=c, score=s) for c, s in sorted(predicted.items(), key=lambda item: -item[1]))


def _compile_seconds(lab: Lab) -> float:
    return max((r.costs.compile_seconds for r in lab.study.records), default=0.0) or _COMPILE_SECONDS
