"""Confirm: the winner against the baseline on fresh seeds, the number fixed in advance (docs/method.md, 6.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.analysis.claims import Claim
from autotune.analysis.evidence import ANCHOR, BASELINE, CONFIRM_SEED, EXPERT, SYSTEM_PART, WINNER, Calibration
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, or_else
from autotune.search.common import (
    FEWEST_CONFIRMING,
    ROUNDS_OF_CLAIM,
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
    rounds_per_restart,
)
from autotune.search.explore import Explored
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobClass
from autotune.trial.types import Stage, StageEnd, TrialSpec

_MOST = 6  # blocks
_LEARNING_BLOCKS = 2  # of the learning knobs alone, on fresh seeds
_MOST_OF_PLAN = 0.008  # the share of the plan's cost that confirmation may take (docs/method.md, 5)
_STAGE = Stage.CONFIRM


def confirm(lab: Lab, calibration: Calibration, winner: Explored) -> Claim | Unknown:
    """Run the winner, its system part and the hand-tuned default beside the baseline. Returns what may be claimed.

    The system part is what is left if a learning gain is not shown to last. The hand-tuned default shows how much of
    the gain needed no search.
    """
    if begin(lab, _STAGE):
        ordered = bool(ordered_blocks(lab, _STAGE))
        if winner.config == lab.space.baseline:
            end(lab, _STAGE, StageEnd.NOTHING_TO_DO)
        elif not ordered and not pays(
            lab, calibration, claim_seconds(lab, calibration, winner.config), log_gain=winner.score
        ):
            end(lab, _STAGE, StageEnd.NOT_WORTH_IT)
        else:
            if not ordered:
                _order(lab, calibration, winner.config)
            end(lab, _STAGE, _run(lab, calibration))
    return case_of(lab, calibration).whole


def _order(lab: Lab, calibration: Calibration, winner: Configuration) -> None:
    """Fix the number of blocks: as many as the stage can afford, within bounds. A resumed search keeps that number.

    The hand-tuned default is part of them where that still leaves time for all others.
    """
    space = lab.space
    system, expert = space.system_part(winner), expert_of(lab)
    members: list[Member] = [(BASELINE, space.baseline), (WINNER, winner)]
    if system not in (winner, space.baseline):
        members.append((SYSTEM_PART, system))
    plan_seconds = or_else(case_of(lab, calibration).plan_seconds, math.inf)
    affordable = min(lab.budget.left_seconds(_STAGE), _MOST_OF_PLAN * plan_seconds)
    if expert not in (c for _, c in members):
        with_expert = [*members, (EXPERT, expert)]
        if FEWEST_CONFIRMING * _seconds(lab, calibration, with_expert) <= affordable:
            members = with_expert
    seconds = _seconds(lab, calibration, members)
    blocks = max(FEWEST_CONFIRMING, min(_MOST, int(affordable / seconds)))
    for block in range(blocks):
        order_block(lab, _STAGE, block, members, seed=CONFIRM_SEED + block)
    if space.changed(winner, KnobClass.LEARNING):
        _order_learning(lab, [(ANCHOR, system), (WINNER, winner)], blocks, affordable - blocks * seconds)


def _seconds(lab: Lab, calibration: Calibration, members: Sequence[Member]) -> float:
    return block_seconds(lab, [config for _, config in members], rounds=_rounds(lab, calibration, members))


def _order_learning(lab: Lab, members: Sequence[Member], first: int, affordable: float) -> None:
    """Compare the learning knobs on fresh seeds, at the longest token budget of the ladder that is affordable."""
    configs = [config for _, config in members]
    lengths = sorted({r.spec.horizon_tokens for r in lab.study.of_stage(Stage.EXPLORE_LEARNING)})
    for tokens in reversed(lengths):
        if _LEARNING_BLOCKS * block_seconds(lab, configs, horizon_tokens=tokens) <= affordable:
            for block in range(first, first + _LEARNING_BLOCKS):
                order_block(lab, _STAGE, block, members, seed=CONFIRM_SEED + block, horizon_tokens=tokens)
            return


def _run(lab: Lab, calibration: Calibration) -> StageEnd:
    for specs in ordered_blocks(lab, _STAGE):
        missing = [s for s in specs if lab.study.result_of(s) is None]
        members = [(s.label, s.config) for s in specs]
        rounds = 0 if _is_of_learning(specs) else _rounds(lab, calibration, members)
        seconds = block_seconds(lab, [s.config for s in missing], rounds=rounds, horizon_tokens=specs[0].horizon_tokens)
        if missing and seconds > lab.budget.remaining_seconds:
            return StageEnd.BUDGET
        if rounds:
            lab.block(specs, complete=False, rounds=rounds)
        else:
            lab.block(specs, complete=True)
    return StageEnd.DONE


def _is_of_learning(specs: Sequence[TrialSpec]) -> bool:
    return specs[0].label == ANCHOR


def _rounds(lab: Lab, calibration: Calibration, members: Sequence[Member]) -> int:
    """Rounds of slices per block; 0 if precision changes: then losses of complete schedules are compared as well.

    As many as pay at this machine's noise, fewer if the plan cannot afford them.
    """
    if any(lab.space.changed(config, KnobClass.NUMERICS) for label, config in members if label != EXPERT):
        return 0
    best = rounds_per_restart(calibration, len(members))
    plan_seconds = or_else(case_of(lab, calibration).plan_seconds, math.inf)
    configs = [config for _, config in members]
    seconds = FEWEST_CONFIRMING * block_seconds(lab, configs, rounds=best)
    return best if seconds <= _MOST_OF_PLAN / 2 * plan_seconds else min(best, ROUNDS_OF_CLAIM)
