"""Whether recommendations are true: the real pipeline on hundreds of simulated machines with known truth.

    python benchmarks/truth.py [--studies 200] [--only NAME ...]

Prints a table of the promises of docs/method.md and the results, and exits with 1 if a promise is broken:

nothing better   worlds in which nothing makes any difference: how often something is recommended
race             four finalists, the best leads by delta: how often it wins, and with how many slices
intervals        how often the intervals of the speed-up and of the plan's cost contain the truth
regret           plan and search together vs. an oracle, and vs. what else one could do with the budget
plan size        what the search costs, and what it saves, as the plan grows over six decades
families         the same in families of worlds with conflicting laws of learning, and the parts of the regret

The machines are shared: bursts, correlated step times, lasting process differences, drift and
heavy tails (`autotune/simulation/noise.py`); worlds are drawn by `autotune/simulation/worlds.py`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rivals

from autotune.analysis.caveat import SearchStoppedEarly
from autotune.analysis.recommendation import Recommendation, Verdict
from autotune.quantity import Interval
from autotune.search.expert import expert_within
from autotune.simulation.executor import MACHINE
from autotune.simulation.families import Family, draw
from autotune.simulation.finalists import race_of_four
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
BUDGET_SECONDS = 1_800.0
PLANS = ((1, 3e9), (10, 3e7), (100, 3e6))
"""The kinds of plan that families are run on: runs, and tokens of each."""
RUNS_OF_RIVALS = 10  # in the plan that rivals also run on
DECADES = (3e5, 3e6, 3e7, 3e8, 3e9, 3e10, 3e11)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A study and the truth about its answer: log-ratios, and costs of plan and search together in seconds.

    `split` is the regret of the search by part, as shares of the baseline's plan. `claims_learning` says whether a
    learning knob is part of the claim, `is_worse` whether the recommendation is slower than the baseline.
    """

    adopted: bool
    stopped_early: bool
    inside: bool | None
    width: float
    cost_inside: bool | None
    search_seconds: float
    costs: Mapping[str, float]
    split: Mapping[str, float]
    claims_learning: bool
    is_worse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One study to run: in world `number` of `family`, for a plan of `runs` runs of `plan_tokens` tokens."""

    number: int
    family: Family = Family.POWERS
    plan_tokens: float = 3e7
    runs: int = 10
    idle: bool = False
    with_rivals: bool = False


def run_study(task: Task) -> Ended:
    """One search in a world (if `idle`, nothing makes a difference in it), and its rivals."""
    number = task.number
    world = draw(task.family, number)
    if task.idle:
        world = same_everywhere(world)
    text = text_of(task.plan_tokens, task.runs)
    space = space_of(task.plan_tokens, task.runs)
    found, _ = simulate(text, world, budget_seconds=BUDGET_SECONDS, seed=number)
    truth = true_log_speedup(found, world, space)
    speedup = found.over_baseline.speedup
    costs = {
        "oracle": plan_seconds(world, space, best_of(world, space)),
        "the baseline": plan_seconds(world, space, space.baseline),
        "this search": plan_seconds(world, space, found.recommended) + found.search_cost.total_seconds,
        "the hand-tuned default": plan_seconds(world, space, expert_within(space, MACHINE)),
    }
    if task.with_rivals:
        for name, choose in RIVALS.items():
            rival = rivals.Rival(space, world, budget_seconds=BUDGET_SECONDS, seed=number)
            costs[name] = plan_seconds(world, space, choose(rival)) + rival.clock()
    known = isinstance(speedup, Interval) and found.candidate != found.baseline
    learned = {d.knob.name for d in space.of_class(KnobClass.LEARNING)}
    recommended = plan_seconds(world, space, found.recommended)
    return Ended(
        adopted=found.verdict is Verdict.ADOPT,
        stopped_early=any(isinstance(c, SearchStoppedEarly) for c in found.caveats),
        inside=speedup.low <= math.exp(truth) <= speedup.high if known else None,
        width=math.log(speedup.high / speedup.low) if known else math.nan,
        cost_inside=realised_inside(found, world, space, number),
        search_seconds=found.search_cost.total_seconds,
        costs=costs,
        split=split_of(found, world, space, costs),
        claims_learning=bool(learned & found.recommended.difference(found.baseline).keys()),
        is_worse=recommended > costs["the baseline"] * (1 + 1e-9),
    )


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


def true_log_speedup(found: Recommendation, world: DrawnWorld, space: SearchSpace) -> float:
    """ln S of the candidate: at the plan's length if it changes a learning knob, else at the tested horizon."""
    learned = {d.knob.name for d in space.of_class(KnobClass.LEARNING)}
    changed = learned & found.candidate.difference(found.baseline).keys()
    tokens = float(space.plan.tokens if changed else space.workload.horizon_tokens)
    return world.true_log_speedup(found.candidate, found.baseline, tokens)


def realised_inside(found: Recommendation, world: DrawnWorld, space: SearchSpace, number: int) -> bool | None:
    """Whether the plan, run on another day of this machine, costs what the report predicts."""
    stated = found.recommended_hours
    if not isinstance(stated, Interval):
        return None
    day = world.machine.long_run_slowdown(number, min(86_400.0, stated.estimate * 3600.0))
    processes = statistics.fmean(world.machine.process_offset(number * 1_000 + r) for r in range(space.plan.runs))
    hours = plan_seconds(world, space, found.recommended) * day * processes / 3600.0
    return stated.low <= hours <= stated.high


def share(values: Iterable[bool | None]) -> tuple[float, int]:
    """The share of true among known values, and how many are known."""
    known = [v for v in values if v is not None]
    return (sum(known) / len(known) if known else math.nan), len(known)


class Table:
    """Lines of promises and results."""

    def __init__(self) -> None:
        self.broken = False

    def line(self, what: str, got: str, asked: str = "", *, kept: bool = True) -> None:
        """Print one line; `kept` is false for a broken promise."""
        self.broken |= not kept
        mark = "" if not asked else "ok" if kept else "BROKEN"
        print(f"  {what:58} {got:>22}  {asked:22} {mark}", flush=True)


def nothing_better(pool: ProcessPoolExecutor, table: Table, studies: int) -> None:
    print(f"nothing better: {studies} worlds in which nothing makes a difference")
    ended = list(pool.map(run_study, [Task(number=n, idle=True) for n in range(studies)]))
    wrong, count = share(e.adopted for e in ended)
    table.line("something is recommended all the same", f"{wrong:.1%} of {count}", "at most 5 %", kept=wrong <= 0.05)


def race(pool: ProcessPoolExecutor, table: Table, studies: int) -> None:
    races = max(40, studies // 2)
    print(f"race: {races} races of four, the best ahead by delta")
    ended = list(pool.map(race_of_four, range(races)))
    right, _ = share(e.best_won for e in ended)
    slices = statistics.fmean(e.slices for e in ended)
    unpaired = statistics.fmean(e.unpaired_slices for e in ended)
    table.line("the best wins", f"{right:.1%}", "at least 95 %", kept=right >= 0.95)
    table.line("slices, candidate and reference", f"{slices:,.0f}")
    table.line("slices of an unpaired fixed-sample test, same error", f"{unpaired:,.0f}")
    part = slices / unpaired
    table.line("part of them that the race needs", f"1/{1 / part:.0f}", "at most 1/5", kept=part <= 0.2)


def intervals_and_regret(pool: ProcessPoolExecutor, table: Table, studies: int) -> None:
    print(f"intervals: {studies} worlds of all kinds")
    ended = list(pool.map(run_study, [Task(number=n, with_rivals=True) for n in range(studies)]))
    inside, count = share(e.inside for e in ended)
    table.line(
        "the 90 % interval of the speed-up holds the truth",
        f"{inside:.1%} of {count}",
        "88 to 97 %",
        kept=0.88 <= inside <= 0.97,
    )
    widths = [e.width for e in ended if math.isfinite(e.width)]
    table.line("its median width, as a ratio", f"{math.exp(statistics.median(widths)):.3f}")
    inside, count = share(e.cost_inside for e in ended)
    table.line(
        "the 90 % interval of the plan's cost holds what it costs",
        f"{inside:.1%} of {count}",
        "at least 85 %",
        kept=inside >= 0.85,
    )
    adopted, _ = share(e.adopted for e in ended)
    table.line("something is recommended", f"{adopted:.1%}")
    print("regret: plan and search together over the oracle's plan, as a share of the baseline's plan; means")
    regret = {name: statistics.fmean(_regret(e, name) for e in ended) for name in ended[0].costs if name != "oracle"}
    ours = regret["this search"]
    table.line("this search", f"{ours:.3f}")
    for name, theirs in sorted(regret.items(), key=lambda item: item[1]):
        if name != "this search":
            table.line(name, f"{theirs:.3f}", f"{theirs / ours:.1f} times ours", kept=theirs > ours)


def plan_size(pool: ProcessPoolExecutor, table: Table, studies: int) -> None:
    worlds = max(8, studies // 10)
    print(f"plan size: {worlds} worlds each; a run has a tenth of the tokens; means, in seconds of the machine")
    print(f"  {'tokens':>18} {'plan':>14} {'search':>10} {'net saving':>14} {'of the plan':>12} {'stopped early':>14}")
    tasks = [Task(number=n, plan_tokens=tokens / 10) for tokens in DECADES for n in range(worlds)]
    ended = np.array(list(pool.map(run_study, tasks)), dtype=object).reshape(len(DECADES), worlds)
    spent = []
    for tokens, row in zip(DECADES, ended, strict=True):
        plan = statistics.fmean(e.costs["the baseline"] for e in row)
        saved = statistics.fmean(e.costs["the baseline"] - e.costs["this search"] for e in row)
        spent.append(statistics.fmean(e.search_seconds for e in row))
        early, _ = share(e.stopped_early for e in row)
        figures = f"{plan:>14,.0f} {spent[-1]:>10,.0f} {saved:>14,.0f} {saved / plan:>12.1%} {early:>14.0%}"
        print(f"  {tokens:>18,.0f} {figures}")
    first = share(e.stopped_early for e in ended[0])[0]
    table.line("the smallest plan: it stops and says so", f"{first:.0%}", "always", kept=first == 1.0)
    table.line(
        "search spent on the largest over the smallest plan",
        f"{spent[-1] / spent[0]:.1f}",
        "more",
        kept=spent[-1] > spent[0],
    )


def families(pool: ProcessPoolExecutor, table: Table, studies: int) -> None:
    count = max(4, studies // 10)
    kinds = ", ".join(f"{runs} x {tokens:.0e} tokens" for runs, tokens in PLANS)
    print(f"families: {count} worlds each, for plans of {kinds}; means, as shares of the baseline's plan")
    print(f"  {'family':16} {'plan':12} {'adopted':>8} {'held':>5} {'false':>6} {'worse':>6}", end="")
    print(f" {'regret':>7} = {'search':>7} {'system':>7} {'left':>7} {'wrong':>7}   rivals")
    tasks = [
        Task(number=n, family=family, plan_tokens=tokens, runs=runs, with_rivals=runs == RUNS_OF_RIVALS)
        for family in Family
        for runs, tokens in PLANS
        for n in range(count)
    ]
    ended = list(pool.map(run_study, tasks))
    for start in range(0, len(tasks), count):
        _family_line(tasks[start], ended[start : start + count])
    false = [e.inside for e in ended if e.claims_learning and e.inside is not None]
    table.line(
        "claims with a learning knob whose interval does not hold the truth",
        f"{sum(not inside for inside in false)} of {len(false)}",
    )


def _family_line(task: Task, ended: Sequence[Ended]) -> None:
    """Results in one family for one kind of plan: shares of studies, then the parts of the regret."""
    held, known = share(e.inside for e in ended)
    adopted, _ = share(e.adopted for e in ended)
    false = sum(e.adopted and e.inside is False for e in ended) / len(ended)
    worse = sum(e.is_worse for e in ended) / len(ended)
    split = {part: statistics.fmean(e.split[part] for e in ended) for part in ended[0].split}
    shown = f"{held:5.0%}" if known else f"{'-':>5}"
    line = f"  {task.family:16} {task.runs:>3} x {task.plan_tokens:<6.0e}"
    line += f" {adopted:>8.0%} {shown} {false:>6.0%} {worse:>6.0%}"
    line += f" {sum(split.values()):>7.3f} = " + " ".join(f"{part:>7.3f}" for part in split.values())
    others = {name: statistics.fmean(_regret(e, name) for e in ended) for name in ended[0].costs if name in RIVALS}
    others |= {name: statistics.fmean(_regret(e, name) for e in ended) for name in ("the hand-tuned default",)}
    if len(others) > 1:
        line += "   " + ", ".join(f"{name} {regret:.2f}" for name, regret in sorted(others.items(), key=lambda o: o[1]))
    print(line, flush=True)


def _regret(ended: Ended, name: str) -> float:
    return (ended.costs[name] - ended.costs["oracle"]) / ended.costs["the baseline"]


CHAPTERS = {
    "nothing-better": nothing_better,
    "race": race,
    "intervals": intervals_and_regret,
    "plan-size": plan_size,
    "families": families,
}


def main() -> int:
    """Run the chapters, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200, help="worlds of a chapter")
    parser.add_argument("--only", nargs="*", choices=CHAPTERS, default=list(CHAPTERS), help="chapters to run")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    table = Table()
    with ProcessPoolExecutor(options.jobs) as pool:
        for name in options.only:
            started = time.perf_counter()
            CHAPTERS[name](pool, table, options.studies)
            print(f"  ({time.perf_counter() - started:.0f} s)")
    return int(table.broken)


if __name__ == "__main__":
    sys.exit(main())
