"""How the best learning rate and batch move with the token budget of a training run, on a small GPT.

    python benchmarks/horizons.py             # two hours on two quiet cores; run it again to continue
    python benchmarks/horizons.py --report    # prints what the finished runs say
    python benchmarks/horizons.py --longest   # also trains the pick and the baseline on 16 M tokens: 10 minutes more

The model and text of search_spaces/quickstart.toml are trained with complete schedules, linear to zero, on four token
budgets a factor 4 apart, over learning rates and global batches. Warm-up is the same number of tokens everywhere.
Only held-out losses count, so the machine may be busy. Each finished run is one line of horizons.jsonl, which is kept
with this file. Delete it when a constant below or the Python version (its library is the text) has changed.

ln e is the log of token efficiency (docs/method.md, 4.3) over the reference: learning rate 1e-3, batch 16, linear,
same seed and token budget. It is read off the curve of the reference from half to twice the token budget: below some
300,000 tokens the loss falls ever faster, and a curve that starts lower overstates ln e. Around the optimum, ln e falls
by kappa_rate * u**2 + kappa_batch * v**2 + cross * u * v in ln rate (u) and ln batch (v). "Pick" is the best batch at
the third token budget with its best rate, moved along the measured drift. "Baseline" is the reference with a cosine
schedule.

Predictions, made before any run. The bounds of the grid and the span of the curve were set after a first look at the
three shorter token budgets:

1. Short trials measure the area under the schedule: the slope of ln e on ln of the area ratio is above 0.8 at the
   shortest token budget and below 0.4 at the longest.
2. Drift can be measured: the best rates of the two middle token budgets predict the best rate at the longest within
   0.5 in ln.
3. A constant schedule loses to a linear one at the longest token budget.
4. The pick beats the baseline at the longest token budget.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.efficiency import fit_curve, log_efficiency
from autotune.analysis.informative import Starvation, step_starvation
from autotune.analysis.recommendation import Curve
from autotune.quantity import Unknown
from autotune.trial.codec import from_json, parse, to_json
from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig
from autotune_model.schedule import lr_area

T = TypeVar("T")

RESULTS = Path(__file__).with_suffix(".jsonl")
GPT = GPTConfig(layers=3, heads=3, width=96, sequence_length=128)
TEXT = DataConfig(tokenizer="bpe:1024")
WARMUP_TOKENS = 6_400  # just under a tenth of the shortest token budget
EVALUATION_TOKENS = 65_536
SLICE_STEPS = 100  # divergence is noticed after a slice

BUDGETS = SHORTEST, SECOND, THIRD, LONGEST = (1 << 16, 1 << 18, 1 << 20, 1 << 22)
BEYOND = 1 << 24
CURVE = tuple(SHORTEST // 4 << doubled for doubled in range(10))  # a quarter of the shortest to twice the longest
RATES = tuple(float(f"{1e-3 * 2 ** (half / 2):.3g}") for half in range(-2, 7))  # 5e-4 to 8e-3
FEWER_RATES = (7.07e-4, 1.41e-3, 2.83e-3, 4e-3)  # of the other batches at the longest
BATCHES = (4, 8, 16, 32)
RATE, BATCH = 1e-3, 16  # of the reference
MIDDLE_RATE = 2e-3
SEEDS = (0, 1, 2)
TOP = 0.7  # a quadratic holds near the optimum: only rates at most this far below the best of their batch count


class NotKnown(Exception):
    """The runs so far do not give a figure; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A complete training run; `batch` is the global batch in sequences."""

    tokens: int
    learning_rate: float
    batch: int
    schedule: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A line of the results: `loss` is held-out, in nats per token; None if the run diverged."""

    run: Run
    loss: float | None


Results = Mapping[Run, float | None]
Efficiencies = Mapping[Run, float]
"""ln e; minus infinity for runs that diverged."""


# -- what is run -------------------------------------------------------------------------------------


def reference(tokens: int, seed: int = 0) -> Run:
    """The run that all others at the same token budget and seed are compared with."""
    return Run(tokens=tokens, learning_rate=RATE, batch=BATCH, schedule="linear", seed=seed)


def baseline(tokens: int) -> Run:
    """The reference with a cosine schedule."""
    return replace(reference(tokens), schedule="cosine")


def planned(results: Results, *, longest: bool) -> list[Run]:
    """All runs, short ones first; the pick is among them as soon as the results tell it."""
    runs = [reference(tokens) for tokens in CURVE]
    for tokens in BUDGETS:
        base, is_long = reference(tokens), tokens == LONGEST
        for batch in BATCHES if tokens > SHORTEST else BATCHES[1:]:  # the curve near the shortest ends too soon for 4
            rates = RATES if not is_long else RATES[1:-1] if batch == BATCH else FEWER_RATES
            runs += [replace(base, batch=batch, learning_rate=rate) for rate in rates]
        more = [] if is_long else itertools.product(SEEDS[1:], RATES[2:-1])
        runs += [replace(base, seed=seed, learning_rate=rate) for seed, rate in more]
        runs += [replace(base, schedule="constant", learning_rate=rate) for rate in (RATE, MIDDLE_RATE)]
        runs.append(baseline(tokens))
    pair = [baseline(LONGEST)]
    with contextlib.suppress(NotKnown):  # the runs that it follows from are still to come
        pair.append(pick(results))
    runs += [replace(run, seed=seed) for seed in SEEDS for run in pair]
    runs += [replace(run, tokens=BEYOND) for run in pair if longest]
    return sorted(dict.fromkeys(runs), key=lambda run: run.tokens)


def train(run: Run) -> float | None:
    """The held-out loss at the end of a run on one thread, in nats per token; None if it diverged."""
    import torch  # here, because reports and tests do without

    from autotune_model.failures import Diverged
    from autotune_model.tokens import open_corpus
    from autotune_model.trainer import Trainer

    learning = {"learning_rate": run.learning_rate, "schedule": run.schedule, "global_batch": run.batch}
    system = {"micro_batch": min(run.batch, 16), "attention": "sdpa", "optimizer_kernel": "fused", "threads": 1}
    training = TrainingConfig.from_mapping(learning | system | {"warmup_fraction": WARMUP_TOKENS / run.tokens})
    settings = {"seed": run.seed, "horizon_tokens": run.tokens, "evaluation_tokens": EVALUATION_TOKENS}
    session = SessionConfig(gpt=GPT, data=TEXT, training=training, device="cpu", **settings)
    trainer = Trainer(session, open_corpus(TEXT), torch.device("cpu"))
    try:
        while left := session.horizon_steps - trainer.steps_done:
            trainer.advance(min(left, SLICE_STEPS), 0)
        return trainer.evaluate().loss
    except Diverged:
        return None


def read_results(path: Path) -> dict[Run, float | None]:
    """The finished runs.

    Raises:
        Malformed: a line is not a finished run.
    """
    lines = [from_json(Finished, parse(line)) for line in _whole_lines(path).splitlines()]
    return {line.run: line.loss for line in lines}


def append_result(path: Path, finished: Finished) -> None:
    """Add a line to the results, in place of a torn one, and wait until it is on disk."""
    whole = _whole_lines(path)
    with path.open("ab") as file:
        file.truncate(len(whole))
        file.write(json.dumps(to_json(finished)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> bytes:
    """The results without a last line that has no end: it was torn by a crash."""
    written = path.read_bytes() if path.exists() else b""
    return written[: written.rfind(b"\n") + 1]


# -- ln e --------------------------------------------------------------------------------------------


def fitted(results: Results, tokens: int, difference: float, *, below: int = 2) -> float:
    """ln e of a difference of losses, off the curve fitted from 1/`below` of the token budget to twice it, or a bound.

    The bounds are half the shortest and twice the longest of these token budgets (`log_efficiency`).
    """
    runs = [reference(near, seed) for near in CURVE if tokens // below <= near <= 2 * tokens for seed in SEEDS]
    curve = _curve(tuple((run.tokens, loss) for run in runs if (loss := results.get(run)) is not None))
    return _known(log_efficiency(curve, tokens, difference)).value


@cache
def _curve(points: tuple[tuple[int, float], ...]) -> Curve:
    return _known(fit_curve(points))


def interpolated(results: Results, tokens: int, difference: float) -> float:
    """The same, straight between the reference's losses in ln tokens: no curve is assumed."""
    losses = {near: loss for near in CURVE if (loss := results.get(reference(near))) is not None}
    if not {tokens, 2 * tokens} <= losses.keys():
        raise NotKnown("runs are missing")
    falling = [-loss for loss in losses.values()]
    return float(np.interp(-losses[tokens] - difference, falling, np.log(list(losses)))) - math.log(tokens)


Reading = Callable[[Results, int, float], float]
READINGS: Mapping[str, Reading] = {
    "": fitted,
    ", without a curve": interpolated,
    ", by the curve from a quarter, as in a search": partial(fitted, below=4),
}


def gain(results: Results, run: Run, over: Run, read: Reading = fitted) -> float:
    """ln e of a run over another of the same token budget; minus infinity if it diverged."""
    ours, theirs = results.get(run, math.nan), results.get(over)
    if ours is None:
        return -math.inf
    if theirs is None or math.isnan(ours):
        raise NotKnown("runs are missing")
    return read(results, run.tokens, ours - theirs)


def efficiencies(results: Results, tokens: int, read: Reading = fitted) -> dict[Run, float]:
    """ln e of the runs at a token budget over the reference of their seed."""
    runs = [run for run in results if run.tokens == tokens and results.get(reference(tokens, run.seed)) is not None]
    if not runs:
        raise NotKnown("runs are missing")
    return {run: gain(results, run, reference(tokens, run.seed), read) for run in runs}


def _known(value: T | Unknown) -> T:
    if isinstance(value, Unknown):
        raise NotKnown(value.reason)
    return value


# -- what it shows -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadratic:
    """ln e as a quadratic in u = ln(rate / MIDDLE_RATE) and v = ln(batch / BATCH).

    `coefficients` are of u, v, u**2, v**2 and u * v; `covariance` is theirs.
    """

    coefficients: tuple[float, ...]
    covariance: NDArray[np.float64]

    def log_rate(self, batch: int = BATCH) -> tuple[float, float]:
        """The best ln learning rate for a batch, and its standard error by the delta method."""
        slope, _, square, _, cross = self.coefficients
        v = math.log(batch / BATCH)
        u = -(slope + cross * v) / (2 * square)
        gradient = np.array([1.0, 0.0, 2 * u, 0.0, v]) / (-2 * square)
        return math.log(MIDDLE_RATE) + u, math.sqrt(gradient @ self.covariance @ gradient)

    def batch(self) -> str:
        """The best batch at the best rate for it, in sequences."""
        slope, by_batch, square, batch_square, cross = self.coefficients
        determinant = 4 * square * batch_square - cross**2
        if determinant <= 0:
            raise NotKnown("ln e has no maximum in the batch")
        best = BATCH * math.exp((cross * slope - 2 * square * by_batch) / determinant)
        return f"{best:.3g}{'' if min(BATCHES) <= best <= max(BATCHES) else ', outside those tried'}"

    def shape(self) -> str:
        """kappa_rate, kappa_batch and cross, with their standard errors."""
        terms = [(-self.coefficients[i], math.sqrt(self.covariance[i, i])) for i in (2, 3, 4)]
        return ", ".join(f"{value:+.2f} +- {error:.2f}" for value, error in terms)


def fit(found: Efficiencies) -> Quadratic:
    """The quadratic near the best rate of each batch, with a level for each seed; linear schedules only.

    A rate is near if it is so on all seeds: at the edge of divergence, those that survive would mislead.
    """
    runs = [run for run in found if run.schedule == "linear"]
    worst: dict[tuple[int, float], float] = {}
    for run in runs:
        cell = run.batch, run.learning_rate
        worst[cell] = min(found[run], worst.get(cell, math.inf))
    best = {batch: max(e for (b, _), e in worst.items() if b == batch) for batch, _ in worst}
    near = [run for run in runs if -math.inf < best[run.batch] - TOP <= worst[run.batch, run.learning_rate]]
    u = np.array([math.log(run.learning_rate / MIDDLE_RATE) for run in near])
    v = np.array([math.log(run.batch / BATCH) for run in near])
    levels = [np.array([float(run.seed == seed) for run in near]) for seed in sorted({run.seed for run in near})]
    rows, values = np.column_stack([u, v, u * u, v * v, u * v, *levels]), np.array([found[run] for run in near])
    spare = len(near) - rows.shape[1]
    if spare < 1 or np.linalg.matrix_rank(rows) < rows.shape[1]:
        raise NotKnown("too few runs near the best")
    inverse = np.linalg.inv(rows.T @ rows)
    coefficients = inverse @ rows.T @ values
    variance = float(np.sum((values - rows @ coefficients) ** 2)) / spare
    quadratic = Quadratic(coefficients=tuple(coefficients[:5].tolist()), covariance=variance * inverse[:5, :5])
    rates = [math.log(run.learning_rate) for run in runs]
    if quadratic.coefficients[2] >= 0 or not min(rates) <= quadratic.log_rate()[0] <= max(rates):
        raise NotKnown("ln e has no maximum among the learning rates tried")
    return quadratic


def best_rate(results: Results, tokens: int) -> tuple[float, float]:
    """The best ln learning rate at a token budget and the reference's batch, and its standard error."""
    return fit(efficiencies(results, tokens)).log_rate()


def drift(results: Results, shorter: int, longer: int) -> tuple[float, float]:
    """The change of the best ln rate per unit of ln tokens, and its standard error."""
    (before, before_error), (after, after_error) = best_rate(results, shorter), best_rate(results, longer)
    step = math.log(longer / shorter)
    return (after - before) / step, math.hypot(before_error, after_error) / step


def pick(results: Results) -> Run:
    """What the third token budget recommends for the longest."""
    moved = drift(results, SECOND, THIRD)[0] * math.log(LONGEST / THIRD)
    found = {run: e for run, e in efficiencies(results, THIRD).items() if run.schedule == "linear"}
    batch = max(found, key=found.__getitem__).batch
    rate = math.exp(fit(found).log_rate(batch)[0] + moved)
    return replace(reference(LONGEST), batch=batch, learning_rate=float(f"{rate:.3g}"))


def starvation(found: Efficiencies) -> Starvation:
    """How ln e follows ln of the area under the schedule, over the runs of the first seed."""
    others = {run: e for run, e in found.items() if run.seed == 0 and run != reference(run.tokens)}
    areas = [_log_area(run) - _log_area(reference(run.tokens)) for run in others]
    return _known(step_starvation(list(zip(areas, others.values(), strict=True))))


def _log_area(run: Run) -> float:
    steps = run.tokens // (run.batch * GPT.sequence_length)
    return math.log(run.learning_rate * lr_area(run.schedule, WARMUP_TOKENS / run.tokens, steps))


def seed_spread(found: Efficiencies) -> float:
    """The standard deviation of ln e between seeds: the median over the configurations that have several."""
    by_run: dict[Run, list[float]] = {}
    for run, e in found.items():
        by_run.setdefault(replace(run, seed=0), []).append(e)
    by_run.pop(reference(next(iter(found)).tokens), None)  # its ln e is zero by definition
    spreads = [statistics.stdev(es) for es in by_run.values() if len(es) > 1 and min(es) > -math.inf]
    if not spreads:
        raise NotKnown("one seed")
    return statistics.median(spreads)


# -- the predictions and the report ------------------------------------------------------------------


def area_counts(results: Results) -> str:
    short, long = (starvation(efficiencies(results, tokens)).slope for tokens in (SHORTEST, LONGEST))
    figures = f"slope {short:.2f}, predicted above 0.8; {long:.2f}, predicted below 0.4"
    return _verdict(short > 0.8 and long < 0.4, figures)


def drift_predicts(results: Results) -> str:
    found, _ = best_rate(results, LONGEST)
    predicted = best_rate(results, THIRD)[0] + drift(results, SECOND, THIRD)[0] * math.log(LONGEST / THIRD)
    figures = f"{math.exp(predicted):.3g} predicted, {math.exp(found):.3g} found, {predicted - found:+.2f} in ln"
    return _verdict(abs(predicted - found) <= 0.5, figures)


def linear_wins(results: Results) -> str:
    linear = replace(reference(LONGEST), learning_rate=MIDDLE_RATE)
    over = gain(results, replace(linear, schedule="constant"), linear)
    return _verdict(over < 0, f"ln e of constant over linear {over:+.2f}")


def pick_wins(results: Results) -> str:
    ours, base = pick(results), baseline(LONGEST)
    gains = [gain(results, replace(ours, seed=seed), replace(base, seed=seed)) for seed in SEEDS]
    figures = f"rate {ours.learning_rate:g}, batch {ours.batch}: ln e {', '.join(f'{e:+.2f}' for e in gains)} by seed"
    pick_loss, base_loss = (results.get(replace(run, tokens=BEYOND)) for run in (ours, base))
    if pick_loss is not None and base_loss is not None:
        figures += f"; at {BEYOND:,} tokens a loss of {pick_loss:.3f} against {base_loss:.3f}"
    return _verdict(statistics.fmean(gains) > 0, figures)


PREDICTIONS: Mapping[str, Callable[[Results], str]] = {
    "1. short runs measure the area under the schedule, long ones do not": area_counts,
    "2. the drift between the middle token budgets predicts the best rate at the longest": drift_predicts,
    "3. constant loses to linear at the longest": linear_wins,
    "4. the pick beats the baseline at the longest": pick_wins,
}


def report(results: Results) -> Iterator[str]:
    """The lines of the report: a table for each token budget, the drift, the predictions."""
    yield f"{len(results)} runs finished, of {len(planned(results, longest=False))} without --longest\n"
    for tokens in BUDGETS:
        try:
            yield from _table(efficiencies(results, tokens))
        except NotKnown as reason:
            yield f"{tokens:,} tokens: not known ({reason})"
        for name, read in READINGS.items():
            yield _said(f"slope of ln e on ln of the area ratio{name}", _slope, results, tokens, read)
        yield ""
    for shorter, longer in itertools.pairwise(BUDGETS):
        words = f"drift of the best ln rate per ln tokens, {shorter:,} to {longer:,} tokens"
        yield _said(words, lambda ends: "{:+.2f} +- {:.2f}".format(*drift(results, *ends)), (shorter, longer))
    for words, check in PREDICTIONS.items():
        yield _said(words, check, results)


def _table(found: Efficiencies) -> Iterator[str]:
    columns = [*((batch, "linear") for batch in BATCHES), (BATCH, "constant"), (BATCH, "cosine")]
    yield f"{next(iter(found)).tokens:,} tokens: ln e, median over seeds"
    yield "rate     " + "".join(f"{f'{schedule} {batch}':>13}" for batch, schedule in columns)
    for rate in sorted({run.learning_rate for run in found}):
        cells: dict[tuple[int, str], list[float]] = {}
        for run in (run for run in found if run.learning_rate == rate):
            cells.setdefault((run.batch, run.schedule), []).append(found[run])
        medians = [f"{statistics.median(cells[column]):+z.2f}" if column in cells else "" for column in columns]
        yield f"{rate:<9.3g}" + "".join(f"{median:>13}" for median in medians)
    yield _said(f"best ln rate at batch {BATCH}", lambda: "{:.2f} +- {:.2f}".format(*fit(found).log_rate()))
    yield _said("kappa_rate, kappa_batch, cross", lambda: fit(found).shape())
    yield _said("best batch", lambda: fit(found).batch())
    yield _said("spread of ln e between seeds", lambda: f"{seed_spread(found):.3f}")


def _slope(results: Results, tokens: int, read: Reading) -> str:
    found = starvation(efficiencies(results, tokens, read))
    return f"{found.slope:.2f}, r^2 {found.r_squared:.2f}, {found.trials} runs"


def _said(words: str, figure: Callable[..., str], *arguments: object) -> str:
    try:
        return f"{words}: {figure(*arguments)}"
    except NotKnown as reason:
        return f"{words}: not known ({reason})"


def _verdict(held: bool, figures: str) -> str:
    return f"{'held' if held else 'did not hold'} ({figures})"


def main() -> None:
    """Train what is not finished, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="one line for each finished run")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--longest", action="store_true", help=f"also {BEYOND:,} tokens")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    options = parser.parse_args()
    results = read_results(options.results)
    if not options.report:
        for run, loss in trained(results, options.jobs, longest=options.longest):
            append_result(options.results, Finished(run=run, loss=loss))
            print(f"{run}: loss {loss}", flush=True)
    print("\n".join(report(results)))


def trained(results: dict[Run, float | None], jobs: int, *, longest: bool) -> Iterator[tuple[Run, float | None]]:
    """Train what is planned and not in `results`, and add it to them; some `jobs` runs at a time."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: dict[Future[float | None], Run] = {}
        while True:
            known = {*results, *running.values()}
            missing = (run for run in planned(results, longest=longest) if run not in known)
            for run in itertools.islice(missing, jobs - len(running)):
                running[pool.submit(train, run)] = run
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(done)
                results[run] = done.result()
                yield run, results[run]


if __name__ == "__main__":
    main()
