"""The ablation stage: leave out one technique at a time, then confirm without the idle ones (docs/method.md, 6.3)."""

from __future__ import annotations

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
)
from autotune.trial.types import Stage, StageEnd

_REPLICATES = 3
_WORTH_KNOWING = 0.2  # the ablation may cost this share of the claimed gain
_REDUCED_SESSIONS = 3  # the reduced configuration, the baseline, the hand-tuned default
_REDUCED_BLOCK = 100  # blocks of the reduced configuration are numbered from here


def attribute(lab: Lab, calibration: Calibration, claim: Claim | Unknown) -> None:
    """Ablate each technique of the claimed configuration, then confirm the reduced configuration, if there is one."""
    stage = Stage.ATTRIBUTE
    if not begin(lab, stage):
        return
    forecast = case_of(lab, calibration).forecast_for(claim)
    if isinstance(claim, Unknown) or isinstance(forecast, Unknown) or forecast.net.low <= 0:
        end(lab, stage, StageEnd.NOTHING_TO_DO)
        return
    variants = without(lab.space, claim.config)
    seconds = block_seconds(lab, len(variants) + 1) if len(variants) > 1 else 0.0
    gain = _WORTH_KNOWING * or_else(combine(lambda total: total.estimate, claim.total), 0.0)
    if not lab.study.of_stage(stage) and not pays(lab, calibration, seconds, log_gain=gain):
        end(lab, stage, StageEnd.NOT_WORTH_IT)
        return
    reason = _leave_one_out(lab, claim)
    if reason is StageEnd.DONE:
        reason = _confirm_reduced(lab, calibration, claim)
    end(lab, stage, reason)


def _leave_one_out(lab: Lab, claim: Claim) -> StageEnd:
    variants: list[Member] = list(without(lab.space, claim.config).items())
    if len(variants) < 2:
        return StageEnd.DONE  # a single technique's effect is the whole claim, which is confirmed already
    size = LARGEST_BLOCK - 1
    groups = [variants[i : i + size] for i in range(0, len(variants), size)]
    reserve = _REPLICATES * block_seconds(lab, _REDUCED_SESSIONS)
    for replicate in range(_REPLICATES):
        for number, group in enumerate(groups):
            seconds = block_seconds(lab, len(group) + 1)
            if seconds > lab.budget.remaining_seconds:
                return StageEnd.BUDGET
            if replicate and number == 0 and seconds * len(groups) + reserve > lab.budget.remaining_seconds:
                return StageEnd.DONE  # one replicate finds the idle techniques; save the time to confirm the rest
            specs = order_block(
                lab,
                Stage.ATTRIBUTE,
                replicate * len(groups) + number,
                [(CLAIM, claim.config), *group],
                seed=ATTRIBUTE_SEED + replicate,
            )
            lab.block(specs, complete=True)
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
        if block_seconds(lab, len(members)) > lab.budget.remaining_seconds:
            return StageEnd.BUDGET
        specs = order_block(
            lab,
            Stage.ATTRIBUTE,
            _REDUCED_BLOCK + number,
            members,
            seed=REDUCED_SEED + number,
        )
        lab.block(specs, complete=True)
    return StageEnd.DONE
