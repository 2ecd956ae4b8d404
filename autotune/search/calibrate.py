"""Calibrate: this machine's noise floor, and the baseline's loss over token budgets."""

from __future__ import annotations

from autotune.analysis.evidence import BASELINE, NOISE_BATCHES, Calibration, calibration_of
from autotune.errors import NothingFeasible
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
from autotune.trial.types import Stage, StageEnd, outcome_reason
from autotune.workload.space import SearchSpace

_SMALLEST_CURVE = 2  # token budgets besides D that a loss curve needs at least


def calibrate(lab: Lab) -> Calibration:
    """Measure copies of the baseline at several token budgets against the warm reference (docs/method.md, 3.6 and 4.2).

    The runs serve two purposes. They give the loss curve; and since each is a copy of the baseline, their
    slices against the reference are the A/A measurement.

    Raises:
        NothingFeasible: the baseline cannot be trained here.
    """
    stage, baseline, horizon = Stage.CALIBRATE, lab.space.baseline, lab.space.workload.horizon_tokens
    if begin(lab, stage):
        batches = NOISE_BATCHES if _searches_step_size(lab.space) else 0
        _run(lab, BASELINE, baseline, seed=0, horizon_tokens=horizon, noise_batches=batches)
        first = calibration_of(lab.study.of_stage(stage))
        reason = StageEnd.DONE
        series = [(horizon // 4, 0), (horizon // 2, 0), (horizon // 4, 1), (horizon // 2, 1)]
        if not isinstance(first, Unknown):
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
        why = "; ".join(dict.fromkeys(outcome_reason(r.outcome) for r in lab.study.of_stage(stage)))
        why = why or calibration.reason
        raise NothingFeasible(f"the baseline must be trainable here; got {why}: change [baseline] or the budget")
    limit_to_plan(lab, calibration)
    return calibration


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
    if lab.budget.remaining_seconds <= 0:
        return
    (spec,) = order_block(lab, Stage.CALIBRATE, seed, [(label, config)], seed=seed, horizon_tokens=horizon_tokens)
    lab.trial(spec, rounds=ROUNDS, complete=True, noise_batches=noise_batches)
