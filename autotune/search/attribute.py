"""The ablation stage: leave out one technique at a time, then confirm without the idle ones (docs/method.md, 6.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.analysis.claims import Claim
from autotune.analysis.evidence import BASELINE, CLAIM, EXPERT, REDUCED, Calibration
from autotune.analysis.techniques import is_droppable, technique_effects, without
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, combine, or_else
from autotune.search.common import (
    ATTRIBUTE_SEED,
    LARGEST_BLOCK,
    REDUCED_SEED,
    Member,
    begin,
    block_seconds,
    case_of,
    end,
    expert_of,
    floor_of,
    order_block,
    pays,
    rounds_per_restart,
)
from autotune.space.knobs import KnobClass
from autotune.trial.types import Stage, StageEnd

_STAGE = Stage.ATTRIBUTE
_REPLICATES = 3
_MOST_OF_PLAN = 0.001  # the share of the plan's cost that one round of the ablation may take
_WORTH_KNOWING = 0.2  # the ablation may cost this share of the claimed gain
_REDUCED_BLOCK = 100  # blocks of the reduced configuration are numbered from here


def attribute(lab: Lab, calibration: Calibration, claim: Claim | Unknown) -> None:
    """Ablate each technique of the claimed configuration, then confirm the reduced configuration, if there is one."""
    if not begin(lab, _STAGE):
        return
    forecast = case_of(lab, calibration).forecast_for(claim)
    if isinstance(claim, Unknown) or isinstance(forecast, Unknown) or forecast.net.low <= 0:
        end(lab, _STAGE, StageEnd.NOTHING_TO_DO)
        return
    variants = without(lab.space, claim.config)
    members: list[Member] = [(CLAIM, claim.config), *variants.items()]
    seconds = _seconds(lab, calibration, members) if len(variants) > 1 else 0.0
    gain = _WORTH_KNOWING * or_else(combine(lambda total: total.estimate, claim.total), 0.0)
    plan_seconds = or_else(case_of(lab, calibration).plan_seconds, math.inf)
    is_dear = seconds > _MOST_OF_PLAN * plan_seconds
    if not lab.study.of_stage(_STAGE) and (is_dear or not pays(lab, calibration, seconds, log_gain=gain)):
        end(lab, _STAGE, StageEnd.NOT_WORTH_IT)
        return
    reason = _leave_one_out(lab, calibration, claim)
    if reason is StageEnd.DONE:
        reason = _confirm_reduced(lab, calibration, claim)
    end(lab, _STAGE, reason)


def _leave_one_out(lab: Lab, calibration: Calibration, claim: Claim) -> StageEnd:
    variants: list[Member] = list(without(lab.space, claim.config).items())
    if len(variants) < 2:
        return StageEnd.DONE  # a single technique's effect is the whole claim, which is confirmed already
    size = LARGEST_BLOCK - 1
    groups = [variants[i : i + size] for i in range(0, len(variants), size)]
    reserve = _REPLICATES * _seconds(lab, calibration, [(BASELINE, lab.space.baseline), (REDUCED, claim.config)])
    for replicate in range(_REPLICATES):
        for number, group in enumerate(groups):
            members = [(CLAIM, claim.config), *group]
            seconds = _seconds(lab, calibration, members)
            if seconds > lab.budget.remaining_seconds:
                return StageEnd.BUDGET
            if replicate and number == 0 and seconds * len(groups) + reserve > lab.budget.remaining_seconds:
                return StageEnd.DONE  # one replicate finds the idle techniques; save the time to confirm the rest
            _run(lab, calibration, replicate * len(groups) + number, members, seed=ATTRIBUTE_SEED + replicate)
    return StageEnd.DONE


def _confirm_reduced(lab: Lab, calibration: Calibration, claim: Claim) -> StageEnd:
    baseline = lab.space.baseline
    floor = floor_of(calibration, restarts=_REPLICATES)
    reduced = claim.config
    for technique in technique_effects(case_of(lab, calibration)):
        if is_droppable(technique, floor):
            reduced = next(lab.space.turned_back(reduced, technique.name), reduced)
    if reduced in (claim.config, baseline):
        return StageEnd.DONE
    members: list[Member] = [(BASELINE, baseline), (REDUCED, reduced)]
    if (expert := expert_of(lab)) not in (baseline, reduced):
        members.append((EXPERT, expert))
    for number in range(_REPLICATES):
        if _seconds(lab, calibration, members) > lab.budget.remaining_seconds:
            return StageEnd.BUDGET
        _run(lab, calibration, _REDUCED_BLOCK + number, members, seed=REDUCED_SEED + number)
    return StageEnd.DONE


def _run(lab: Lab, calibration: Calibration, block: int, members: Sequence[Member], *, seed: int) -> None:
    specs = order_block(lab, _STAGE, block, members, seed=seed)
    if _compares_losses(lab, members):
        lab.block(specs, complete=True)
    else:
        lab.block(specs, complete=False, rounds=rounds_per_restart(calibration, len(members)))


def _seconds(lab: Lab, calibration: Calibration, members: Sequence[Member]) -> float:
    rounds = 0 if _compares_losses(lab, members) else rounds_per_restart(calibration, len(members))
    return block_seconds(lab, [config for _, config in members], rounds=rounds)


def _compares_losses(lab: Lab, members: Sequence[Member]) -> bool:
    """Whether a block needs complete schedules: for learning knobs, and for precision against the baseline.

    What precision does to the loss was confirmed already for the whole; leaving out another technique changes none.
    """
    configs = [config for label, config in members if label != EXPERT]
    if any(lab.space.changed(config, KnobClass.LEARNING) for config in configs):
        return True
    return members[0][0] == BASELINE and any(lab.space.changed(c, KnobClass.NUMERICS) for c in configs)
