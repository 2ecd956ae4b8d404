"""Explore system and precision knobs by speed alone, until another trial is expected to cost more than it saves."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

from autotune.analysis.additive import Additive
from autotune.analysis.evidence import Calibration
from autotune.analysis.ladder import value_of_measuring
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, combine, or_else
from autotune.search.common import (
    ROUNDS,
    SLICE_SECONDS,
    begin,
    case_of,
    claim_seconds,
    compile_seconds,
    complete_seconds,
    cost_of_compiling,
    end,
    expert_of,
    order_block,
    warm_start,
)
from autotune.search.propose import Proposal, Proposer
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import KnobClass
from autotune.study.events import IncumbentFound, NextTrialNotWorthIt
from autotune.trial.types import Failed, Infeasible, Stage, StageEnd, TrialRecord, outcome_reason
from autotune.workload.design import one_at_a_time

_MOST_REFUSED = 20  # end the stage after this many proposals in a row that there is no time for, or that do not pay
_FAILED = -1.0  # ln of speed that a configuration counts for that could not run
_PRUNING_MARGIN = 0.05  # log units below the best: a single pair of processes resolves no less
_STAGE = Stage.EXPLORE_SYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """A configuration and its exploratory ln of speed over the baseline, from one process."""

    config: Configuration
    score: float


def explore_system(lab: Lab, calibration: Calibration) -> tuple[Explored, ...]:
    """Explore system and precision knobs by speed alone, seconds per trial (docs/method.md, 2). Best first."""
    space, baseline = lab.space, lab.space.baseline
    dimensions = space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)
    if begin(lab, _STAGE):
        reason = StageEnd.NOTHING_TO_DO
        if dimensions:
            centre = space.system_part(expert_of(lab))
            design = dict.fromkeys([baseline, centre, *one_at_a_time(space, centre, dimensions)])
            first, *rest = sorted(design, key=lambda config: space.workload.cost(config).compiles)  # cheap ones first
            proposer = Proposer(
                storage=lab.storage,
                space=space,
                stage=_STAGE,
                dimensions=dimensions,
                base=baseline,
                design=[first, *warm_start(lab, baseline, dimensions), *rest],
                seed=0,
            )
            _tell_acknowledged(lab, calibration, proposer)
            reason = _propose_until_done(lab, calibration, proposer)
            proposer.abandon()  # proposals from before a crash that there is no time left to measure
        end(lab, _STAGE, reason)
    scores = {baseline: 0.0} | _scores(lab, calibration)
    return tuple(Explored(config=c, score=score) for c, score in sorted(scores.items(), key=lambda item: -item[1]))


def _tell_acknowledged(lab: Lab, calibration: Calibration, proposer: Proposer) -> None:
    """Report results to the proposer that were stored just before a crash."""
    records = {r.spec.block: r for r in lab.study.of_stage(_STAGE)}
    for proposal in proposer.pending():
        if record := records.get(proposal.number):
            _tell(lab, calibration, proposer, proposal, record)


def _tell(
    lab: Lab, calibration: Calibration, proposer: Proposer, proposal: Proposal, record: TrialRecord
) -> float | None:
    """Report a proposal's result to the proposer. Returns its score, None if it could not be judged."""
    seen = case_of(lab, calibration).seen(record)
    score = None if isinstance(seen, Unknown) else seen.total
    why = "" if score is not None else outcome_reason(record.outcome) or "it could not be judged"
    proposer.tell(proposal, trial_number=record.spec.number, score=score, infeasible=why)
    return score


def _propose_until_done(lab: Lab, calibration: Calibration, proposer: Proposer) -> StageEnd:
    late = poor = 0  # proposals in a row that there is no time for, or that do not pay
    while True:
        scores = _scores(lab, calibration)
        best = max(scores.values(), default=0.0)
        _suggest_best_values(lab, proposer, scores)
        proposal = proposer.ask()
        if proposal is None:
            return StageEnd.EXHAUSTED
        config = proposal.config
        if config == lab.space.baseline:
            proposer.tell(proposal, score=0.0)  # 0 by definition, no need to measure
            continue
        seconds, left = _trial_seconds(lab, config), _left_seconds(lab, calibration, scores)
        if seconds > left:
            proposer.pass_over(proposal, "no time is left for it")
            late += 1
            if late == _MOST_REFUSED or _trial_seconds(lab, lab.space.baseline) > left:
                return StageEnd.BUDGET
            continue
        if not _pays(lab, calibration, config, scores, seconds, is_last=poor == _MOST_REFUSED - 1):
            proposer.pass_over(proposal, "it is expected to gain less than it costs")
            poor += 1
            if poor == _MOST_REFUSED:
                return StageEnd.NOT_WORTH_IT
            continue
        late = poor = 0
        (spec,) = order_block(lab, _STAGE, proposal.number, [(f"proposal {proposal.number}", config)], seed=0)
        record = lab.trial(spec, rounds=ROUNDS, must_beat=best - _PRUNING_MARGIN, gate=True)
        score = _tell(lab, calibration, proposer, proposal, record)
        if score is not None and score > best:
            lab.tell(
                IncumbentFound(
                    stage=_STAGE,
                    number=spec.number,
                    label=spec.label,
                    speedup=math.exp(score),
                    changes=lab.space.changed(config),
                )
            )


def _suggest_best_values(lab: Lab, proposer: Proposer, scores: dict[Configuration, float]) -> None:
    """Propose next, if it is new, the fastest value of every knob in one configuration."""
    with contextlib.suppress(InvalidConfiguration):
        proposer.suggest(lab.space.turned(lab.space.baseline, _belief(lab, scores).best_values()))


def _pays(
    lab: Lab,
    calibration: Calibration,
    config: Configuration,
    scores: dict[Configuration, float],
    seconds: float,
    *,
    is_last: bool,
) -> bool:
    """Whether a trial of `config` is expected to gain more than its `seconds` cost (docs/method.md, 5).

    True if the plan's length is not known: then only the budget limits the search.
    """
    case = case_of(lab, calibration)
    if isinstance(case.plan_seconds, Unknown):
        return True
    best = max([0.0, *scores.values()])
    belief = _belief(lab, scores)
    lead = belief.of(config)[0] - best - cost_of_compiling(lab, calibration, config)
    gain = value_of_measuring(lead, belief.moved_by_measuring(config))
    saved_seconds = gain * case.plan_seconds * math.exp(-best)
    if saved_seconds > seconds:
        return True
    economics = case.economics_of(case.baseline, power=case.baseline_power, search_seconds=case.facts.search_seconds)
    price = or_else(combine(lambda known: known.price_per_device_second, economics), 0.0)
    if is_last:
        lab.tell(
            NextTrialNotWorthIt(
                stage=_STAGE,
                expected_saving=saved_seconds * price,
                trial_cost=seconds * price,
                currency=lab.space.plan.currency,
            )
        )
    return False


def _belief(lab: Lab, scores: dict[Configuration, float]) -> Additive:
    """What is expected of combinations; what could not run here counts as slow."""
    names = [d.knob.name for d in lab.space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)]
    failed = {r.spec.config: _FAILED for r in lab.study.of_stage(_STAGE) if isinstance(r.outcome, Infeasible | Failed)}
    return Additive(centre=lab.space.baseline, scores=failed | scores, names=names)


def _scores(lab: Lab, calibration: Calibration) -> dict[Configuration, float]:
    """The scores of all configurations that could be judged. Those of pruned trials are so far."""
    return {config: effect.total for config, effect in case_of(lab, calibration).explored[_STAGE].items()}


def _trial_seconds(lab: Lab, config: Configuration) -> float:
    """Estimated seconds of a trial of `config`: as the others so far, and its compilation."""
    records = lab.study.of_stage(_STAGE)
    if records:
        seconds = sum(r.costs.total_seconds - r.costs.compile_seconds for r in records) / len(records)
    else:
        seconds = complete_seconds(lab, 0) + 2 * ROUNDS * SLICE_SECONDS
    compiles = lab.space.workload.cost(config).compiles
    return seconds + (compile_seconds(lab) if compiles else 0.0)


def _left_seconds(lab: Lab, calibration: Calibration, scores: dict[Configuration, float]) -> float:
    """Of the stage; what it takes to confirm the best so far is kept."""
    best = max(scores, key=lambda config: scores[config], default=lab.space.baseline)
    return min(lab.budget.left_seconds(_STAGE), lab.budget.remaining_seconds - claim_seconds(lab, calibration, best))
