"""The rows of a training log: JSON lines, CSV, or the lines that a trainer prints, with the names that are known.

These names are known, in any case and with any separator ("Val Loss", val/loss):

    tokens so far   tokens, tokens_seen, num_tokens, n_tokens, consumed_tokens, total_tokens, train_tokens
    steps so far    step, global_step, trainer/global_step, train/global_step, optimizer_step, current_steps,
                    num_updates, iteration, iter
    held-out loss   val_loss, valid_loss, validation_loss, eval_loss, evaluation_loss, held_out_loss, loss/val,
                    loss/valid, loss/validation, loss/eval; or loss, in a JSON or CSV row that has the value val,
                    valid, validation, eval, evaluation or held_out
    training loss   loss, train_loss, training_loss, loss/train, lm_loss; used if there is no held-out loss

A step number counts the updates made. Step 0 is therefore before training, and left out like all rows at 0 tokens.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NoReturn


class RefusalKind(StrEnum):
    """Why a log cannot be used."""

    UNREADABLE = "unreadable"
    NO_LOSS = "no_loss"
    NO_LENGTH = "no_length"
    GAPS = "gaps"
    NOT_FINITE = "not_finite"
    UNITS = "units"
    OTHER_MODEL = "other_model"
    OTHER_TEXT = "other_text"
    OTHER_CONFIGURATION = "other_configuration"
    TOO_SHORT = "too_short"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A log that cannot be used. `reason` is one line: rule, value, remedy."""

    kind: RefusalKind
    reason: str


TOKENS = ("tokens", "tokens_seen", "num_tokens", "n_tokens", "consumed_tokens", "total_tokens", "train_tokens")
STEPS = ("step", "global_step", "trainer/global_step", "train/global_step", "optimizer_step", "current_steps",
          "num_updates", "iteration", "iter")  # fmt: skip
HELD_OUT = ("val_loss", "valid_loss", "validation_loss", "eval_loss", "evaluation_loss", "held_out_loss", "loss/val",
             "loss/valid", "loss/validation", "loss/eval")  # fmt: skip
TRAINING = ("loss", "train_loss", "training_loss", "loss/train", "lm_loss")
LOSSES = {*HELD_OUT, *TRAINING}
OTHER_UNIT = "loss in another unit"  # in a row: the name of such a column
_OTHER_UNITS = {"perplexity", "ppl", "bits", "bit", "bpb", "bpc", "bpt"}
_HELD_OUT_SPLITS = {"val", "valid", "validation", "eval", "evaluation", "heldout"}
_SPLITS = {"split", "subset", "phase", "stage", "mode"}
_DESCRIPTIONS = {"config", "configuration", "args", "hparams", "settings", "knobs"}
_WRAPPERS = {"", "metrics", "log", "logs", "data", "values", "scalars"}
_BLANK = {"", "-", "--", "none", "null", "na", "n/a"}

_MOST_LINES = 2_000_000
_MOST_CHARACTERS = 40  # of a number

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and cursor movements
_LEVEL = re.compile(r"\b(?:DEBUG|INFO|WARNING|WARN|ERROR)\b")
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.0*)?", re.ASCII)
_SCALED = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)? ?[a-z%]+", re.ASCII | re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE)
_PRINTED = re.compile(  # a number with its unit
    r"(?<![\w.])[+-]?(?:(?:nan|inf(?:inity)?)(?!\w)"
    r"|\.?\d(?:[\d.,]*\d)?(?:e[+-]?\d+)?(?:[\w%]+| (?:bits?|thousand|million|billion|(?-i:[kMB]))\b(?! *[:=]))?)",
    re.ASCII | re.IGNORECASE,
)
_BREAK = re.compile(r"[^\w/.\- ]|(?<!\S)-+(?!\S)|  +")  # between what is said of one number and of the next
_TITLE = re.compile(r"[a-z_/.\-() ]{1,40}", re.IGNORECASE)  # of a column
_SPLIT_WORD = re.compile(r"\b(?:val|valid\w*|eval\w*|held.?out|test)\b", re.IGNORECASE)

Said = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Row:
    """The values of a row, as text, by their names as in the tables above."""

    line: int
    found: Mapping[str, str]


class Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def refuse(kind: RefusalKind, rule: str, got: str, remedy: str) -> NoReturn:
    raise Refused(Refusal(kind=kind, reason=f"a log must {rule}; got {got}: {remedy}"))


def quoted(text: str, line: int = 0) -> str:
    shown = repr(text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}...")
    return f"{shown} in line {line}" if line else shown


# -- formats -----------------------------------------------------------------------------------------------------------


def rows_of(text: str) -> tuple[Said, list[Row]]:
    """What the log says of its run, and its rows."""
    if "\0" in text or not text.strip():
        got = "a null character" if text.strip() else "nothing"
        refuse(RefusalKind.UNREADABLE, "be text", got, "give what the trainer printed or logged")
    if text.count("\n") + text.count("\r") > _MOST_LINES:
        refuse(RefusalKind.UNREADABLE, f"have at most {_MOST_LINES:,} lines", "more", "keep every tenth")
    said: Said = []
    lines: list[tuple[int, str]] = []
    for number, whole in enumerate(_ESCAPE.sub("", text).split("\n"), 1):
        for line in whole.split("\r"):  # progress bars overwrite themselves
            if line.lstrip().startswith("#"):
                key, *value = re.split("[:=]", line.strip("# \t"), maxsplit=1)
                said += [(key.strip(), value[0].strip("\t \"'"))] if value else []
            elif line.strip():
                lines.append((number, line.strip(" ")))  # a tab may end an empty field
    first = lines[0][1] if lines else ""
    if re.match(r'\s*\{\s*["}]', first):
        return _json_lines(lines, said)
    delimiter = max(",;\t", key=lambda sign: sum(map(_is_column, _fields(first, sign))))
    header = _fields(first, delimiter)
    if any(map(_is_column, header)):
        return said, list(_csv_rows(header, delimiter, lines[1:]))
    return said, [_row(number, _printed(line)) for number, line in lines]


def _json_lines(lines: Iterable[tuple[int, str]], said: Said) -> tuple[Said, list[Row]]:
    """A first object without a loss is what the log says of its run."""
    rows: list[Row] = []
    for number, line in lines:
        try:  # numbers stay text and objects pairs: no digit and no repeated key is lost
            pairs = json.loads(line, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=tuple)
        except (ValueError, RecursionError):
            pairs = None
        if not isinstance(pairs, tuple):
            refuse(RefusalKind.UNREADABLE, "have one JSON object a line", quoted(line, number), "remove that line")
        flat = list(_flat(pairs))
        row = _row(number, ((key if plain(outer) in _WRAPPERS else f"{outer}/{key}", v) for outer, key, v in flat))
        if not rows and not _is_measurement(row, flat):
            said = [*said, *((key, value.encode("utf-8", "replace").decode()) for _, key, value in flat)]
        rows.append(row)
    return said, rows


def _flat(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The scalars of an object and of the objects in it, as (key of the inner object or "", name, text)."""
    for key, value in pairs:
        inner = isinstance(value, tuple)
        for name, scalar in value if inner else ((key, value),):
            if isinstance(scalar, bool | str):
                yield key if inner else "", name, scalar if isinstance(scalar, str) else str(scalar).lower()


def _is_measurement(row: Row, flat: Sequence[tuple[str, str, str]]) -> bool:
    """Whether a JSON object is of one moment of the run (a loss, a step, tokens among numbers), not of all of it."""
    if LOSSES & row.found.keys():
        return True
    if any(plain(outer) in _DESCRIPTIONS for outer, *_ in flat):
        return False
    has_tokens = any(name in row.found for name in TOKENS)
    is_numeric = all(number_of(text) is not None for *_, text in flat)
    return any(name in row.found for name in STEPS) or (has_tokens and is_numeric)


def _csv_rows(header: list[str], delimiter: str, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        values = _fields(line, delimiter)
        if len(values) != len(header):
            rule = f"have {len(header)} fields in each CSV row, as in its header"
            refuse(RefusalKind.UNREADABLE, rule, quoted(line, number), "correct or remove that line")
        if values != header:  # a resumed run repeats it
            yield _row(number, zip(header, values, strict=True))


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []


def _printed(line: str) -> list[tuple[str, str]]:
    """The numbers in a printed line, each with the words right before it.

    `loss` alone is left out if the line also speaks of validation: it may be either loss.
    """
    line, end = _LEVEL.sub("|", line), 0
    pairs: list[tuple[str, str]] = []
    rest = ""
    for number in _PRINTED.finditer(line):
        gap, end = line[end : number.start()], number.end()
        label = gap.rstrip()
        label = label[:-1] if label.endswith((":", "=")) else label if label != gap else ""
        name = _BREAK.split(label.rstrip(" '\""))[-1].strip()
        pairs.append((name, number.group()))
        rest += gap.replace(name, "|") if plain(name) in _KNOWN else f"{gap}|"
    if _SPLIT_WORD.search(rest + line[end:]):
        return [(name, value) for name, value in pairs if plain(name) not in ("loss", "lmloss")]
    return pairs


# -- names and values --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A name without case and separators. A leading _ stays: the `_step` of W&B counts calls, not steps."""
    name = name.strip().lower()
    return name if name.startswith("_") else re.sub(r"[\s_/.\-]+", "", name)


_KNOWN = {plain(name): name for name in (*TOKENS, *STEPS, *HELD_OUT, *TRAINING)}


@lru_cache(maxsize=4096)
def _is_other_unit(name: str) -> bool:
    return not _OTHER_UNITS.isdisjoint(re.split(r"[\W_\d]+", name.lower()))


def _is_column(name: str) -> bool:
    return plain(name) in _KNOWN or (_is_other_unit(name) and _TITLE.fullmatch(name) is not None)


def _row(line: int, pairs: Iterable[tuple[str, str]]) -> Row:
    found: dict[str, str] = {}
    split = ""
    for name, text in pairs:
        value, known = text.strip(), _KNOWN.get(plain(name))
        if value.lower() in _BLANK:
            continue
        if known is not None:
            if found.setdefault(known, value) != value:
                got = f"{quoted(found[known])} and {quoted(value, line)}"
                refuse(RefusalKind.UNREADABLE, f"give {known} once in a row", got, "keep the right one")
        elif _is_other_unit(name):
            found[OTHER_UNIT] = name
        elif len(value) < _MOST_CHARACTERS and plain(value) in _HELD_OUT_SPLITS:
            split = "held-out"
        elif plain(name) in _SPLITS and value.lower() in ("test", "dev"):
            split = "other"
    if split and "loss" in found:
        found["held_out_loss" if split == "held-out" else "test_loss"] = found.pop("loss")
    return Row(line, found)


def number_of(text: str, *, thousands: bool = False) -> float | None:
    """The number that `text` is, infinite if it is too large for a float; None if it is none, or NaN."""
    if len(text) > _MOST_CHARACTERS:
        return None
    if thousands and _THOUSANDS.fullmatch(text):
        return float(text.replace(",", ""))
    return float(text) if _PLAIN.fullmatch(text) else None


def not_a_number(name: str, text: str, line: int) -> NoReturn:
    kind, remedy = RefusalKind.UNREADABLE, "write it like 1234.5, or remove the line"
    if _SCALED.fullmatch(text):
        kind, remedy = RefusalKind.UNITS, "write it out, without a unit"
    refuse(kind, f"have plain numbers for {name}", quoted(text, line), remedy)


def check_finite(name: str, text: str, line: int) -> None:
    if _NOT_FINITE.fullmatch(text) or number_of(text) in (math.inf, -math.inf):
        refuse(RefusalKind.NOT_FINITE, f"have a finite {name}", quoted(text, line), "use a run that did not diverge")
