"""Whether recommendations are true: the real pipeline on hundreds of simulated machines with known truth.

    python benchmarks/truth.py [--studies 200] [--only NAME ...]

Prints a table of the promises of docs/method.md and the results, and exits with 1 if a promise is broken. Goals that
are not reached are printed, too:

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
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from simulated import Ended, Task, run_study

from autotune.analysis.recommendation import Verdict
from autotune.simulation.families import Family
from autotune.simulation.finalists import race_of_four

PLANS = ((10, 3e7), (1, 3e9), (1, 1e10), (1, 3e11), (10, 3e6), (100, 3e6), (100, 3e7))
"""The kinds of plan that families are run on: runs, and tokens of each. The first is run in more worlds than others."""
AT_THE_SAME_AND_A_QUARTER = (1.0, 0.25)
OURS = ("this search", "this search, with looks", "oracle")
DECADES = (3e5, 3e6, 3e7, 3e8, 3e9, 3e10, 3e11)


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

    def goal(self, what: str, got: float, most: float) -> None:
        """Print one line of a goal that is reached or not."""
        mark = "ok" if got <= most else "not reached"
        print(f"  {what:58} {got:>22.3f}  {f'at most {most:g}':22} {mark}", flush=True)


def nothing_better(pool: ProcessPoolExecutor, table: Table, studies: int) -> None:
    print(f"nothing better: {studies} worlds in which nothing makes a difference")
    ended = list(pool.map(run_study, [Task(number=n, idle=True) for n in range(studies)]))
    wrong, count = share(e.adopts for e in ended)
    table.line("something is recommended all the same", f"{wrong:.1%} of {count}", "at most 5 %", kept=wrong <= 0.05)
    table.goal("share of the plan that the search took", statistics.fmean(e.split["search"] for e in ended), 0.01)


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
    ended = list(pool.map(run_study, [Task(number=n, rivals_at=(1.0,)) for n in range(studies)]))
    inside, count = share(e.is_inside for e in ended)
    table.line(
        "the 90 % interval of the speed-up holds the truth",
        f"{inside:.1%} of {count}",
        "88 to 97 %",
        kept=0.88 <= inside <= 0.97,
    )
    widths = [e.width for e in ended if math.isfinite(e.width)]
    table.line("its median width, as a ratio", f"{math.exp(statistics.median(widths)):.3f}")
    inside, count = share(e.is_cost_inside for e in ended)
    table.line(
        "the 90 % interval of the plan's cost holds what it costs",
        f"{inside:.1%} of {count}",
        "at least 85 %",
        kept=inside >= 0.85,
    )
    adopted, _ = share(e.adopts for e in ended)
    table.line("something is recommended", f"{adopted:.1%}")
    print("regret: plan and search together over the oracle's plan, as a share of the baseline's plan; means")
    regret = {name: statistics.fmean(e.regret(name) for e in ended) for name in ended[0].costs if name != "oracle"}
    ours = regret["this search"]
    table.line("this search", f"{ours:.3f}")
    table.line("this search, with looks", f"{regret['this search, with looks']:.3f}")
    for name, theirs in sorted(regret.items(), key=lambda item: item[1]):
        if name not in OURS:
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


def families(pool: ProcessPoolExecutor, table: Table, studies: int, chosen: Sequence[Family] = tuple(Family)) -> None:
    kinds = ", ".join(f"{runs} x {tokens:.0e} tokens" for runs, tokens in PLANS)
    few = max(8, studies // 8)
    print(f"families, for plans of {kinds}: {studies} worlds each for the first, {few} for the others; means;")
    print("  regret as a share of the baseline's plan; claimed: held (the truth is in the 90 % interval), false (below")
    print(
        "  it); expected: recommended so, inside the 90 % interval, worse than the baseline; harm: than what is claimed"
    )
    print(
        f"  {'family':16} {'plan':11} {'claim':>6} {'held':>5} {'false':>6} {'expect':>7} {'inside':>7} {'worse':>6}",
        end="",
    )
    print(f" {'harm':>5} {'race':>5} {'regret':>7} = {'search':>7} {'system':>7} {'left':>6} {'wrong':>6} {'looks':>6}")
    for family in chosen:
        of_family = []
        for runs, tokens in PLANS:
            first = (runs, tokens) == PLANS[0]
            tasks = [
                Task(
                    number=n,
                    family=family,
                    plan_tokens=tokens,
                    runs=runs,
                    rivals_at=AT_THE_SAME_AND_A_QUARTER if first and n < 2 * few else (),
                )
                for n in range(studies if first else few)
            ]
            ended = list(pool.map(run_study, tasks))
            _family_line(tasks[0], ended)
            _regret_goals(table, tasks[0], ended)
            if first:
                _rivals_line(table, family, ended[: 2 * few])
            of_family += ended
        _family_promises(table, family, of_family)


def _rivals_line(table: Table, family: Family, ended: Sequence[Ended]) -> None:
    """The regret of rivals in the same worlds; only a rival that is ahead has a line of its own."""
    means = {name: statistics.fmean(e.regret(name) for e in ended) for name in ended[0].costs if name != "oracle"}
    ours = means["this search"]
    ranked = sorted(((name, regret) for name, regret in means.items() if name not in OURS), key=lambda r: r[1])
    print(f"      {len(ended)} worlds: ours {ours:.2f}, " + ", ".join(f"{n} {regret:.2f}" for n, regret in ranked))
    name, best = ranked[0]
    if best <= ours:
        table.line(f"{family}: {name}", f"{best:.3f}", f"more than {ours:.3f}", kept=False)


def _family_line(task: Task, ended: Sequence[Ended]) -> None:
    """Results in one family for one kind of plan: shares of studies, then the parts of the regret."""
    claimed, _ = share(e.is_inside is not None for e in ended)
    expected, _ = share(e.verdict is Verdict.EXPECTED for e in ended)
    raced, _ = share(e.verdict is Verdict.RACE for e in ended)
    parts = {part: statistics.fmean(e.split[part] for e in ended) for part in ended[0].split}
    looks = statistics.fmean(e.regret("this search, with looks") for e in ended)
    line = f"  {task.family:16} {task.runs:>3} x {task.plan_tokens:<5.0e}"
    line += f" {claimed:>6.0%} {_percent(e.is_inside for e in ended):>5} {_percent(e.is_false for e in ended):>6}"
    line += f" {expected:>7.0%} {_percent(e.is_expected_inside for e in ended):>7}"
    line += f" {_percent(e.is_worse for e in ended):>6} {_percent(e.is_harmful for e in ended):>5} {raced:>5.0%}"
    line += f" {sum(parts.values()):>7.3f} = " + f"{parts['search']:>7.3f} {parts['system']:>7.3f}"
    print(f"{line} {parts['left']:>6.3f} {parts['wrong']:>6.3f} {looks:>6.3f}", flush=True)


def _regret_goals(table: Table, task: Task, ended: Sequence[Ended]) -> None:
    """The goals of mean regret for this kind of plan."""
    alone, looks = (statistics.fmean(e.regret(n) for e in ended) for n in ("this search", "this search, with looks"))
    where = f"{task.family}, {task.runs} x {task.plan_tokens:.0e}: regret"
    if (task.runs, task.plan_tokens) == PLANS[0]:
        table.goal(where, alone, 0.09)
        table.goal(f"{where} with looks", looks, 0.06)
    elif task.runs >= 100 or task.plan_tokens >= 1e10:
        table.goal(where, min(alone, looks), 0.03)


def _family_promises(table: Table, family: Family, ended: Sequence[Ended]) -> None:
    """What must hold in every family, over all kinds of plan; the slack is that of a share of so few studies."""
    held, count = share(e.is_inside for e in ended)
    low, high = (_slack(edge, count, sign) for edge, sign in ((0.88, -1), (0.97, 1)))
    table.line(f"{family}: claims held", f"{held:.1%} of {count}", "88 to 97 %", kept=not count or low <= held <= high)
    for what, most, shares in (
        ("false claims", 0.05, share(e.is_false for e in ended)),
        ("expected, worse than the baseline", 0.10, share(e.is_worse for e in ended)),
    ):
        found, count = shares
        kept = not count or found <= _slack(most, count, 1)
        table.line(f"{family}: {what}", f"{found:.1%} of {count}", f"at most {most:.0%}", kept=kept)


def _slack(edge: float, count: int, sign: int) -> float:
    """An edge for a share, moved by what chance does to a share of `count` in one of twenty cases."""
    return edge + sign * 1.64 * math.sqrt(edge * (1.0 - edge) / max(1, count))


def _percent(values: Iterable[bool | None]) -> str:
    part, count = share(values)
    return f"{part:.0%}" if count else "-"


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
    parser.add_argument(
        "--families", nargs="+", type=Family, metavar="NAME", default=list(Family), help="of the chapter of families"
    )
    options = parser.parse_args()
    table = Table()
    with ProcessPoolExecutor(options.jobs) as pool:
        for name in options.only:
            started = time.perf_counter()
            if name == "families":
                families(pool, table, options.studies, options.families)
            else:
                CHAPTERS[name](pool, table, options.studies)
            print(f"  ({time.perf_counter() - started:.0f} s)")
    return int(table.broken)


if __name__ == "__main__":
    sys.exit(main())
