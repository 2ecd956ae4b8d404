"""What the stages share: beginning and ending one, ordering its trials, foreseeing what they cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autotune.analysis.case import Case, Circumstances
from autotune.analysis.evidence import BASELINE, Calibration
from autotune.analysis.rates import slices_per_restart
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, or_else
from autotune.search.expert import expert_within
from autotune.search.propose import mirror
from autotune.space.configuration import Configuration
from autotune.space.knobs import Dimension, contains
from autotune.study.events import StageFinished, StageNotWorthIt, StageStarted
from autotune.trial.types import Stage, StageEnd, TrialSpec

FEWEST_CONFIRMING = 3  # blocks (docs/method.md, 3.5)
_HOPED_LOG_GAIN = math.log(1.25)  # of a whole search, while nothing better was seen
_HOPED_SHARE = 0.5  # of what is in sight to be saved, that finding it may cost in all
ROUNDS = 12  # pairs of slices of a trial judged on speed: at 10 their spread is 4 % (docs/method.md, 3.4)
DELTA = 0.02  # the lead worth telling apart, in log units, where the noise floor allows
LARGEST_BLOCK = 5  # sessions side by side: more pair worse (docs/method.md, 3.4)
RACE_SEED, CONFIRM_SEED, ATTRIBUTE_SEED, REDUCED_SEED = 100, 200, 300, 400

_RENEWAL_SECONDS = 4.0  # a fresh process image imports torch anew
_OPEN_SECONDS = 1.0  # until one was seen
_SLICE_SECONDS = 0.2  # of 0.15 s of training, with its share of waiting
_MOST_ROUNDS = 40  # of a restart: where processes hardly differ, more restarts still guard against what was not seen

Member = tuple[str, Configuration]
"""A label and its configuration: what stands beside what in a block."""


def begin(lab: Lab, stage: Stage) -> bool:
    """Enter `stage`; False where it was finished before."""
    if lab.budget.is_finished(stage):
        return False
    lab.budget.begin(stage)
    lab.tell(StageStarted(stage=stage, allotted_seconds=round(lab.budget.left_seconds(stage), 1)))
    return True


def end(lab: Lab, stage: Stage, reason: StageEnd) -> None:
    """Leave `stage` for good, its trials in the database."""
    if stage not in (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING):  # their proposals are there already
        mirror(lab.storage, lab.space, lab.study.of_stage(stage))
    lab.budget.finish(stage, reason)
    spent = lab.budget.elapsed_seconds - lab.budget.begin(stage).started_seconds
    lab.tell(StageFinished(stage=stage, spent_seconds=round(spent, 1), reason=reason))


def case_of(lab: Lab, calibration: Calibration, *, search_seconds: float | None = None) -> Case:
    """What the study holds so far, as a case; the search has taken `search_seconds`, as long as it has if not given."""
    marks = {stage: mark for stage in Stage if (mark := lab.study.stage(stage)) and mark.finished}
    facts = Circumstances(
        expert=expert_of(lab),
        expert_anywhere=lab.space.workload.expert(lab.machine),
        search_seconds=lab.budget.elapsed_seconds if search_seconds is None else search_seconds,
        seconds_by_stage=lab.study.seconds_by_stage,
        stage_ends={stage: mark.reason for stage, mark in marks.items() if mark.reason is not None},
        train_tokens=lab.machine.corpus.train_tokens,
        environment=lab.machine.environment,
        peak_flops=lab.machine.peak_flops,
        pruned=lab.pruned,
    )
    return Case(space=lab.space, records=lab.study.records, calibration=calibration, facts=facts)


def expert_of(lab: Lab) -> Configuration:
    """The hand-tuned default on this machine, within the space."""
    return expert_within(lab.space, lab.machine)


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
    """Whether `seconds` more of searching cost less than a gain of `log_gain` saves on the plan (docs/method.md, 5).

    True where the plan's length is not known: then the budget alone decides.
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


def is_in_sight(lab: Lab, calibration: Calibration, seconds: float, *, best: float = 0.0) -> bool:
    """Whether looking on for `seconds` and confirming what is found would pay in all, with what was spent so far.

    The value of one more trial is foreseen with optimism (docs/method.md, 5); this keeps a search from eating up a
    small plan trial by trial. `best` is the best log-ratio seen.
    """
    whole = (lab.budget.elapsed_seconds + seconds + claim_seconds(lab)) / _HOPED_SHARE
    return pays(lab, calibration, whole, log_gain=max(best, _HOPED_LOG_GAIN))


def claim_seconds(lab: Lab) -> float:
    """About what it takes to confirm anything at all: without it no trial is worth anything."""
    return FEWEST_CONFIRMING * block_seconds(lab, 3)


def floor_of(calibration: Calibration, *, restarts: int, rounds: int = ROUNDS) -> float:
    """The noise floor in log units; `DELTA` where too few copies were measured to tell."""
    return or_else(calibration.floor(restarts, rounds), DELTA)


def rounds_per_restart(calibration: Calibration, sessions: int) -> int:
    """How many rounds a block of speed alone is worth, from the noise that calibration saw (docs/method.md, 3.5)."""
    if isinstance(calibration.noise, Unknown):
        return ROUNDS
    restart_seconds = _RENEWAL_SECONDS / sessions + _OPEN_SECONDS
    return min(_MOST_ROUNDS, max(ROUNDS, slices_per_restart(calibration.noise, restart_seconds, _SLICE_SECONDS)))


def warm_start(lab: Lab, base: Configuration, dimensions: Sequence[Dimension]) -> list[Configuration]:
    """The configurations of the study that this one was forked from, along `dimensions`, put on `base`.

    A value that this study does not search any more stays that of `base`.
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
