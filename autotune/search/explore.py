"""Explore system and precision knobs by speed alone, until another trial is expected to cost more than it saves."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.analysis.case import Case
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
from autotune.search.propose import Proposal, Proposer, restore
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import Dimension, KnobClass, members
from autotune.study.events import IncumbentFound, NextTrialNotWorthIt
from autotune.trial.types import Stage, StageEnd, TrialRecord, outcome_reason
from autotune.workload.design import one_at_a_time
from autotune.workload.space import SearchSpace

_MOST_REFUSED = 20  # end the stage after this many proposals in a row that there is no time for, or that do not pay
_PRUNING_MARGIN = 0.05  # log units below the best: a single pair of processes resolves no less
_WORTH_ELSEWHERE = 5.0  # what trials of learning knobs save, over their cost, when the cap on the search ends them
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
            first, *cheap = _quick_design(lab, dimensions)
            restore(lab.storage, _STAGE, dimensions, lab.study.ordered(_STAGE))
            proposer = Proposer(
                storage=lab.storage,
                space=space,
                stage=_STAGE,
                dimensions=dimensions,
                base=baseline,
                design=[first, *warm_start(lab, baseline, dimensions), *cheap],
                seed=0,
            )
            _tell_acknowledged(lab, calibration, proposer)
            reason = _propose_until_done(lab, calibration, proposer, [first, *cheap])
            proposer.abandon()  # proposals from before a crash that there is no time left to measure
        end(lab, _STAGE, reason)
    case = case_of(lab, calibration)
    seen = dict.fromkeys([baseline, *case.explored[_STAGE]])
    return tuple(sorted((Explored(config=c, score=case.system_speed.of(c)[0]) for c in seen), key=lambda e: -e.score))


def _quick_design(lab: Lab, dimensions: Sequence[Dimension]) -> list[Configuration]:
    """The first trials: the baseline, and every value alone around the hand-tuned default, where none compiles.

    Where only what compiles is valid, that. Values that compile are tried later, on the best of the others.
    """
    space, baseline = lab.space, lab.space.baseline
    centre = space.system_part(expert_of(lab))
    starts = [centre, *(config for d in dimensions for config in space.turned_back(centre, d.knob.name))]
    quick = next((config for config in starts if not _compiles(space, config)), centre)
    design = dict.fromkeys([baseline, quick, *one_at_a_time(space, quick, dimensions)])
    return [config for config in design if not _compiles(space, config)] or list(design)


def _compiles(space: SearchSpace, config: Configuration) -> bool:
    return space.workload.cost(config).compiles


def _tell_acknowledged(lab: Lab, calibration: Calibration, proposer: Proposer) -> None:
    """Report results to the proposer that were stored just before a crash."""
    records = {r.spec.block: r for r in lab.study.of_stage(_STAGE)}
    for proposal in proposer.pending():
        if record := records.get(proposal.number):
            _tell(lab, calibration, proposer, proposal, record)


def _tell(lab: Lab, calibration: Calibration, proposer: Proposer, proposal: Proposal, record: TrialRecord) -> None:
    """Report a proposal's result to the proposer."""
    seen = case_of(lab, calibration).seen(record)
    score = None if isinstance(seen, Unknown) else seen.total
    why = "" if score is not None else outcome_reason(record.outcome) or "it could not be judged"
    proposer.tell(proposal, trial_number=record.spec.number, score=score, infeasible=why)


def _propose_until_done(
    lab: Lab, calibration: Calibration, proposer: Proposer, design: Sequence[Configuration]
) -> StageEnd:
    late = poor = 0  # proposals in a row that there is no time for, or that do not pay
    told, _ = _best(case_of(lab, calibration))
    while True:
        case = case_of(lab, calibration)
        best, best_config = _best(case)
        _suggest(case, proposer, design)
        proposal = proposer.ask()
        if isinstance(proposal, StageEnd):
            return proposal
        config = proposal.config
        if config == lab.space.baseline:
            proposer.tell(proposal, score=0.0)  # 0 by definition, no need to measure
            continue
        seconds, left = _trial_seconds(lab, config), _left_seconds(lab, calibration, best_config)
        if seconds > left:
            proposer.pass_over(proposal, "no time is left for it")
            late += 1
            if late == _MOST_REFUSED or _trial_seconds(lab, lab.space.baseline) > left:
                return StageEnd.BUDGET
            continue
        if not _pays(lab, calibration, config, seconds, is_last=poor == _MOST_REFUSED - 1):
            proposer.pass_over(proposal, "it is expected to gain less than it costs")
            poor += 1
            if poor == _MOST_REFUSED:
                return StageEnd.NOT_WORTH_IT
            continue
        late = poor = 0
        (spec,) = order_block(lab, _STAGE, proposal.number, [(f"proposal {proposal.number}", config)], seed=0)
        record = lab.trial(spec, rounds=ROUNDS, must_beat=best - _PRUNING_MARGIN, gate=True)
        _tell(lab, calibration, proposer, proposal, record)
        lead, leader = _best(case_of(lab, calibration))
        if leader == config and lead > told:
            told = lead
            lab.tell(
                IncumbentFound(
                    stage=_STAGE,
                    number=spec.number,
                    label=spec.label,
                    speedup=math.exp(lead),
                    changes=lab.space.changed(config),
                )
            )


def _best(case: Case) -> tuple[float, Configuration]:
    """The fastest configuration explored, and ln of its speed over the baseline as it is now believed."""
    seen = [case.baseline, *case.explored[_STAGE]]
    return max(((case.system_speed.of(config)[0], config) for config in seen), key=lambda each: each[0])


def _suggest(case: Case, proposer: Proposer, design: Sequence[Configuration]) -> None:
    """Propose next, if it is new, the fastest value of every knob in one configuration.

    After the first trials also that with a value that compiles, one for each.
    """
    space, best = case.space, case.system_speed.best_values()
    with contextlib.suppress(InvalidConfiguration):
        proposer.suggest(space.turned(case.baseline, best))
    if not all(proposer.knows(config) for config in design):
        return
    for dimension in space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS):
        for value in members(dimension.domain):
            with contextlib.suppress(InvalidConfiguration):
                turned = space.turned(case.baseline, {**best, dimension.knob.name: value})
                if _compiles(space, turned) and value != best.get(dimension.knob.name):
                    proposer.suggest(turned)


def _pays(lab: Lab, calibration: Calibration, config: Configuration, seconds: float, *, is_last: bool) -> bool:
    """Whether a trial of `config` is expected to gain more than its `seconds` cost (docs/method.md, 5).

    True if the plan's length is not known: then only the budget limits the search.
    """
    case = case_of(lab, calibration)
    if isinstance(case.plan_seconds, Unknown):
        return True
    best, _ = _best(case)
    belief = case.system_speed
    lead = belief.of(config)[0] - best - cost_of_compiling(lab, calibration, config)
    gain = value_of_measuring(lead, belief.moved_by_measuring(config))
    saved_seconds = gain * case.plan_seconds * math.exp(-best)
    if saved_seconds > seconds * (_WORTH_ELSEWHERE if lab.space.of_class(KnobClass.LEARNING) else 1.0):
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


def _trial_seconds(lab: Lab, config: Configuration) -> float:
    """Estimated seconds of a trial of `config`: as the others so far, and its compilation."""
    records = lab.study.of_stage(_STAGE)
    if records:
        seconds = sum(r.costs.total_seconds - r.costs.compile_seconds for r in records) / len(records)
    else:
        seconds = complete_seconds(lab, 0) + 2 * ROUNDS * SLICE_SECONDS
    compiles = lab.space.workload.cost(config).compiles
    return seconds + (compile_seconds(lab) if compiles else 0.0)


def _left_seconds(lab: Lab, calibration: Calibration, best: Configuration) -> float:
    """Of the stage; what it takes to confirm the best so far is kept."""
    return min(lab.budget.left_seconds(_STAGE), lab.budget.remaining_seconds - claim_seconds(lab, calibration, best))
