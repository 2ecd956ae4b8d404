"""Checks a recommendation against reality: searches a small workload, then runs its plan to the end.

    python benchmarks/reality.py            # eight minutes of search, half an hour of training
    python benchmarks/reality.py --quick    # everything tiny, in a temporary folder

Baseline, claimed part (or the candidate, if nothing is claimed) and what is expected, or to be raced, are trained to
the plan's tokens, with complete schedules, on seeds the search has not seen. All runs of a seed are resident
together, in fresh processes; every round advances each by the same share of its schedule, in random order, so that
noise on the machine affects all alike.

A difference of losses is converted to tokens with the slope at the plan's length; for that, the baseline is also
trained to half of it: b = (L(D/2) - L(D)) / ln 2 and ln e = -(l - L(D)) / b, seed by seed. This understates a
large gain, because the slope decreases. Realised ln S = ln(seconds of the baseline / seconds) + ln e.

The runs of the first seed are the look: their logs go into `autotune.look`, as run 1's and the baseline's would.

Writes realised.md beside the study's report; exits with 1 if a figure could not be obtained.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotune import api
from autotune.analysis.decision import Expected, Look, RaceInRun
from autotune.analysis.evidence import BASELINE
from autotune.analysis.look import Looked
from autotune.analysis.rates import as_ratio, interval_over_restarts
from autotune.analysis.recommendation import Comparison, Expectation, Recommendation, Verdict
from autotune.cli.live import progress_for
from autotune.executors.base import Patience, Session, SessionEnded, SessionRequest
from autotune.executors.local import LocalExecutor
from autotune.quantity import Interval, Quantity, Unknown
from autotune.report.quantities import Printer, tokens
from autotune.space.configuration import Configuration
from autotune.space.document import parse_duration, read_document
from autotune.workload.base import Workload
from autotune.workload.gpt import GPTWorkload

LEVEL = 0.9  # of every interval, as in the report
GALLERY = Path(__file__).parent.parent / "reports" / "gallery"
HALF = "baseline, half the tokens"
FIRST_SEED = 1000
EVALUATION_TOKENS = 65_536
EVALUATIONS = 8  # of a run, for its log
SLICE_SECONDS = 0.5  # of the baseline, each round: the first step after a wait is slow
PATIENCE = Patience(setup_seconds=120.0, pass_seconds=300.0, step_seconds=120.0)
SPACE = """\
# A plan that can be run: benchmarks/reality.py searches this space, then trains what was found to the plan's end.

[workload]
tokenizer = "bpe:1024"
layers = 3
heads = 3
width = 96
sequence_length = 128
horizon_tokens = {horizon_tokens}
evaluation_tokens = 8_192

[plan]
tokens = {plan_tokens}
runs = 10
device_hour_usd = 0.10

[search]
share_of_plan = {share}     # far more than usual: a plan of days would take days to be held against reality

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
micro_batch = [2, 4, 8, 16]
global_batch = [8, 16, 32]
dtype = ["fp32", "bf16_autocast", "fp16_autocast"]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
learning_rate = {{ low = 3e-4, high = 1e-2, log = true }}
schedule = ["constant", "linear", "cosine", "wsd"]
tied_head = [false, true]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A configuration to train, its ratios to the baseline as the search predicted them, and which of them it claimed.

    `claims` are for speed-up, throughput and token efficiency.
    """

    name: str
    config: Configuration
    predicted: Comparison
    claims: tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A completed run: `seconds` of training alone, and the held-out losses in nats per token after so many tokens."""

    seconds: float
    losses: tuple[tuple[int, float], ...]

    @property
    def tokens(self) -> int:
        return self.losses[-1][0]

    @property
    def loss(self) -> float:
        return self.losses[-1][1]


Seed = Mapping[str, Run | Unknown]
"""The runs on one seed, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as predicted and as realised; `words` are printed before and after it."""

    words: tuple[str, str, str]
    predicted: Quantity
    realised: Quantity

    @property
    def inside(self) -> str:
        """Whether the realised figure is within the prediction."""
        said, real = self.predicted, self.realised
        if isinstance(said, Unknown) or isinstance(real, Unknown):
            return "not known"
        if said.low <= real.estimate <= said.high:
            return "yes"
        return "no, but the intervals overlap" if said.low <= real.high and real.low <= said.high else "no"


def members_of(found: Recommendation) -> list[Member]:
    """What is trained besides the baseline: the best claimed, or else the candidate; and what is expected or raced."""
    members, hope = [], found.expectation
    is_claimed, hoped = found.claimed != found.baseline, hope.config if isinstance(hope, Expectation) else None
    if found.candidate != found.baseline and (is_claimed or found.candidate != hoped):
        claims = ("yes",) * 3 if is_claimed else ("no: not recommended",) * 3
        name = "claimed" if is_claimed else "candidate"
        members.append(Member(name=name, config=found.candidate, predicted=found.over_baseline, claims=claims))
    if isinstance(hope, Expectation):
        word = "raced" if isinstance(found.decision, RaceInRun) else "expected"
        predicted = Comparison(speedup=hope.speedup, throughput=hope.throughput, token_efficiency=hope.token_efficiency)
        members.append(Member(name=word, config=hope.config, predicted=predicted, claims=(f"no: {word}",) * 3))
    return members


def compared(logs: Sequence[tuple[float, float]] | Unknown) -> Comparison:
    """The comparison from pairs of ln(rate ratio) and ln(token efficiency), one per seed."""
    if isinstance(logs, Unknown):
        return Comparison(speedup=logs, throughput=logs, token_efficiency=logs)
    speeds, efficiencies = [speed for speed, _ in logs], [efficiency for _, efficiency in logs]
    total = mean([sum(pair) for pair in logs])
    return Comparison(speedup=total, throughput=mean(speeds), token_efficiency=mean(efficiencies))


def mean(logs: Sequence[float]) -> Quantity:
    """The geometric mean of exp(`logs`), with its interval."""
    interval = interval_over_restarts(logs, LEVEL)
    return interval if isinstance(interval, Unknown) else as_ratio(interval)


def train(
    executor: LocalExecutor, workload: Workload, plans: Mapping[str, tuple[Configuration, int]], seed: int, rounds: int
) -> Seed:
    """Train `plans` (configuration and tokens, by name) to the end in `rounds` equal shares, in fresh processes."""
    executor.renew()
    order = random.Random(seed)
    sessions: dict[str, Session] = {}
    runs: dict[str, Run | Unknown] = {}
    seconds = dict.fromkeys(plans, 0.0)
    losses: dict[str, list[tuple[int, float]]] = {name: [] for name in plans}
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, (config, horizon_tokens) in plans.items():
            request = SessionRequest(
                configuration=config,
                seed=seed,
                horizon_tokens=horizon_tokens,
                evaluation_tokens=workload.evaluation_tokens,
                tokens_per_step=workload.cost(config).tokens,
                order=workload.order(config, seed=seed, horizon_tokens=horizon_tokens),
                log_path=logs / f"{len(sessions)}.txt",
                patience=PATIENCE,
            )
            sessions[name] = executor.open(request)
            stack.callback(sessions[name].close)
        for number in range(rounds):
            for name in order.sample(list(sessions), len(sessions)):
                whole = sessions[name].ready.horizon_steps
                steps = whole * (number + 1) // rounds - whole * number // rounds
                try:
                    seconds[name] += sessions[name].advance(steps, number).seconds if steps else 0.0
                    if (number + 1) * EVALUATIONS % rounds < EVALUATIONS:
                        losses[name].append(_loss_of(sessions[name]))
                except SessionEnded as ended:
                    runs[name] = Unknown(reason=f"{name} ended on seed {seed}: {ended.message}")
                    del sessions[name]
        runs |= {name: Run(seconds=seconds[name], losses=tuple(losses[name])) for name in sessions}
    return runs


def _loss_of(session: Session) -> tuple[int, float]:
    evaluated = session.evaluate()
    return evaluated.tokens_seen, evaluated.loss


def look_at(folder: Path, member: Member, runs: Seed, root: Path, study: str) -> Looked | Unknown:
    """What `autotune.look` makes of the logs of that member's run and of the baseline's, both on one seed."""
    logs = []
    for name in (member.name, BASELINE):
        run = runs[name]
        if isinstance(run, Unknown):
            return run
        path = folder / f"{name}.csv"
        rows = [f"{tokens},{loss}" for tokens, loss in run.losses]
        path.write_text("\n".join(["tokens,val_loss", *rows, ""]), encoding="utf-8")
        logs.append(path)
    return api.look(study, logs[0], baseline_log=logs[1], root=root)


def look_rows(found: Recommendation, looked: Looked, member: Member, seeds: Sequence[Seed]) -> list[tuple[str, ...]]:
    """What the look showed and decided, and what the plan costs with it over the claimed part: expected and realised.

    The mean over all seeds stands for what the other runs do.
    """
    assert isinstance(found.decision, Expected | RaceInRun)
    show, runs = Printer(LEVEL), found.plan.runs
    rows: list[tuple[str, ...]] = [("speed-up over the claimed part, in the look", show.ratio(looked.shown).text)]
    rows.append(("the other runs", "use it" if looked.is_kept else "go back to the claimed part"))
    rows.append(("cost of the plan over the claimed part's, expected before", f"{found.decision.cost:.3f}"))
    tried, kept = (logs_of(name, seeds) for name in (member.name, "claimed"))
    if not isinstance(tried, Unknown):
        ahead = statistics.fmean(sum(pair) for pair in tried)
        ahead -= 0.0 if isinstance(kept, Unknown) else statistics.fmean(sum(pair) for pair in kept)
        cost, guard = math.exp(-ahead), found.decision.guard
        if isinstance(guard, Look):
            others = runs - 1 - guard.needs_run
            cost = (cost + guard.needs_run + others * (cost if looked.is_kept else 1.0)) / runs
        rows.append(("the same, realised", f"{cost:.3f}"))
    return rows


def logs_of(name: str, seeds: Sequence[Seed]) -> list[tuple[float, float]] | Unknown:
    """ln of the rate over the baseline's and ln e, seed by seed."""
    logs = []
    for runs in seeds:
        ours = runs.get(name, Unknown(reason=f"{name} was not trained"))
        theirs, half = runs[BASELINE], runs[HALF]
        if isinstance(ours, Unknown) or isinstance(theirs, Unknown) or isinstance(half, Unknown):
            return next(run for run in (theirs, half, ours) if isinstance(run, Unknown))
        slope = (half.loss - theirs.loss) / math.log(theirs.tokens / half.tokens)
        if not slope > 0:
            return Unknown(reason="the baseline's loss did not fall over the second half of the plan")
        speed = math.log(ours.tokens / ours.seconds) - math.log(theirs.tokens / theirs.seconds)
        # Schedules end on whole steps, so different global batches may end a few sequences apart.
        logs.append((speed, (theirs.loss - ours.loss) / slope + math.log(theirs.tokens / ours.tokens)))
    return logs


def figures_of(member: Member, seeds: Sequence[Seed]) -> list[Figure]:
    """A member vs. the baseline, in ratios."""
    said, real = member.predicted, compared(logs_of(member.name, seeds))
    rows = (
        ("speed-up to the same validation loss", said.speedup, real.speedup),
        ("throughput", said.throughput, real.throughput),
        ("token efficiency", said.token_efficiency, real.token_efficiency),
    )
    return [
        Figure(words=(member.name, what, claim), predicted=predicted, realised=realised)
        for (what, predicted, realised), claim in zip(rows, member.claims, strict=True)
    ]


def times_of(found: Recommendation, members: Sequence[Member], seeds: Sequence[Seed]) -> list[Figure]:
    """Seconds of one run to the baseline's loss: the baseline's own, and the candidate's, which is that over S."""
    base = [math.log(run.seconds) for runs in seeds if isinstance(run := runs[BASELINE], Run)]
    hours = found.baseline_hours
    if isinstance(hours, Unknown):
        return [Figure(words=(BASELINE, "one run", ""), predicted=hours, realised=mean(base))]
    low, seconds, high = (end * 3600.0 / found.plan.runs for end in (hours.low, hours.estimate, hours.high))
    own = Interval(estimate=seconds, low=low, high=high, level=LEVEL)
    figures = [Figure(words=(BASELINE, "one run", ""), predicted=own, realised=mean(base))]
    for member in members:
        speedup, logs = member.predicted.speedup, logs_of(member.name, seeds)
        if member.config == found.candidate and isinstance(speedup, Interval) and not isinstance(logs, Unknown):
            less = replace(own, estimate=seconds / speedup.estimate, low=low / speedup.high, high=high / speedup.low)
            real = mean([theirs - sum(pair) for theirs, pair in zip(base, logs, strict=True)])
            figures.append(Figure(words=(member.name, "one run to the same loss", ""), predicted=less, realised=real))
    return figures


def table(headings: str, rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; `headings` are separated by `|`."""
    rule = "|".join("---" for _ in headings.split("|"))
    return "\n".join([f"| {headings} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def page(
    found: Recommendation, members: Sequence[Member], seeds: Sequence[Seed], looked: Looked | Unknown
) -> tuple[str, bool]:
    """Predicted and realised figures in Markdown, and whether every figure was obtained."""
    show = Printer(LEVEL)
    ratios = [figure for member in members for figure in figures_of(member, seeds)]
    times = times_of(found, members, seeds)
    compared_rows = [
        (f.words[0], f.words[1], printed(f.predicted).text, printed(f.realised).text, f.inside, f.words[2])
        for figures, printed in ((ratios, show.ratio), (times, show.seconds))
        for f in figures
    ]
    raw = []
    for name, config in ((BASELINE, found.baseline), (HALF, found.baseline), *((m.name, m.config) for m in members)):
        change = ", ".join(f"{knob} {value}" for knob, value in config.difference(found.baseline).items())
        runs = [(run.seconds, run.loss) for seed in seeds if isinstance(run := seed[name], Run)]
        means = [f"{statistics.fmean(values):.4g}" for values in zip(*runs, strict=True)] or ["not known"] * 2
        raw.append((name, change or "nothing", *means))
    look = (
        [("the look", looked.reason)] if isinstance(looked, Unknown) else look_rows(found, looked, members[-1], seeds)
    )
    text = f"""# The recommendation held against reality

Verdict of the search: {found.verdict.value}. {tokens(found.plan.tokens)} tokens a run, complete schedules, {len(seeds)}
seeds that the search has not seen. Written by `python benchmarks/reality.py`, which says how; ranges are 90 %
intervals, over seeds where they are realised.

{table("configuration | over the baseline | predicted | realised | inside | claimed", compared_rows)}

{table("configuration | changes | seconds of a run, mean | held-out loss, mean", raw)}

{table("run 1 as the look | ", look)}
"""
    known = all(isinstance(q, Interval) for f in (*ratios, *times) for q in (f.predicted, f.realised))
    return text, known and found.verdict is not Verdict.NOT_INFORMATIVE


def main() -> int:
    """Search, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="8m", help="of the search")
    parser.add_argument("--seeds", type=int, default=2, help="at least 2 for an interval")
    parser.add_argument("--tokens", type=int, default=4_000_000, help="of one run of the plan")
    parser.add_argument("--root", type=Path, default=GALLERY, help="the folder of the study")
    parser.add_argument("--study", default="reality", help="its name; a finished one is not searched again")
    parser.add_argument("--quick", action="store_true", help="everything tiny, in a temporary folder")
    options = parser.parse_args()
    horizon_tokens, share = 64_000, 0.25
    if options.quick:
        options.root = Path(tempfile.mkdtemp(prefix="reality-"))
        options.budget, options.seeds, options.tokens, horizon_tokens, share = "70s", 2, 60_000, 8_192, 1.0

    with tempfile.TemporaryDirectory() as folder, progress_for(sys.stderr) as progress:
        path = Path(folder) / f"{options.study}.toml"
        text = SPACE.format(horizon_tokens=horizon_tokens, plan_tokens=options.tokens, share=share)
        path.write_text(text, encoding="utf-8")
        workload = replace(
            GPTWorkload.read(read_document(path)), horizon_tokens=options.tokens, evaluation_tokens=EVALUATION_TOKENS
        )
        seconds = parse_duration(options.budget)
        finished = api.search(
            path, study=options.study, root=options.root, budget_seconds=seconds, listeners=(progress,)
        )
    found = finished.recommendation
    members = members_of(found)
    plans = {BASELINE: (found.baseline, options.tokens), HALF: (found.baseline, options.tokens // 2)}
    plans |= {m.name: (m.config, options.tokens) for m in members}
    assert isinstance(found.baseline_tokens_per_second, Interval)
    rounds = max(1, round(options.tokens / found.baseline_tokens_per_second.estimate / SLICE_SECONDS))
    seeds = []
    with LocalExecutor() as executor:
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
            print(f"seed {seed}: training {', '.join(plans)}", file=sys.stderr, flush=True)
            seeds.append(train(executor, workload, plans, seed, rounds))
    looked: Looked | Unknown = Unknown(reason="nothing is expected or raced: there is nothing to look at")
    if isinstance(found.decision, Expected | RaceInRun):
        with tempfile.TemporaryDirectory() as folder:
            looked = look_at(Path(folder), members[-1], seeds[0], options.root, options.study)
    text, is_complete = page(found, members, seeds, looked)
    (finished.folder / "realised.md").write_text(text, encoding="utf-8")
    print(f"{text}\nWritten to {finished.folder / 'realised.md'}.")
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
