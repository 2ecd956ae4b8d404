"""Confirm: the winner against the baseline on fresh seeds, the number fixed in advance (docs/method.md, 6.2)."""

from __future__ import annotations

from autotune.analysis.claims import Claim
from autotune.analysis.evidence import BASELINE, EXPERT, SYSTEM_PART, WINNER, Calibration
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.search.common import (
    CONFIRM_SEED,
    FEWEST_CONFIRMING,
    Member,
    begin,
    block_seconds,
    case_of,
    claim_seconds,
    end,
    expert_of,
    order_block,
    ordered_blocks,
    pays,
)
from autotune.search.explore import Explored
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobClass
from autotune.trial.types import Stage, StageEnd

_MOST = 6  # blocks
_AT_HALF_HORIZON = 2  # restarts at half the token budget: they show how a learning gain changes with it


def confirm(lab: Lab, calibration: Calibration, winner: Explored) -> Claim | Unknown:
    """Run the winner, its system part and the hand-tuned default beside the baseline. Returns what may be claimed.

    The system part is the fallback if a learning gain does not hold for the plan. The hand-tuned
    default shows how much of the gain needed no search.
    """
    stage = Stage.CONFIRM
    if begin(lab, stage):
        ordered = bool(ordered_blocks(lab, stage))
        if winner.config == lab.space.baseline:
            end(lab, stage, StageEnd.NOTHING_TO_DO)
        elif not ordered and not pays(lab, calibration, claim_seconds(lab), log_gain=winner.score):
            end(lab, stage, StageEnd.NOT_WORTH_IT)
        else:
            if not ordered:
                _order(lab, winner.config)
            end(lab, stage, _run(lab))
    return case_of(lab, calibration).whole


def _order(lab: Lab, winner: Configuration) -> None:
    """Fix the number of blocks: as many as the stage can afford, within bounds. A resumed search keeps that number."""
    space = lab.space
    system, expert = space.system_part(winner), expert_of(lab)
    members: list[Member] = [(BASELINE, space.baseline), (WINNER, winner)]
    if system not in (winner, space.baseline):
        members.append((SYSTEM_PART, system))
    if expert not in (c for _, c in members):
        members.append((EXPERT, expert))
    seconds = block_seconds(lab, len(members))
    blocks = max(FEWEST_CONFIRMING, min(_MOST, int(lab.budget.left_seconds(Stage.CONFIRM) / seconds)))
    for block in range(blocks):
        order_block(lab, Stage.CONFIRM, block, members, seed=CONFIRM_SEED + block)
    if space.changed(winner, KnobClass.LEARNING):
        half = space.workload.horizon_tokens // 2
        for block in range(blocks, blocks + _AT_HALF_HORIZON):
            order_block(lab, Stage.CONFIRM, block, members[:2], seed=CONFIRM_SEED + block, horizon_tokens=half)


def _run(lab: Lab) -> StageEnd:
    for specs in ordered_blocks(lab, Stage.CONFIRM):
        missing = [s for s in specs if lab.study.result_of(s) is None]
        seconds = block_seconds(lab, len(missing), horizon_tokens=specs[0].horizon_tokens)
        if missing and seconds > lab.budget.remaining_seconds:
            return StageEnd.BUDGET
        lab.block(specs, complete=True)
    return StageEnd.DONE
