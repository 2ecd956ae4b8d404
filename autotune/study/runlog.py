"""Reads the log of a training run that the user has done, or says why it cannot be used.

A log is JSON lines, a CSV file with a header, or the lines that a trainer prints (`autotune.study.logrows`). It is used
whole or not at all: nothing is repaired or guessed.
"""

from __future__ import annotations

import math
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from autotune.errors import BadInput
from autotune.space.configuration import Configuration
from autotune.study.logrows import (
    HELD_OUT,
    LOSSES,
    OTHER_UNIT,
    STEPS,
    TOKENS,
    TRAINING,
    Refusal,
    RefusalKind,
    Refused,
    Row,
    Said,
    check_finite,
    not_a_number,
    number_of,
    plain,
    quoted,
    refuse,
    rows_of,
)
from autotune.workload.machine import Machine
from autotune.workload.space import SearchSpace
from autotune_model.encodings import decoded

_SIZES = ("vocabsize", "nvocab", "parameters", "numparameters", "nparameters", "params", "numparams", "nparams")
_MOST_BYTES = 64 * 2**20
_MOST_TOKENS = 10**15
_LARGEST_LOSS = 1e6
_FEWEST_POINTS = 3
_PLAN_SHARE = 0.9
_STEP_TOLERANCE = 0.01
_FIT_NATS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPoint:
    """The loss (nats per token) after `tokens` tokens of training."""

    tokens: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """A training run according to its log.

    `points` are at least three, with strictly increasing tokens. `said` is what the log says of its run (knobs, corpus,
    vocabulary), as text. `is_held_out` is False if the log has only a training loss.
    """

    points: tuple[LogPoint, ...]
    said: Mapping[str, str]
    is_held_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRun:
    """The run that a log is checked against.

    `configuration` has the value of each knob as text. `parameters` is 0, and `corpus` and `corpus_sha256` are empty,
    if not known. `shortest_tokens` is the smallest token budget that was measured. `cooled` has the baseline's measured
    final losses of complete schedules, as (tokens, nats per token).
    """

    configuration: Mapping[str, str]
    tokens_per_step: int
    vocab_size: int
    parameters: int
    corpus_sha256: str
    corpus: str
    plan_tokens: int
    shortest_tokens: int
    cooled: tuple[tuple[int, float], ...]


def read_run_log(path: Path, expected: ExpectedRun) -> RunLog | Refusal:
    """The log in the file `path`: UTF-8, or UTF-16 with a byte order mark. See `parse_run_log`."""
    try:
        return parse_run_log(_text(path), expected)
    except Refused as refused:
        return refused.refusal


def parse_run_log(text: str, expected: ExpectedRun) -> RunLog | Refusal:
    """The log in `text`, unless it is damaged, or cannot be a log of the expected run."""
    try:
        said, rows = rows_of(text.removeprefix("\ufeff"))
        _check_said(said, expected)
        column = _loss_column(rows)
        points = _points(rows, column, expected)
        _check_points(points, expected)
        if not text.endswith(("\n", "\r")):
            _check_last(rows, column)
    except Refused as refused:
        return refused.refusal
    return RunLog(points=points, said=dict(said), is_held_out=column in HELD_OUT)


def log_of_run(
    path: Path,
    configuration: Configuration,
    space: SearchSpace,
    machine: Machine,
    cooled: Sequence[tuple[int, float]] = (),
) -> RunLog:
    """The log of a run of the plan of `space` with that configuration; `cooled` as in `ExpectedRun`.

    Raises:
        BadInput: it cannot be used.
    """
    expected = ExpectedRun(
        configuration={name: str(value) for name, value in configuration.items()},
        tokens_per_step=space.workload.cost(configuration).tokens,
        vocab_size=machine.corpus.vocab_size,
        parameters=0,
        corpus_sha256=machine.corpus.content_sha256,
        corpus=space.workload.corpus,
        plan_tokens=space.plan.tokens,
        shortest_tokens=space.workload.horizon_tokens,
        cooled=tuple(cooled),
    )
    found = read_run_log(path, expected)
    if isinstance(found, Refusal):
        raise BadInput(f"{path}: {found.reason}")
    return found


def misfit(log: RunLog, cooled: Sequence[tuple[int, float]]) -> str:
    """Why the model that was trained here cannot have those losses; empty if it can.

    `cooled` are the baseline's final losses of complete schedules, as (tokens, nats per token), measured meanwhile.
    """
    try:
        _check_fit(log.points, cooled)
    except Refused as refused:
        return refused.refusal.reason
    return ""


def _text(path: Path) -> str:
    unreadable = RefusalKind.UNREADABLE
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            refuse(unreadable, "be a regular file", repr(str(path)), "name the file itself")
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        why = getattr(error, "strerror", None) or "no such path"
        refuse(unreadable, "be a readable file", f"{str(path)!r} ({why})", "check path and permissions")
    if len(raw) > _MOST_BYTES:
        refuse(unreadable, "be at most 64 MiB", "more", "keep only the lines with a loss")
    try:
        return decoded(raw)
    except UnicodeError as error:
        where = f"other bytes at {error.start:,}" if isinstance(error, UnicodeDecodeError) else "other bytes"
        refuse(unreadable, "be UTF-8 text", where, "save it as UTF-8")


def _loss(name: str, text: str, line: int) -> float:
    loss = number_of(text)
    if loss is None:
        not_a_number(name, text, line)
    if not 0 < loss <= _LARGEST_LOSS:
        rule = f"have a {name} in nats per token, above 0"
        refuse(RefusalKind.UNITS, rule, quoted(text, line), "log the mean cross-entropy per token")
    return loss


def _count(row: Row, names: Sequence[str]) -> int | None:
    """The tokens or steps of a row; None if it has none. All of `names` in it must agree."""
    counts: dict[str, int] = {}
    for name in names:
        if name in row.found:
            text = row.found[name]
            count = number_of(text, thousands=True)
            if count is None:
                not_a_number(name, text, row.line)
            if not 0 <= count <= _MOST_TOKENS or not count.is_integer():
                rule = f"have whole numbers from 0 to 10^15 for {name}"
                refuse(RefusalKind.UNITS, rule, quoted(text, row.line), "count in ones, not in millions")
            counts[name] = int(count)
    if len(set(counts.values())) > 1:
        got = " and ".join(f"{name} {count}" for name, count in counts.items())
        refuse(RefusalKind.UNITS, "have one length in a row", f"{got} in line {row.line}", "keep the right one")
    return next(iter(counts.values()), None)


def _tokens(row: Row, per_step: int) -> int | None:
    tokens, steps = _count(row, TOKENS), _count(row, STEPS)
    if steps is None:
        return tokens
    if tokens is None:
        return steps * per_step
    if abs(tokens - steps * per_step) > max(_STEP_TOLERANCE * steps * per_step, per_step):  # steps from 0 or from 1
        got = f"{tokens:,} tokens at step {steps:,} in line {row.line}"
        remedy = "count tokens in ones, and optimizer steps"
        refuse(RefusalKind.UNITS, f"have {per_step:,} tokens per step, as this configuration", got, remedy)
    return tokens


def _loss_column(rows: Sequence[Row]) -> str:  # noqa: RET503 - refuse() does not return
    counts = Counter(name for row in rows for name in row.found)
    held_out = [name for name in HELD_OUT if counts[name]]
    if len(held_out) > 1:
        refuse(RefusalKind.UNREADABLE, "have one held-out loss", " and ".join(held_out), "keep the right one")
    training = max(TRAINING, key=lambda name: counts[name])
    if held_out or counts[training]:
        return held_out[0] if held_out else training
    other = next((row.found[OTHER_UNIT] for row in rows if OTHER_UNIT in row.found), "")
    if other:
        refuse(RefusalKind.UNITS, "have a loss in nats per token", f"only {quoted(other)}", "log the cross-entropy")
    refuse(RefusalKind.NO_LOSS, "have a loss", "no column, key or word for one", "name it val_loss or loss")


def _points(rows: Sequence[Row], column: str, expected: ExpectedRun) -> tuple[LogPoint, ...]:
    points: list[LogPoint] = []
    has_length = False
    for row in rows:
        for name in LOSSES.intersection(row.found):
            check_finite(name, row.found[name], row.line)
        if column not in row.found or (tokens := _tokens(row, expected.tokens_per_step)) is None:
            continue
        has_length = True
        point = LogPoint(tokens=tokens, loss=_loss(column, row.found[column], row.line))
        if tokens == 0 or (points and point == points[-1]):
            continue
        if points and tokens <= points[-1].tokens:
            got = f"{tokens:,} tokens after {points[-1].tokens:,} in line {row.line}"
            refuse(RefusalKind.GAPS, "go forwards", got, "remove the part that a restart repeated")
        points.append(point)
    if not has_length:
        refuse(RefusalKind.NO_LENGTH, f"have step or tokens beside {column}", "neither", "log one of them")
    return tuple(points)


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_said(said: Said, expected: ExpectedRun) -> None:
    """Refuse a log that says itself that it is of another configuration, model or text."""
    own = {"tokens_per_step": str(expected.tokens_per_step), **expected.configuration}
    wanted = {plain(name): (RefusalKind.OTHER_CONFIGURATION, name, value) for name, value in own.items()}
    for key in _SIZES:
        what, count = ("vocab_size", expected.vocab_size) if "vocab" in key else ("parameters", expected.parameters)
        wanted |= {key: (RefusalKind.OTHER_MODEL, what, str(count))} if count else {}
    if expected.corpus_sha256:
        wanted["corpussha256"] = (RefusalKind.OTHER_TEXT, "corpus_sha256", expected.corpus_sha256)
    if expected.corpus and not (expected.corpus_sha256 and any(plain(key) == "corpussha256" for key, _ in said)):
        wanted["corpus"] = (RefusalKind.OTHER_TEXT, "corpus", expected.corpus)
    for key, value in said:
        if (name := plain(key)) in wanted and not _is_same(value, wanted[name][-1]):
            kind, told, right = wanted[name]
            refuse(kind, f"be of a run with {told} = {right:.40}", f"{told} = {quoted(value)}", "use such a run")


def _is_same(one: str, other: str) -> bool:
    """Whether two values are equal: as numbers if both are, else as text in any case."""
    a, b = number_of(one, thousands=True), number_of(other, thousands=True)
    if a is None or b is None:
        return one.strip().lower() == other.strip().lower()
    return math.isclose(a, b, rel_tol=1e-9)


def _check_points(points: Sequence[LogPoint], expected: ExpectedRun) -> None:
    """Refuse points that are not in nats and tokens, not the whole run, or not of this model."""
    most = math.log(max(expected.vocab_size, 2)) + 1
    high = [point.loss for point in points if point.loss > most]
    if len(high) > len(points) / 2:
        rule = f"have losses of at most ln(vocab_size) + 1 = {most:.1f} nats per token"
        got = f"{len(high)} of {len(points)} above, the last {high[-1]:g}"
        refuse(RefusalKind.UNITS, rule, got, "log the mean cross-entropy per token")
    if points and points[-1].tokens < expected.tokens_per_step:
        rule = f"have at least the {expected.tokens_per_step:,} tokens of one step"
        refuse(RefusalKind.UNITS, rule, f"{points[-1].tokens:,}", "count in ones, not in millions")
    if len(points) < _FEWEST_POINTS:
        rule = f"have a loss at {_FEWEST_POINTS} lengths or more"
        refuse(RefusalKind.GAPS, rule, str(len(points)), "evaluate more often")
    last = points[-1]
    begin, end = max(pairwise([0, *(point.tokens for point in points)]), key=lambda gap: gap[1] - gap[0])
    if end - begin > last.tokens / 2:
        got = f"one from {begin:,} to {end:,} of {last.tokens:,} tokens"
        refuse(RefusalKind.GAPS, "have no gap of more than half its length", got, "give the whole log")
    for what, least in (
        ("the shortest measured token budget", expected.shortest_tokens),
        (f"{_PLAN_SHARE * 100:g} % of the plan", math.ceil(_PLAN_SHARE * expected.plan_tokens)),
    ):
        if last.tokens < least:
            rule = f"reach {what}, {least:,} tokens"
            refuse(RefusalKind.TOO_SHORT, rule, f"{last.tokens:,} tokens", "use a run of the whole plan")
    _check_fit(points, expected.cooled)


def _check_last(rows: Sequence[Row], column: str) -> None:
    """Refuse a log of which the last line breaks off, as a trainer leaves it when it is killed: 3.1 for 3.1415."""
    *others, last = [(len(row.found[column].partition(".")[2]), row) for row in rows if column in row.found]
    if others and last[0] + 1 < min(decimals for decimals, _ in others):
        got, remedy = quoted(last[1].found[column], last[1].line), "remove that line, or end it with a line break"
        refuse(RefusalKind.UNREADABLE, "end with a whole line", got, remedy)


def _check_fit(points: Sequence[LogPoint], cooled: Sequence[tuple[int, float]]) -> None:
    """Refuse losses that this model cannot have, given the final losses measured here.

    In the middle of a long run the learning rate is still at its height, so the weights have moved as far as in a
    complete schedule of up to twice the tokens; the loss should be above that of one.
    """
    for tokens, loss in cooled:
        half = tokens // 2
        at = _loss_at(points, half)
        if at is not None and at < loss - _FIT_NATS:
            _misfit(tokens, f"at least {loss - _FIT_NATS:.3g} at {half:,} tokens", at)
    if cooled:
        tokens, loss = max(cooled)
        if points[-1].tokens >= tokens and points[-1].loss > loss:
            _misfit(tokens, f"at most {loss:.3g} in the end", points[-1].loss)


def _misfit(tokens: int, rule: str, loss: float) -> NoReturn:
    remedy = f"loss does not fit what this model reached here in {tokens:,} tokens; use a run of this model and text"
    refuse(RefusalKind.OTHER_MODEL, f"have a loss of {rule}", f"{loss:.3g}", remedy)


def _loss_at(points: Sequence[LogPoint], tokens: int) -> float | None:
    """The loss at `tokens`, linear in the logarithm of tokens; None outside the log."""
    for a, b in pairwise(points):
        if a.tokens <= tokens <= b.tokens:
            share = math.log(tokens / a.tokens) / math.log(b.tokens / a.tokens)
            return a.loss + share * (b.loss - a.loss)
    return None
