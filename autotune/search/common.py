"""What the stages share: beginning and ending one, ordering its trials, foreseeing what they cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autotune_model.config import TrainingConfig

from autotune.analysis.claims import plan_tokens_of
from autotune.analysis.evidence import BASELINE, Calibration
from autotune.analysis.rates import slices_per_restart
from autotune.analysis.roi import plan_device_seconds
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.search.propose import expert_default, mirror
from autotune.study.events import EventKind
from autotune.trial.types import Stage, StageEnd, TrialSpec

FEWEST_CONFIRMING = 3  # blocks (METHOD 3.5)
_HOPED_LOG_GAIN = math.log(1.25)  # of a whole search, while nothing better was seen
_HOPED_SHARE = 0.5  # of what is in sight to be saved, that finding it may cost in all
ROUNDS = 12  # pairs of slices of a trial judged on speed: METHOD 3.4 measured a spread of 4 % at 10
DELTA = 0.02  # the lead worth telling apart, in log units, where the noise floor allows
LARGEST_BLOCK = 5  # sessions side by side: more pair worse (METHOD 3.4)
RACE_SEED, CONFIRM_SEED, ATTRIBUTE_SEED, REDUCED_SEED = 100, 200, 300, 400

_RENEWAL_SECONDS = 4.0  # a fresh process image imports torch anew
_OPEN_SECONDS = 1.0  # until one was seen
_SLICE_SECONDS = 0.2  # of 0.15 s of training, with its share of waiting
_MOST_ROUNDS = 40  # of a restart: where processes hardly differ, more restarts still guard against what was not seen
_BF16_GAINS = 1.1  # times faster in a matrix product than fp32

Member = tuple[str, TrainingConfig]
"""A label and its configuration: what stands beside what in a block."""


def begin(lab: Lab, stage: Stage) -> bool:
    """Enter `stage`; False where it was finished before."""
    if lab.budget.is_finished(stage):
        return False
    mark = lab.budget.begin(stage)
    lab.tell(
        EventKind.STAGE_STARTED, stage, allotted_seconds=round(mark.deadline_seconds - lab.budget.elapsed_seconds, 1)
    )
    return True


def end(lab: Lab, stage: Stage, reason: StageEnd) -> None:
    """Leave `stage` for good, its trials in the database."""
    if stage not in (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING):  # their proposals are there already
        mirror(lab.storage, lab.study.of_stage(stage))
    lab.budget.finish(stage, reason.value)
    mark = lab.budget.begin(stage)
    spent = lab.budget.elapsed_seconds - mark.started_seconds
    lab.tell(EventKind.STAGE_FINISHED, stage, spent_seconds=round(spent, 1), reason=reason.value)


def expert_of(lab: Lab) -> TrainingConfig:
    """The expert default on this machine; bf16 is part of it where its matrix products are faster."""
    peak = lab.machine.peak_flops
    gains = peak.get("bf16", 0.0) > _BF16_GAINS * peak.get("fp32", float("inf"))
    return expert_default(lab.space, bf16_gains=gains)


def order_block(
    lab: Lab, stage: Stage, block: int, members: Sequence[Member], *, seed: int, horizon_tokens: int = 0
) -> tuple[TrialSpec, ...]:
    """Order a group of sessions with a common seed; the first is what the others are paired with."""
    horizon = horizon_tokens or lab.space.workload.horizon_tokens
    return tuple(
        lab.study.order(stage=stage, label=label, config=config, seed=seed, horizon_tokens=horizon, block=block)
        for label, config in members
    )


def ordered_blocks(lab: Lab, stage: Stage) -> list[tuple[TrialSpec, ...]]:
    """The groups ordered so far in `stage`, by block."""
    specs = lab.study.ordered(stage)
    return [tuple(s for s in specs if s.block == block) for block in sorted({s.block for s in specs})]


def complete_seconds(lab: Lab, horizon_tokens: int) -> float:
    """About how long one session takes to open, train to that horizon and be evaluated, seen from the baseline's."""
    seen = [r for r in lab.study.records if r.spec.label == BASELINE and r.is_complete and r.ready and r.evaluations]
    if not seen:
        return 0.0
    opening = statistics.median(r.costs.open_seconds for r in lab.study.records if r.ready)
    last = seen[-1]
    tokens = last.ready[0].tokens_per_step * sum(len(s.losses) for s in last.slices)
    return opening + last.costs.evaluate_seconds + last.costs.step_seconds * horizon_tokens / tokens


def block_seconds(lab: Lab, sessions: int, *, rounds: int = 0, horizon_tokens: int = 0) -> float:
    """About how long a block of that many sessions takes in fresh processes: `rounds` alone, or whole schedules."""
    compiling = max((r.costs.compile_seconds for r in lab.study.records), default=0.0)
    if rounds:
        each = _OPEN_SECONDS + rounds * _SLICE_SECONDS
    else:
        each = complete_seconds(lab, horizon_tokens or lab.space.workload.horizon_tokens)
    return _RENEWAL_SECONDS + sessions * each + compiling


def pays(lab: Lab, calibration: Calibration, seconds: float, *, log_gain: float) -> bool:
    """Whether `seconds` more of searching cost less than a gain of `log_gain` saves on the plan (METHOD 5).

    True where the plan's length is not known: then the budget alone decides.
    """
    plan_tokens = plan_tokens_of(lab.space, calibration)
    if isinstance(plan_tokens, Unknown):
        return True
    plan_seconds = plan_device_seconds(plan_tokens, lab.space.plan.runs, calibration.rate.estimate)
    saving = plan_seconds * -math.expm1(-log_gain)
    if saving > seconds:
        return True
    stage = lab.budget.current_stage
    lab.tell(
        EventKind.DECISION,
        stage,
        what=f"stop {stage}",
        why=StageEnd.NOT_WORTH_IT.value,
        saving_hoped_for_seconds=round(saving, 1),
        cost_seconds=round(seconds, 1),
    )
    return False


def is_in_sight(lab: Lab, calibration: Calibration, seconds: float, *, best: float = 0.0) -> bool:
    """Whether looking on for `seconds` and confirming what is found would pay in all, with what was spent so far.

    The value of one more trial is foreseen with optimism (METHOD 5); this keeps a search from eating up a
    small plan trial by trial. `best` is the best log-ratio seen.
    """
    whole = (lab.budget.elapsed_seconds + seconds + claim_seconds(lab)) / _HOPED_SHARE
    return pays(lab, calibration, whole, log_gain=max(best, _HOPED_LOG_GAIN))


def claim_seconds(lab: Lab) -> float:
    """About what it takes to confirm anything at all: without it no trial is worth anything."""
    return FEWEST_CONFIRMING * block_seconds(lab, 3)


def floor_of(calibration: Calibration, *, restarts: int, rounds: int = ROUNDS) -> float:
    """The noise floor in log units; `DELTA` where too few copies were measured to tell."""
    floor = calibration.floor(restarts, rounds)
    return DELTA if isinstance(floor, Unknown) else floor


def rounds_per_restart(calibration: Calibration, sessions: int) -> int:
    """How many rounds a block of speed alone is worth, from the noise that calibration saw (METHOD 3.5)."""
    if isinstance(calibration.noise, Unknown):
        return ROUNDS
    restart_seconds = _RENEWAL_SECONDS / sessions + _OPEN_SECONDS
    return min(_MOST_ROUNDS, max(ROUNDS, slices_per_restart(calibration.noise, restart_seconds, _SLICE_SECONDS)))


def warm_start(lab: Lab, base: TrainingConfig, names: Sequence[str]) -> list[TrainingConfig]:
    """The configurations of the study this one was forked from, reduced to `names` and put on `base`."""
    return [base.with_knobs({name: getattr(config, name) for name in names}) for config in lab.study.info.warm_start]
