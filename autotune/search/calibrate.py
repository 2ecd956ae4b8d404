"""Calibrate: this machine's noise floor, and the baseline's loss over token budgets."""

from __future__ import annotations

import math

from autotune.analysis.evidence import BASELINE, NOISE_BATCHES, Calibration, calibration_of
from autotune.errors import BadInput, NothingFeasible
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.search.common import (
    ROUNDS,
    begin,
    complete_seconds,
    end,
    is_in_reach,
    limit_to_plan,
    order_block,
)
from autotune.space.configuration import Configuration
from autotune.space.knobs import FloatRange, KnobClass, members
from autotune.trial.types import Completed, Failed, Infeasible, Pruned, Stage, StageEnd, TrialRecord, outcome_reason
from autotune.workload.space import SearchSpace

_SMALLEST_CURVE = 2  # token budgets besides D that a loss curve needs at least
_TRIES = 3  # in a sitting; each is confirmed once by the lab
_BLOCKS_OF_A_TRY = 100  # blocks of a further try are numbered from a multiple of this


def calibrate(lab: Lab) -> Calibration:
    """Measure copies of the baseline at several token budgets against the warm reference (docs/method.md, 3.6 and 4.2).

    The runs serve two purposes. They give the loss curve; and since each is a copy of the baseline, their
    slices against the reference are the A/A measurement.

    The stage is finished only with a measurement: what kept the baseline from running may be over in the next sitting.

    Raises:
        NothingFeasible: the baseline cannot be trained here.
        BadInput: the budget was spent before it was.
    """
    stage, baseline, horizon = Stage.CALIBRATE, lab.space.baseline, lab.space.workload.horizon_tokens
    if begin(lab, stage):
        batches = NOISE_BATCHES if _searches_step_size(lab.space) else 0
        _run(lab, BASELINE, baseline, seed=0, horizon_tokens=horizon, noise_batches=batches)
        first = calibration_of(lab.study.of_stage(stage))
        if isinstance(first, Unknown):
            raise _nothing_measured(lab, first)  # and the stage goes on in the next sitting
        reason = StageEnd.DONE
        series = [(horizon // 4, 0), (horizon // 2, 0), (horizon // 4, 1), (horizon // 2, 1)]
        limit_to_plan(lab, first)
        if not is_in_reach(lab, first, sum(complete_seconds(lab, tokens) for tokens, _ in series)):
            series, reason = [], StageEnd.NOT_WORTH_IT if lab.budget.is_limited else StageEnd.BUDGET
        for done, (tokens, seed) in enumerate(series):
            seconds = complete_seconds(lab, tokens)
            left = lab.budget.left_seconds(stage) if done >= _SMALLEST_CURVE else lab.budget.remaining_seconds
            if seconds > left:
                reason = StageEnd.BUDGET
                break
            if tokens >= lab.space.workload.cost(baseline).tokens:
                at_half = (tokens, seed) == (horizon // 2, 0)
                noise_batches = batches if at_half else 0
                _run(lab, BASELINE, baseline, seed=seed, horizon_tokens=tokens, noise_batches=noise_batches)
        end(lab, stage, reason)
    calibration = calibration_of(lab.study.records)
    if isinstance(calibration, Unknown):
        raise _nothing_measured(lab, calibration)
    limit_to_plan(lab, calibration)
    return calibration


def _nothing_measured(lab: Lab, calibration: Unknown) -> NothingFeasible | BadInput:
    """Why the baseline has no speed, in one line: lack of time is no fault of the baseline."""
    outcomes = [r.outcome for r in lab.study.of_stage(Stage.CALIBRATE)]
    failures = [outcome_reason(o) for o in outcomes if isinstance(o, Infeasible | Failed)]
    why = "; ".join(dict.fromkeys(failures)) or calibration.reason
    if failures and lab.budget.remaining_seconds > 0:
        return NothingFeasible(f"the baseline must be trainable here; got {why}: change [baseline]")
    total, spent = lab.budget.total_seconds, lab.budget.elapsed_seconds
    minutes = math.ceil(2 * max(total, spent) / 60)
    return BadInput(
        f"a budget must leave time to measure the baseline; {spent:.0f} s of {total:.0f} s went by before "
        f"({why}): `autotune resume {lab.study.name} --budget {minutes}m` goes on"
    )


def _is_sound(record: TrialRecord) -> bool:
    """Whether a copy of the baseline was measured."""
    return bool(record.slices) and isinstance(record.outcome, Completed | Pruned)


def _searches_step_size(space: SearchSpace) -> bool:
    """Whether a learning knob changes the tokens per step. Only then is the gradient noise worth measuring."""
    tokens = space.workload.cost(space.baseline).tokens
    for dimension in space.of_class(KnobClass.LEARNING):
        domain, name = dimension.domain, dimension.knob.name
        values = (domain.low, domain.high) if isinstance(domain, FloatRange) else members(domain)
        for value in values:
            turned = next(space.turn(space.baseline, name, value, space.values), space.baseline)
            if space.workload.cost(turned).tokens != tokens:
                return True
    return False


def _run(
    lab: Lab, label: str, config: Configuration, *, seed: int, horizon_tokens: int, noise_batches: int = 0
) -> None:
    """Measure a copy of the baseline. One that failed is ordered anew, a few times in a sitting and in the next."""
    for _ in range(_TRIES):
        if lab.budget.remaining_seconds <= 0:
            return
        failed = [
            r
            for r in lab.study.of_stage(Stage.CALIBRATE)
            if (r.spec.label, r.spec.seed, r.spec.horizon_tokens) == (label, seed, horizon_tokens) and not _is_sound(r)
        ]
        block = seed + _BLOCKS_OF_A_TRY * len(failed)
        member = [(label, config)]
        (spec,) = order_block(lab, Stage.CALIBRATE, block, member, seed=seed, horizon_tokens=horizon_tokens)
        record = lab.trial(spec, rounds=ROUNDS, complete=True, noise_batches=noise_batches)
        if _is_sound(record) or isinstance(record.outcome, Infeasible):
            return
