"""Helpers of the stages: beginning and ending a stage, ordering trials, and predicting their cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autotune.analysis.case import BaselineLog, Case, Circumstances
from autotune.analysis.evidence import BASELINE, Calibration
from autotune.analysis.rates import slices_per_restart
from autotune.analysis.roi import plan_device_seconds
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, or_else
from autotune.search.expert import expert_within
from autotune.space.configuration import Configuration
from autotune.space.knobs import Dimension, KnobClass, contains
from autotune.study.events import StageFinished, StageNotWorthIt, StageStarted
from autotune.study.runlog import RunLog, misfit
from autotune.trial.types import Stage, StageEnd, TrialSpec

FEWEST_CONFIRMING = 3  # blocks (docs/method.md, 3.5)
ROUNDS_OF_CLAIM = 16  # the fewest that a claim is made of
ROUNDS = 12  # pairs of slices of a trial judged on speed: at 10 their spread is 4 % (docs/method.md, 3.4)
DELTA = 0.02  # the smallest lead worth resolving, in log units, if the noise floor allows
LARGEST_BLOCK = 5  # sessions side by side: more pair worse (docs/method.md, 3.4)
RACE_SEED, ATTRIBUTE_SEED, REDUCED_SEED = 100, 300, 400

_RENEWAL_SECONDS = 4.0  # a fresh process image imports torch again
_COMPILE_SECONDS = 35.0  # assumed until a compilation was measured
_OPEN_SECONDS = 1.0  # until a session has been opened
SLICE_SECONDS = 0.2  # 0.15 s of training plus waiting
_MOST_ROUNDS = 40  # per restart: even if processes hardly differ, restarts guard against unseen differences

Member = tuple[str, Configuration]
"""A member of a block: its label and configuration."""


def begin(lab: Lab, stage: Stage) -> bool:
    """Enter `stage`; False if it is finished already."""
    if lab.budget.is_finished(stage):
        return False
    lab.budget.begin(stage)
    lab.tell(StageStarted(stage=stage, allotted_seconds=round(lab.budget.left_seconds(stage), 1)))
    return True


def end(lab: Lab, stage: Stage, reason: StageEnd) -> None:
    """Finish `stage`."""
    lab.budget.finish(stage, reason)
    mark = lab.budget.begin(stage)
    spent = lab.budget.elapsed_seconds - mark.started_seconds + mark.earlier_seconds
    lab.tell(StageFinished(stage=stage, spent_seconds=round(spent, 1), reason=reason))


def case_of(lab: Lab, calibration: Calibration, *, search_seconds: float | None = None) -> Case:
    """The study so far, as a case; `search_seconds` is the cost of the search (default: the elapsed time)."""
    marks = {stage: mark for stage in Stage if (mark := lab.study.stage(stage)) and mark.finished}
    facts = Circumstances(
        expert=expert_of(lab),
        expert_anywhere=lab.space.workload.expert(lab.machine),
        search_seconds=lab.budget.elapsed_seconds if search_seconds is None else search_seconds,
        seconds_by_stage=lab.study.seconds_by_stage,
        stage_ends={stage: mark.reason for stage, mark in marks.items() if mark.reason is not None},
        corpus=lab.machine.corpus,
        environment=lab.machine.environment,
        peak_flops=lab.machine.peak_flops,
        pruned=lab.pruned,
        baseline_log=_state_of_log(lab.study.baseline_log, calibration),
    )
    return Case(space=lab.space, records=lab.study.records, calibration=calibration, facts=facts)


def _state_of_log(log: RunLog | None, calibration: Calibration) -> BaselineLog:
    """Whether the user gave a log of the baseline, and whether this model can have its losses."""
    if log is None:
        return BaselineLog(is_given=False)
    return BaselineLog(is_given=True, problem=misfit(log, calibration.points))


def expert_of(lab: Lab) -> Configuration:
    """The hand-tuned default for this machine, as far as the space can express it."""
    return expert_within(lab.space, lab.machine)


def order_block(
    lab: Lab, stage: Stage, block: int, members: Sequence[Member], *, seed: int, horizon_tokens: int = 0
) -> tuple[TrialSpec, ...]:
    """Order a group of sessions with a common seed; the others are paired with the first."""
    horizon = horizon_tokens or lab.space.workload.horizon_tokens
    return tuple(
        lab.study.order(stage=stage, label=label, config=config, seed=seed, horizon_tokens=horizon, block=block)
        for label, config in members
    )


def ordered_blocks(lab: Lab, stage: Stage) -> list[tuple[TrialSpec, ...]]:
    """The blocks ordered so far in `stage`, by number."""
    specs = lab.study.ordered(stage)
    return [tuple(s for s in specs if s.block == block) for block in sorted({s.block for s in specs})]


def complete_seconds(lab: Lab, horizon_tokens: int) -> float:
    """Estimated seconds to open a session, train `horizon_tokens` and evaluate, from the baseline's runs."""
    seen = [r for r in lab.study.records if r.spec.label == BASELINE and r.is_complete and r.ready and r.evaluations]
    if not seen:
        return 0.0
    opening = statistics.median(r.costs.open_seconds for r in lab.study.records if r.ready)
    last = seen[-1]
    tokens = last.ready[0].tokens_per_step * sum(len(s.losses) for s in last.slices)
    return opening + last.costs.evaluate_seconds + last.costs.step_seconds * horizon_tokens / tokens


def block_seconds(lab: Lab, configs: Sequence[Configuration], *, rounds: int = 0, horizon_tokens: int = 0) -> float:
    """Estimated seconds of a block of fresh processes of `configs`: `rounds` rounds, or (with 0) whole schedules."""
    compiling = sum(lab.space.workload.cost(config).compiles for config in configs)
    if rounds:
        each = _OPEN_SECONDS + rounds * SLICE_SECONDS
    else:
        each = complete_seconds(lab, horizon_tokens or lab.space.workload.horizon_tokens)
    return _RENEWAL_SECONDS + len(configs) * each + compiling * compile_seconds(lab)


def compile_seconds(lab: Lab) -> float:
    """The longest compilation measured; an assumption until there is one."""
    return max((r.costs.compile_seconds for r in lab.study.records), default=0.0) or _COMPILE_SECONDS


def cost_of_compiling(lab: Lab, calibration: Calibration, config: Configuration) -> float:
    """What compiling `config` costs, to confirm it and in every run, as a share of the plan's cost; 0 if it does not.

    It is known before a trial, and may be more than a small plan gains.
    """
    plan_seconds = case_of(lab, calibration).plan_seconds
    if isinstance(plan_seconds, Unknown) or not lab.space.workload.cost(config).compiles:
        return 0.0
    return (FEWEST_CONFIRMING + lab.space.plan.runs) * compile_seconds(lab) / plan_seconds


def pays(lab: Lab, calibration: Calibration, seconds: float, *, log_gain: float) -> bool:
    """Whether `seconds` more of search cost less than a gain of `log_gain` saves on the plan (docs/method.md, 5).

    True if the plan's length is not known: then only the budget limits the search.
    """
    plan_seconds = case_of(lab, calibration).plan_seconds
    if isinstance(plan_seconds, Unknown):
        return True
    saving = plan_seconds * -math.expm1(-log_gain)
    if saving > seconds:
        return True
    stage = lab.budget.current_stage
    lab.tell(StageNotWorthIt(stage=stage, hoped_seconds=round(saving, 1), cost_seconds=round(seconds, 1)))
    return False


def limit_to_plan(lab: Lab, calibration: Calibration) -> None:
    """Cap the search at the space's share of the plan's cost, as the baseline's first trial lets one know it."""
    first = next((r for r in lab.study.of_stage(Stage.CALIBRATE) if r.spec.label == BASELINE and r.slices), None)
    plan_tokens = case_of(lab, calibration).plan_tokens
    if first is None or isinstance(plan_tokens, Unknown):
        return
    rate = sum(s.tokens for s in first.slices) / sum(s.seconds for s in first.slices)
    plan_seconds = plan_device_seconds(plan_tokens, lab.space.plan.runs, rate)
    lab.budget.limit(lab.space.share_of_plan * plan_seconds)


def is_in_reach(lab: Lab, calibration: Calibration, seconds: float) -> bool:
    """Whether `seconds` more leave the time to confirm anything. A search that cannot is not begun."""
    needed, left = seconds + claim_seconds(lab, calibration, lab.space.baseline), lab.budget.remaining_seconds
    if needed <= left:
        return True
    if lab.budget.is_limited:
        stage = lab.budget.current_stage
        lab.tell(StageNotWorthIt(stage=stage, hoped_seconds=round(left, 1), cost_seconds=round(needed, 1)))
    return False


def claim_seconds(lab: Lab, calibration: Calibration, config: Configuration) -> float:
    """Estimated seconds of the shortest confirmation of `config`. Without confirmation nothing can be claimed.

    Its system part is confirmed beside it; if it changes no learning knob, trials may still find one to change.
    """
    members = [lab.space.baseline, config, lab.space.system_part(config)]
    rounds = min(ROUNDS_OF_CLAIM, rounds_per_restart(calibration, len(members)))
    if lab.space.changed(config, KnobClass.NUMERICS):
        rounds = 0  # losses are compared, too
    return FEWEST_CONFIRMING * block_seconds(lab, members, rounds=rounds)


def floor_of(calibration: Calibration, *, restarts: int, rounds: int = ROUNDS) -> float:
    """The noise floor in log units; `DELTA` if too few copies of the baseline were measured."""
    return or_else(calibration.floor(restarts, rounds), DELTA)


def rounds_per_restart(calibration: Calibration, sessions: int) -> int:
    """The best number of rounds of a speed-only block, from the noise seen in calibration (docs/method.md, 3.5)."""
    if isinstance(calibration.noise, Unknown):
        return ROUNDS
    restart_seconds = _RENEWAL_SECONDS / sessions + _OPEN_SECONDS
    return min(_MOST_ROUNDS, max(ROUNDS, slices_per_restart(calibration.noise, restart_seconds, SLICE_SECONDS)))


def warm_start(lab: Lab, base: Configuration, dimensions: Sequence[Dimension]) -> list[Configuration]:
    """`base` with the values along `dimensions` of the best configurations of the study this one was forked from.

    A value that this study no longer searches stays as in `base`.
    """
    return [
        base.with_values(
            {
                name: config[name]
                for d in dimensions
                if (name := d.knob.name) in config and contains(d.domain, config[name])
            }
        )
        for config in lab.study.info.warm_start
    ]
