"""Race: Kim-Nelson selection among the finalists by speed, in fresh processes on a fresh seed (docs/method.md, 6.1).

Finalists have the same learning knobs: what those do at the plan's length is not decided by short trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.analysis.evidence import BASELINE, Calibration, effects_of
from autotune.analysis.ladder import value_of_measuring
from autotune.analysis.race import survivors
from autotune.analysis.rates import FloatArray
from autotune.measure.lab import Lab
from autotune.search.common import (
    DELTA,
    RACE_SEED,
    begin,
    block_seconds,
    end,
    floor_of,
    order_block,
    ordered_blocks,
    pays,
    rounds_per_restart,
)
from autotune.search.explore import Explored
from autotune.space.configuration import Configuration
from autotune.study.events import RaceWon
from autotune.trial.types import Stage, StageEnd

_ALPHA = 0.05
_FIRST_STAGE = 5
_FINALISTS = 4
_EXPLORED_SD = 0.05  # of the difference of two explored speeds, each from one pair of processes
_HOPELESS = 3.0  # deltas behind the leader: not raced


def race(lab: Lab, calibration: Calibration, finalists: Sequence[Explored]) -> Explored:
    """The winner among `finalists` (best first by exploration): the simplest of those not distinguishable.

    If there is no close contest, or racing would cost more than it saves, exploration decides.
    """
    stage = Stage.RACE
    running = begin(lab, stage)
    rounds = rounds_per_restart(calibration, _FINALISTS + 1)
    delta = lead_worth_finding(lab, calibration, rounds)
    contested = _contested(lab, finalists, delta, rounds)
    if len(contested) < 2:
        if running:
            close = len(finalists) > 1 and finalists[1].score > finalists[0].score - _HOPELESS * delta
            end(lab, stage, StageEnd.BUDGET if close else StageEnd.NOTHING_TO_DO)
        return finalists[0]
    seconds = _FIRST_STAGE * _block_seconds(lab, contested, rounds)
    gain = value_of_measuring(finalists[1].score - finalists[0].score, _EXPLORED_SD)
    if running and not ordered_blocks(lab, stage) and not pays(lab, calibration, seconds, log_gain=gain):
        end(lab, stage, StageEnd.NOT_WORTH_IT)
        return finalists[0]
    if running:
        end(lab, stage, _run(lab, calibration, contested, delta, rounds))
    scores = _scores(lab, calibration, len(contested))
    alive = survivors(scores, delta=delta, alpha=_ALPHA, first_stage=_FIRST_STAGE)
    means = {i: float(np.nanmean(scores[:, i])) for i in alive if not np.isnan(scores[:, i]).all()}
    if not means:
        return finalists[0]
    near = [i for i, mean in means.items() if mean >= max(means.values()) - delta]
    best = min(near, key=lambda i: (lab.space.complexity(contested[i]), -means[i]))
    lab.tell(RaceWon(stage=stage, label=_label(best), changes=lab.space.changed(contested[best])))
    return Explored(config=contested[best], score=means[best])


def lead_worth_finding(lab: Lab, calibration: Calibration, rounds: int) -> float:
    """The delta of the race in log units, at least what noise and budget can resolve (docs/method.md, 3.6)."""
    seconds = lab.budget.allotted_seconds(Stage.RACE)
    blocks = max(
        _FIRST_STAGE, int(seconds / block_seconds(lab, [lab.space.baseline] * (_FINALISTS + 1), rounds=rounds))
    )
    return max(DELTA, floor_of(calibration, restarts=blocks, rounds=rounds))


def _contested(lab: Lab, finalists: Sequence[Explored], delta: float, rounds: int) -> list[Configuration]:
    """The configurations that race: those of the first block ordered, else as many leaders as the stage can afford."""
    if blocks := ordered_blocks(lab, Stage.RACE):
        return [spec.config for spec in blocks[0] if spec.label != BASELINE]
    leader = finalists[0].score
    near = [f.config for f in finalists[:_FINALISTS] if f.score > leader - _HOPELESS * delta]
    affordable = lab.budget.left_seconds(Stage.RACE)
    while len(near) > 1:
        if _FIRST_STAGE * _block_seconds(lab, near, rounds) <= affordable:
            break
        near.pop()
    return near


def _run(lab: Lab, calibration: Calibration, contested: Sequence[Configuration], delta: float, rounds: int) -> StageEnd:
    alive: Sequence[int] = range(len(contested))
    block = 0
    while len(alive) > 1:
        enough = block >= _FIRST_STAGE
        seconds = _block_seconds(lab, [contested[i] for i in alive], rounds)
        if enough and seconds > lab.budget.left_seconds(Stage.RACE):
            return StageEnd.BUDGET
        if lab.budget.remaining_seconds <= 0:
            return StageEnd.BUDGET
        members = [(BASELINE, lab.space.baseline), *((_label(i), contested[i]) for i in alive)]
        specs = order_block(lab, Stage.RACE, block, members, seed=RACE_SEED + block)
        lab.block(specs, complete=False, rounds=rounds)
        block += 1
        scores = _scores(lab, calibration, len(contested))
        alive = survivors(scores, delta=delta, alpha=_ALPHA, first_stage=_FIRST_STAGE)
    return StageEnd.DONE


def _block_seconds(lab: Lab, contested: Sequence[Configuration], rounds: int) -> float:
    return block_seconds(lab, [lab.space.baseline, *contested], rounds=rounds)


def _scores(lab: Lab, calibration: Calibration, finalists: int) -> FloatArray:
    """ln of speed over the baseline, shape (blocks, finalists); NaN where a finalist did not run or failed."""
    records = lab.study.of_stage(Stage.RACE)
    blocks = sorted({r.spec.block for r in records})
    scores = np.full((len(blocks), finalists), np.nan)
    for index in range(finalists):
        for effect in effects_of(records, _label(index), against=BASELINE, curve=calibration.curve):
            scores[blocks.index(effect.block), index] = effect.total
    return scores


def _label(index: int) -> str:
    return f"finalist {index + 1}"
