"""Explore learning knobs on a ladder of token budgets (docs/method.md, 9.2): the trial worth most for its cost next."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.analysis.evidence import ANCHOR, Calibration, calibration_of
from autotune.analysis.informative import least_tokens
from autotune.analysis.ladder import RUNG_FACTOR, Ladder, Option, longest_rung, rungs_between
from autotune.analysis.learning import partner_of
from autotune.measure.lab import Lab
from autotune.quantity import Unknown, or_else
from autotune.search.common import (
    ROUNDS,
    begin,
    case_of,
    claim_seconds,
    complete_seconds,
    cost_of_compiling,
    end,
    expert_of,
    order_block,
    warm_start,
)
from autotune.search.explore import Explored
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import KnobClass
from autotune.study.events import IncumbentFound, NextTrialNotWorthIt
from autotune.trial.types import Stage, StageEnd, TrialSpec
from autotune.workload.design import one_at_a_time

_SEED = 0
_FEWEST_ON_TOP = 3  # runs that the longest budget must leave room for
_SHARE_OF_TOP = 0.6  # of the stage's time: the longest budget may take that much for them
_USUAL_LENGTH = RUNG_FACTOR  # of trials, in those of the first token budget, to choose what they run on
_LEAST_SECONDS = 1e-6
_ENOUGH = 2 / 3  # of the shortest confirmation: two restarts of three give a claim
_RESERVE = 1.15  # times the confirmation that is kept time for: trials may take longer than estimated
_MOST_TRIALS = 100  # whatever they cost: more would not fit one surface better
_MOST_CHECKS = 3  # times that the configuration chosen is itself run at the longest budget
_STAGE = Stage.EXPLORE_LEARNING


@dataclass(frozen=True, kw_only=True, eq=False)
class _Climb:
    """What stays the same over the stage: `base` is the system configuration that trials run on."""

    lab: Lab
    base: Configuration
    log_speed: float
    rungs: tuple[int, ...]
    candidates: tuple[Configuration, ...]


def explore_learning(lab: Lab, calibration: Calibration, explored: Sequence[Explored]) -> Explored:
    """Find the learning knobs of least expected cost at the plan; `explored` are system configurations, best first.

    Trials run on the one that takes the least time, compilation included. Returns it with the learning knobs found, and
    with the expected ln S at the plan as its score.
    """
    space = lab.space
    system = _quickest(lab, explored)
    base = system.config
    dimensions = space.of_class(KnobClass.LEARNING)
    running = begin(lab, _STAGE)
    plan_tokens = case_of(lab, calibration).plan_tokens
    if not dimensions or isinstance(plan_tokens, Unknown):
        if running:
            end(lab, _STAGE, StageEnd.NOTHING_TO_DO)
        return system
    learned = space.turned(base, space.changed(expert_of(lab), KnobClass.LEARNING, base=base))
    designed = [learned, *warm_start(lab, base, dimensions), *one_at_a_time(space, base, dimensions)]
    climb = _Climb(
        lab=lab,
        base=base,
        log_speed=system.score,
        rungs=_rungs(lab, base, plan_tokens),
        candidates=tuple(c for c in dict.fromkeys(designed) if c != base),
    )
    if running:
        end(lab, _STAGE, _run(climb, calibration))
    ladder = _ladder(climb, or_else(calibration_of(lab.study.records), calibration))
    if ladder is None:
        return system
    return Explored(config=ladder.pick, score=system.score - ladder.expected_log_cost(ladder.pick))


def _quickest(lab: Lab, explored: Sequence[Explored]) -> Explored:
    """The system configuration whose trials take the least time."""
    step = complete_seconds(lab, lab.space.workload.horizon_tokens)
    compiling = {r.spec.config: r.costs.compile_seconds for r in lab.study.of_stage(Stage.EXPLORE_SYSTEM)}

    def seconds(each: Explored) -> float:
        return compiling.get(each.config, 0.0) + _USUAL_LENGTH * step * math.exp(-each.score)

    return min(explored, key=seconds)


def _rungs(lab: Lab, base: Configuration, plan_tokens: float) -> tuple[int, ...]:
    """The token budgets: up to what serves the plan best, or informs at all, or to what time and text allow.

    (docs/method.md, 9.6 and 9.1.)
    """
    horizon = lab.space.workload.horizon_tokens
    seconds = _SHARE_OF_TOP * lab.budget.allotted_seconds(_STAGE) / _FEWEST_ON_TOP
    affordable = horizon * seconds / max(complete_seconds(lab, horizon), _LEAST_SECONDS)
    least = least_tokens(lab.space.workload.cost(base).tokens)
    wanted = max(longest_rung(plan_tokens, lab.space.plan.runs), min(least, plan_tokens / RUNG_FACTOR))
    longest = min(wanted, affordable, lab.machine.corpus.train_tokens)
    return rungs_between(max(horizon, min(least, longest) / RUNG_FACTOR), longest)


def _run(climb: _Climb, calibration: Calibration) -> StageEnd:
    """Run trials while one is worth its cost, then the one chosen by itself, until that changes nothing."""
    lab, checks = climb.lab, 0
    pick = climb.base
    while True:
        ladder = _ladder(climb, calibration)
        if ladder is None or len(ladder.tried) >= _MOST_TRIALS:
            return StageEnd.BUDGET
        if ladder.pick != pick:
            pick = ladder.pick
            _tell_pick(climb, ladder)
        options = ladder.options(functools.partial(_cost, climb, _plan_seconds(climb, calibration)))
        affordable = [o for o in options if _fits(climb, calibration, o.config, *o.lengths)]
        longest = max((tokens for _, tokens in ladder.tried), default=0)
        is_checked = pick == climb.base or ladder.was_tried(pick, longest)
        if affordable:
            config, tokens = affordable[0].config, affordable[0].lengths[0]
        elif not is_checked and checks < _MOST_CHECKS and _fits(climb, calibration, pick, longest):
            config, tokens, checks = pick, longest, checks + 1
        else:
            return StageEnd.BUDGET if options else _not_worth_it(climb, calibration, ladder)
        _measure(climb, config, tokens)
        calibration = or_else(calibration_of(lab.study.records), calibration)


def _ladder(climb: _Climb, calibration: Calibration) -> Ladder | None:
    ladder = case_of(climb.lab, calibration).ladder(climb.base, climb.candidates, climb.rungs)
    return None if isinstance(ladder, Unknown) else ladder


def _measure(climb: _Climb, config: Configuration, tokens: int) -> None:
    """Run one trial and, before it, the baseline's learning knobs at its length if they have not been."""
    if _needs_anchor(climb, config, tokens):
        _trial(climb, ANCHOR, climb.base, tokens)
    _trial(climb, f"trial {len(climb.lab.study.of_stage(_STAGE))}", config, tokens)


def _trial(climb: _Climb, label: str, config: Configuration, tokens: int) -> None:
    block = len(climb.lab.study.of_stage(_STAGE))
    (spec,) = order_block(climb.lab, _STAGE, block, [(label, config)], seed=_SEED, horizon_tokens=tokens)
    climb.lab.trial(spec, rounds=ROUNDS, complete=True)


def _needs_anchor(climb: _Climb, config: Configuration, tokens: int) -> bool:
    spec = TrialSpec(number=0, stage=_STAGE, label="", config=config, seed=_SEED, horizon_tokens=tokens, block=0)
    return isinstance(partner_of(spec, climb.lab.study.records, climb.lab.space), Unknown)


def _seconds(climb: _Climb, config: Configuration, tokens: int) -> float:
    """Of a trial, its partner included if that has to be run."""
    runs = 1 + _needs_anchor(climb, config, tokens)
    opening = complete_seconds(climb.lab, 0)
    return runs * (opening + (complete_seconds(climb.lab, tokens) - opening) * math.exp(-climb.log_speed))


def _fits(climb: _Climb, calibration: Calibration, config: Configuration, *lengths: int) -> bool:
    left = min(
        climb.lab.budget.left_seconds(_STAGE),
        climb.lab.budget.remaining_seconds - _RESERVE * claim_seconds(climb.lab, calibration, climb.base),
    )
    return sum(_seconds(climb, config, tokens) for tokens in lengths) <= left


def _plan_seconds(climb: _Climb, calibration: Calibration) -> float:
    """Of the plan on this system configuration."""
    return or_else(case_of(climb.lab, calibration).plan_seconds, math.inf) * math.exp(-climb.log_speed)


def _cost(climb: _Climb, plan_seconds: float, config: Configuration, tokens: int) -> float:
    """Of a trial, as a share of the plan's cost."""
    return _seconds(climb, config, tokens) / plan_seconds


def _tell_pick(climb: _Climb, ladder: Ladder) -> None:
    records = climb.lab.study.of_stage(_STAGE)
    climb.lab.tell(
        IncumbentFound(
            stage=_STAGE,
            number=records[-1].spec.number if records else 0,
            label="expected best for the plan",
            speedup=math.exp(climb.log_speed - ladder.expected_log_cost(ladder.pick)),
            changes=climb.lab.space.changed(ladder.pick),
        )
    )


def _not_worth_it(climb: _Climb, calibration: Calibration, ladder: Ladder) -> StageEnd:
    lab = climb.lab
    every = ladder.options(lambda _, __: 0.0)
    case = case_of(lab, calibration)
    economics = case.economics_of(case.baseline, power=case.baseline_power, search_seconds=case.facts.search_seconds)
    if every and not isinstance(economics, Unknown):
        best: Option = max(every, key=lambda option: option.gain)
        seconds = sum(_seconds(climb, best.config, tokens) for tokens in best.lengths)
        whole = economics.baseline_device_seconds * economics.price_per_device_second
        lab.tell(
            NextTrialNotWorthIt(
                stage=_STAGE,
                expected_saving=best.gain * whole * math.exp(-climb.log_speed),
                trial_cost=seconds * economics.price_per_device_second,
                currency=lab.space.plan.currency,
            )
        )
    return StageEnd.NOT_WORTH_IT


def finalists_of(
    lab: Lab, calibration: Calibration, explored: Sequence[Explored], learned: Explored
) -> tuple[Explored, ...]:
    """The chosen learning knobs on every system configuration explored, best first by expected ln S.

    What compiling costs is taken off; what takes more time to confirm than is left is not in the list.
    """
    gained = learned.score - _quickest(lab, explored).score
    found = {learned.config: learned}
    knobs = lab.space.changed(learned.config, KnobClass.LEARNING)
    for other in explored:
        with contextlib.suppress(InvalidConfiguration):
            config = lab.space.turned(other.config, knobs)
            found.setdefault(config, Explored(config=config, score=gained + other.score))
    left = lab.budget.remaining_seconds

    def is_affordable(config: Configuration) -> bool:
        share = 1.0 if lab.space.workload.cost(config).compiles else _ENOUGH
        return share * claim_seconds(lab, calibration, config) <= left

    ranked = [
        Explored(config=each.config, score=each.score - cost_of_compiling(lab, calibration, each.config))
        for each in found.values()
        if is_affordable(each.config)
    ]
    return tuple(sorted(ranked or found.values(), key=lambda each: -each.score))
