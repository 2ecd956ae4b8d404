"""Explore: propose, measure, tell, until another trial would cost more than it is expected to save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune_model.config import InvalidConfiguration, TrainingConfig
from autotune_model.knobs import KnobClass

from autotune.analysis.claims import economics_of, plan_tokens_of
from autotune.analysis.evidence import (
    BASELINE,
    Calibration,
    Effect,
    against_reference,
    changed,
    evaluation_at,
    system_part,
)
from autotune.analysis.power import power_of
from autotune.analysis.roi import worth_another_trial
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.search.common import (
    ROUNDS,
    begin,
    complete_seconds,
    end,
    expert_of,
    floor_of,
    is_in_sight,
    order_block,
    warm_start,
)
from autotune.search.propose import Proposal, Proposer, one_at_a_time
from autotune.space.space import Dimension
from autotune.study.events import EventKind
from autotune.trial.types import Completed, Pruned, Stage, StageEnd, TrialRecord, outcome_reason

_COMPILE_SECONDS = 35.0  # foreseen for torch.compile until one was seen
_PRUNING_MARGIN = 0.05  # log units below the best: a single process pair resolves no less


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """A configuration and its ln S over the baseline, exploratory: one process, one seed."""

    config: TrainingConfig
    score: float


def explore_system(lab: Lab, calibration: Calibration) -> tuple[Explored, ...]:
    """System and numerics knobs by speed alone, which takes seconds a trial (METHOD 2); best first."""
    stage, baseline = Stage.EXPLORE_SYSTEM, lab.space.baseline
    dimensions = lab.space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)
    centre = system_part(expert_of(lab), baseline)
    _explore(lab, calibration, stage, dimensions, baseline, [baseline, centre, *one_at_a_time(centre, dimensions)])
    return _ranked(lab, calibration, stage, Explored(config=baseline, score=0.0))


def explore_learning(lab: Lab, calibration: Calibration, system: Sequence[Explored]) -> tuple[Explored, ...]:
    """Learning knobs by cost to equal quality, over complete schedules, on the best system configuration.

    Returns the finalists, best first: what both explorations found best, combined, by predicted ln S.
    """
    stage, base = Stage.EXPLORE_LEARNING, system[0].config
    dimensions = lab.space.of_class(KnobClass.LEARNING)
    if isinstance(calibration.curve, Unknown):
        dimensions = ()  # no loss can be turned into tokens
    expert = expert_of(lab)
    learned = base.with_knobs({name: getattr(expert, name) for name in changed(expert, base, KnobClass.LEARNING)})
    _explore(lab, calibration, stage, dimensions, base, [base, learned, *one_at_a_time(base, dimensions)])
    learning = _ranked(lab, calibration, stage, system[0])
    return _combinations(system, learning, lab.space.baseline)


def _explore(
    lab: Lab,
    calibration: Calibration,
    stage: Stage,
    dimensions: Sequence[Dimension],
    base: TrainingConfig,
    design: Sequence[TrainingConfig],
) -> None:
    if not begin(lab, stage):
        return
    if not dimensions:
        end(lab, stage, StageEnd.NOTHING_TO_DO)
        return
    first, *rest = dict.fromkeys(design)
    proposer = Proposer(
        storage=lab.storage,
        stage=stage,
        dimensions=dimensions,
        base=base,
        design=[first, *warm_start(lab, base, [d.knob.name for d in dimensions]), *rest],
        seed=0,
    )
    _tell_acknowledged(lab, calibration, stage, proposer)
    reason = _propose_until_done(lab, calibration, stage, proposer)
    proposer.abandon()  # what was asked before a crash that left no time to measure it
    end(lab, stage, reason)


def _tell_acknowledged(lab: Lab, calibration: Calibration, stage: Stage, proposer: Proposer) -> None:
    """Tell what was measured and kept just before a crash."""
    records = {r.spec.block: r for r in lab.study.of_stage(stage)}
    for proposal in proposer.pending():
        if record := records.get(proposal.number):
            _tell(lab, calibration, proposer, proposal, record)


def _tell(
    lab: Lab, calibration: Calibration, proposer: Proposer, proposal: Proposal, record: TrialRecord
) -> float | None:
    """Tell how a proposal did; its score, None where it could not be judged."""
    effect = _effect(lab, calibration, record)
    score = None if isinstance(effect, Unknown) else effect.total
    why = "" if score is not None else outcome_reason(record.outcome) or "it could not be judged"
    proposer.tell(proposal, trial_number=record.spec.number, score=score, infeasible=why)
    return score


def _propose_until_done(lab: Lab, calibration: Calibration, stage: Stage, proposer: Proposer) -> StageEnd:
    judged_on_loss = stage is Stage.EXPLORE_LEARNING
    best = 0.0
    while True:
        effects = _effects(lab, calibration, stage)
        if reason := _reason_to_stop(lab, calibration, stage, [e.total for e in effects.values()]):
            return reason
        proposal = proposer.ask()
        if proposal is None:
            return StageEnd.EXHAUSTED
        config = proposal.config
        if config == lab.space.baseline:
            proposer.tell(proposal, score=0.0)  # measured already, by definition
            continue
        if config.compile != "off" and _compile_seconds(lab) > lab.budget.left_seconds(stage):
            proposer.tell(proposal, score=None, infeasible="no time is left to compile it")
            continue
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
                EventKind.INCUMBENT,
                stage,
                number=spec.number,
                label=spec.label,
                log_ratio=round(score, 4),
                config=config.difference(lab.space.baseline),
            )


def _reason_to_stop(lab: Lab, calibration: Calibration, stage: Stage, scores: Sequence[float]) -> StageEnd | None:
    """Whether the budget, or the expected value of one more trial (METHOD 5), ends the stage."""
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
    plan_tokens = plan_tokens_of(lab.space, calibration)
    if isinstance(plan_tokens, Unknown):
        return None  # nothing to weigh the cost against: the budget alone decides
    economics = economics_of(
        lab.space,
        calibration,
        lab.space.baseline,
        power_of(lab.space.plan, calibration.power),
        plan_tokens=plan_tokens,
        search_seconds=lab.budget.elapsed_seconds,
        compile_seconds=0.0,
    )
    cost = seconds * economics.price_per_device_second
    worth, saving = worth_another_trial(
        log_speedups=scores,
        floor=floor_of(calibration, restarts=1),
        baseline_cost=economics.baseline_device_seconds * economics.price_per_device_second,
        trial_cost=cost,
    )
    if worth:
        return None
    lab.tell(
        EventKind.DECISION,
        stage,
        what="stop exploring",
        why=StageEnd.NOT_WORTH_IT.value,
        expected_saving=saving,
        trial_cost=cost,
    )
    return StageEnd.NOT_WORTH_IT


def _effect(lab: Lab, calibration: Calibration, record: TrialRecord) -> Effect | Unknown:
    """A record of an exploring stage as an effect; Unknown where it cannot be judged."""
    if not isinstance(record.outcome, Completed | Pruned):
        return Unknown(reason=outcome_reason(record.outcome))
    horizon = lab.space.workload.horizon_tokens
    partner = evaluation_at(lab.study.of_stage(Stage.CALIBRATE), label=BASELINE, seed=0, horizon_tokens=horizon)
    effect = against_reference(record, calibration, partner)
    judged_on_loss = record.spec.stage is Stage.EXPLORE_LEARNING
    if judged_on_loss and not isinstance(effect, Unknown) and isinstance(effect.efficiency, Unknown):
        return effect.efficiency
    return effect


def _effects(lab: Lab, calibration: Calibration, stage: Stage) -> dict[TrainingConfig, Effect]:
    found = {r.spec.config: _effect(lab, calibration, r) for r in lab.study.of_stage(stage)}
    return {config: effect for config, effect in found.items() if not isinstance(effect, Unknown)}


def _ranked(lab: Lab, calibration: Calibration, stage: Stage, known: Explored) -> tuple[Explored, ...]:
    """What a stage found, best first, `known` among it; what was pruned ranks by what was seen of it."""
    scores = {known.config: known.score}
    scores |= {config: effect.total for config, effect in _effects(lab, calibration, stage).items()}
    return tuple(
        Explored(config=config, score=score) for config, score in sorted(scores.items(), key=lambda item: -item[1])
    )


def _combinations(
    system: Sequence[Explored], learning: Sequence[Explored], baseline: TrainingConfig
) -> tuple[Explored, ...]:
    """Learning results on the system configuration they were found with and on the runner-up, by predicted ln S."""
    predicted = {e.config: e.score for e in learning}
    for other in system[1:2]:
        for found in learning[:2]:
            knobs = {name: getattr(found.config, name) for name in changed(found.config, baseline, KnobClass.LEARNING)}
            try:
                config = other.config.with_knobs(knobs)
            except InvalidConfiguration:
                continue
            predicted.setdefault(config, found.score + other.score - system[0].score)
    return tuple(Explored(config=c, score=s) for c, s in sorted(predicted.items(), key=lambda item: -item[1]))


def _compile_seconds(lab: Lab) -> float:
    return max((r.costs.compile_seconds for r in lab.study.records), default=0.0) or _COMPILE_SECONDS
