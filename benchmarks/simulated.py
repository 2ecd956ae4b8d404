"""One search in a world of known truth, and what its answer costs: the studies that `truth.py` counts."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import rivals

from autotune.analysis.caveat import SearchStoppedEarly
from autotune.analysis.decision import Expected, Look, NotInformative, Prospect, RaceInRun, Trunks, Watch
from autotune.analysis.recommendation import Recommendation, Verdict
from autotune.quantity import Interval
from autotune.search.expert import expert_within
from autotune.simulation.executor import MACHINE
from autotune.simulation.families import Family, draw
from autotune.simulation.study import simulate
from autotune.simulation.workload import simulated_gpt
from autotune.simulation.worlds import DrawnWorld, best_of, plan_seconds, same_everywhere, with_best_system
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.space.knobs import KnobClass
from autotune.workload.space import SearchSpace
from autotune.workload.space import space_of as read_space

SPACE_TEXT = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 100_000

[plan]
tokens = 30_000_000
runs = 10
device_hour_usd = 0.1

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
micro_batch = [4, 8, 16]
global_batch = [8, 16, 32]
dtype = ["fp32", "bf16_autocast", "fp16_autocast"]
attention = ["math", "sdpa"]
compile = ["off", "default"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
schedule = ["constant", "linear", "cosine", "wsd"]
tied_head = [false, true]
"""
_LEAST_BUDGET_SECONDS, _MOST_BUDGET_SECONDS = 1_800.0, 30_000.0
_USUAL_RATE = 14_000.0  # tokens/s of a baseline
_BUDGET_SHARE = 0.02  # of a long plan: what its owner would give
_LOOK_SD = 0.05  # of ln S between two runs of a plan
RIVALS: Mapping[str, Callable[[rivals.Rival], Configuration]] = {
    "random search": rivals.random_search,
    "Optuna TPE, best trial": rivals.plain_tpe,
    "train all short, keep the best": rivals.short_runs,
    "Optuna successive halving": rivals.successive_halving,
}


def space_of(plan_tokens: float = 3e7, runs: int = 10) -> SearchSpace:
    """The space of all worlds."""
    document = parse_document(text_of(plan_tokens, runs), name="truth", source="truth", folder=Path())
    return read_space(document, simulated_gpt)


def text_of(plan_tokens: float, runs: int = 10) -> str:
    text = SPACE_TEXT.replace("30_000_000", str(int(plan_tokens)))
    return text.replace("runs = 10", f"runs = {runs}")


def budget_seconds(plan_tokens: float, runs: int) -> float:
    """The hard cap that the owner of such a plan gives: half an hour or 2 % of it, a night at most."""
    return min(_MOST_BUDGET_SECONDS, max(_LEAST_BUDGET_SECONDS, _BUDGET_SHARE * runs * plan_tokens / _USUAL_RATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One study to run: in world `number` of `family`, for a plan of `runs` runs of `plan_tokens` tokens.

    `rivals_at` are the budgets of rivals, as shares of the search's.
    """

    number: int
    family: Family = Family.POWERS
    plan_tokens: float = 3e7
    runs: int = 10
    idle: bool = False
    rivals_at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A study and the truth about its answer: log-ratios, and costs of plan and search together in seconds.

    `adopts` says whether another configuration than the baseline is recommended for every run.
    `is_inside` says whether the claimed interval holds the truth, `is_false` whether the truth is below it; None
    without a claim. `is_expected_inside` is the same of the expected interval. `is_worse` says whether an expected
    configuration is slower than the baseline, `is_harmful` whether it is slower than the claimed part. `split` is the
    regret of the search by part, as shares of the baseline's plan.
    """

    verdict: Verdict
    adopts: bool
    stopped_early: bool
    is_inside: bool | None
    is_false: bool | None
    claims_learning: bool
    is_expected_inside: bool | None
    is_worse: bool | None
    is_harmful: bool | None
    width: float
    is_cost_inside: bool | None
    search_seconds: float
    costs: Mapping[str, float]
    split: Mapping[str, float]

    def regret(self, name: str) -> float:
        """Of the plan with search, over the oracle's plan; a share of the baseline's."""
        return (self.costs[name] - self.costs["oracle"]) / self.costs["the baseline"]


def run_study(task: Task) -> Ended:
    """One search in a world (if `idle`, nothing makes a difference in it), and its rivals."""
    number = task.number
    world = draw(task.family, number)
    if task.idle:
        world = same_everywhere(world)
    space = space_of(task.plan_tokens, task.runs)
    budget = budget_seconds(task.plan_tokens, task.runs)
    found, _ = simulate(text_of(task.plan_tokens, task.runs), world, budget_seconds=budget, seed=number)
    spent = found.search_cost.total_seconds
    costs = {
        "oracle": plan_seconds(world, space, best_of(world, space)),
        "the baseline": plan_seconds(world, space, space.baseline),
        "this search": plan_seconds(world, space, found.recommended) + spent,
        "this search, with looks": guarded_seconds(found, world, space, number) + spent,
        "the hand-tuned default": plan_seconds(world, space, expert_within(space, MACHINE)),
    }
    for part in task.rivals_at:
        for name, choose in RIVALS.items():
            rival = rivals.Rival(space, world, budget_seconds=budget * part, seed=number)
            costs[f"{name}, {part:g}"] = plan_seconds(world, space, choose(rival)) + rival.clock()
    claim = found.over_baseline.speedup
    is_claim = isinstance(claim, Interval) and found.candidate != found.baseline
    truth = math.exp(true_log_speedup(found.candidate, world, space))
    expected = found.decision.config if isinstance(found.decision, Expected) else None
    learned = {d.knob.name for d in space.of_class(KnobClass.LEARNING)}
    return Ended(
        verdict=found.verdict,
        adopts=found.recommended != found.baseline,
        stopped_early=any(isinstance(c, SearchStoppedEarly) for c in found.caveats),
        is_inside=claim.low <= truth <= claim.high if is_claim else None,  # type: ignore[union-attr]
        is_false=truth < claim.low if is_claim else None,  # type: ignore[union-attr]
        claims_learning=bool(learned & found.claimed.difference(found.baseline).keys()),
        is_expected_inside=is_expected_inside(found, world, space),
        is_worse=None if expected is None else _seconds_over(world, space, expected, found.baseline) > 1e-9,
        is_harmful=None if expected is None else _seconds_over(world, space, expected, found.claimed) > 1e-9,
        width=math.log(claim.high / claim.low) if is_claim else math.nan,  # type: ignore[union-attr]
        is_cost_inside=is_cost_inside(found, world, space, number),
        search_seconds=spent,
        costs=costs,
        split=split_of(found, world, space, costs),
    )


def guarded_seconds(found: Recommendation, world: DrawnWorld, space: SearchSpace, number: int) -> float:
    """Device-seconds of the plan if the user looks as the decision says: at the first run, or at two trunks."""
    decision, runs = found.decision, space.plan.runs
    kept = plan_seconds(world, space, found.claimed)
    if not isinstance(decision, Expected | RaceInRun):
        return kept
    tried = plan_seconds(world, space, decision.config)
    truth = math.log(kept / tried)
    luck = random.Random(f"look {number}").gauss(0.0, 1.0)
    match decision.guard:
        case Look(needs_run=needs_run):
            better = tried if _keeps(decision.prospect, truth + luck * _LOOK_SD, _LOOK_SD) else kept
            return (tried + needs_run * kept + (runs - 1 - needs_run) * better) / runs
        case Trunks(share=share):
            look_sd = math.hypot(_LOOK_SD, 0.15 * math.log(1.0 / share))
            better = tried if _keeps(decision.prospect, truth + luck * look_sd, look_sd) else kept
            return better + kept * 1.4 * share
        case Watch():
            return tried if _keeps(decision.prospect, truth + luck * _LOOK_SD, _LOOK_SD) else kept
        case _:
            return tried


def _keeps(prospect: Prospect, seen: float, look_sd: float) -> bool:
    """Whether the configuration tried is kept after `seen`, ln S with an error of `look_sd`."""
    return prospect.given(seen, look_sd).expected_cost < 1.0


def split_of(
    found: Recommendation, world: DrawnWorld, space: SearchSpace, costs: Mapping[str, float]
) -> dict[str, float]:
    """The regret of a search in parts: its cost, missed system gains, missed learning gains, and harmful learning."""

    def seconds_with_best_system(config: Configuration) -> float:
        return plan_seconds(world, space, with_best_system(world, space, config))

    recommended = plan_seconds(world, space, found.recommended)
    at_best_system = min(recommended, seconds_with_best_system(found.recommended))
    unlearned = seconds_with_best_system(space.baseline)
    parts = {
        "search": found.search_cost.total_seconds,
        "system": recommended - at_best_system,
        "left": min(at_best_system, unlearned) - costs["oracle"],
        "wrong": max(0.0, at_best_system - unlearned),
    }
    return {name: part / costs["the baseline"] for name, part in parts.items()}


def true_log_speedup(config: Configuration, world: DrawnWorld, space: SearchSpace) -> float:
    """ln S over the baseline: at the plan's length if it changes a learning knob, else at the tested horizon."""
    changed = space.changed(config, KnobClass.LEARNING)
    tokens = float(space.plan.tokens if changed else space.workload.horizon_tokens)
    return world.true_log_speedup(config, space.baseline, tokens)


def is_expected_inside(found: Recommendation, world: DrawnWorld, space: SearchSpace) -> bool | None:
    """Whether the interval of what is expected over the claimed part holds the truth; None if nothing is."""
    if not isinstance(found.decision, Expected):
        return None
    prospect = found.decision.prospect
    half = statistics.NormalDist().inv_cdf(0.95) * prospect.sd
    ours, theirs = (plan_seconds(world, space, config) for config in (found.decision.config, found.claimed))
    truth = math.log(theirs) - math.log(ours)  # one may be next to nothing of the other
    return abs(truth - prospect.mean) <= half


def is_cost_inside(found: Recommendation, world: DrawnWorld, space: SearchSpace, number: int) -> bool | None:
    """Whether the plan with the claimed part, run on another day of this machine, costs what the report predicts."""
    stated = found.claimed_hours
    if not isinstance(stated, Interval) or isinstance(found.decision, NotInformative):
        return None
    day = world.machine.long_run_slowdown(number, min(86_400.0, stated.estimate * 3600.0))
    processes = statistics.fmean(
        world.machine.process_offset(number * 1_000 + r) for r in range(min(1_000, space.plan.runs))
    )
    hours = plan_seconds(world, space, found.claimed) * day * processes / 3600.0
    return stated.low <= hours <= stated.high


def _seconds_over(world: DrawnWorld, space: SearchSpace, config: Configuration, other: Configuration) -> float:
    """How much longer the plan takes with `config` than with `other`, as a share."""
    return plan_seconds(world, space, config) / plan_seconds(world, space, other) - 1.0
