"""A space file, read once: its text, its tables, and the line of each key.

This package interprets [plan] and [search]; the workload interprets [workload], [baseline] and [knobs]. Every error
names the place, the rule, the value and the remedy.
"""

from __future__ import annotations

import contextlib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from autotune.errors import BadInput
from autotune.space import keys
from autotune.space.keys import rule
from autotune.space.knobs import Knob
from autotune.space.plan import Plan
from autotune_model.encodings import decoded

T = TypeVar("T")

_SECTIONS = ("workload", "plan", "search", "baseline", "knobs")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = r"([0-9]+(?:\.[0-9]+)?)([smhd])"


def parse_duration(text: str) -> float:
    """The seconds in a duration such as `90s`, `20m`, `1h30m` or `2d`.

    Raises:
        BadInput: the text is not a positive duration.
    """
    parts = re.findall(_DURATION, text)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < math.inf or "".join(number + unit for number, unit in parts) != text:
        raise BadInput(f"a duration is a number with s, m, h or d; got {text!r}: write 90s, 20m or 1h30m")
    return seconds


def read_document(path: Path) -> SpaceDocument:
    """The space in the TOML file at `path`; paths in it are relative to the file's folder.

    Raises:
        BadInput: the file is missing, or is not TOML with the tables of a space.
    """
    try:
        text = decoded(path.read_bytes())
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise BadInput(f"a space is a readable TOML file; got {str(path)!r} ({reason}): check the path") from None
    return parse_document(text, name=path.stem, source=str(path), folder=path.resolve().parent)


def parse_document(text: str, *, name: str, source: str, folder: Path) -> SpaceDocument:
    """The space in `text`; `source` is its name in errors."""
    text = text.removeprefix("\ufeff")  # a byte order mark, which some editors write
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or as many nested brackets
        raise BadInput(f"{source}: a search space must be valid TOML; {error}: mend that line") from None
    document = SpaceDocument(text=text, name=name, source=source, folder=folder, tables=tables)
    document.check_sections()
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTable:
    """The table [search]."""

    budget: str = field(
        default="10m",
        metadata=rule(
            "Hard cap on the time of the whole search: a number with s, m, h or d.",
            examples=["20m"],
            json_schema_extra={"pattern": rf"^({_DURATION})+$"},
        ),
    )
    share_of_plan: float = field(
        default=0.02,
        metadata=rule(
            "The search costs at most this share of the plan with the baseline, whatever the budget.", gt=0, le=1
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceDocument:
    """The text of a space and its raw tables. `source` is its name in errors."""

    text: str
    name: str
    source: str
    folder: Path
    tables: Mapping[str, Any]

    def check_sections(self) -> None:
        """Raises BadInput if there is an unknown section, or one that is not a table."""
        for section, value in self.tables.items():
            if section not in _SECTIONS:
                raise self.error(
                    "", section, f"there is no table {section!r} here: {keys.did_you_mean(section, _SECTIONS)}"
                )
            if not isinstance(value, dict):
                raise self.error(section, "", f"{section} must be a table; got {value!r}: write [{section}]")

    def table(self, section: str) -> Table:
        """The table of that name; all but [search] are required."""
        if section not in self.tables and section != "search":
            raise self.error(
                "", section, f"a search space needs a table [{section}]; got none: copy it from a shipped space"
            )
        return Table(self, section, self.tables.get(section, {}))

    def plan(self) -> Plan:
        """The plan in [plan]."""
        table = self.table("plan")
        plan = table.read(Plan)
        if (plan.tokens > 0) == (plan.target_loss > 0):
            raise table.error(
                "tokens",
                f"a plan has either tokens or target_loss; got tokens {plan.tokens} and target_loss "
                f"{plan.target_loss:g}: give exactly one of them",
            )
        return plan

    def budget_seconds(self) -> float:
        """The budget in [search] for the whole search."""
        table = self.table("search")
        budget = table.read(SearchTable).budget
        try:
            return parse_duration(budget)
        except BadInput as error:
            raise table.error("budget", str(error)) from None

    def share_of_plan(self) -> float:
        """The largest share of the plan's cost that the search may take."""
        return self.table("search").read(SearchTable).share_of_plan

    def error(self, section: str, key: str, problem: str) -> BadInput:
        """The error for `problem` with `key` in `section`, with its place."""
        place = f"{self.source}:{self._line_of(section, key)}"
        return BadInput(f"{place}: [{section}] {problem}" if section else f"{place}: {problem}")

    def _line_of(self, section: str, key: str) -> int:
        """The line of `key` in `section`, else of its nearest parent, else 1 (tomllib keeps no line numbers)."""
        lines: dict[str, int] = {}
        table = ""
        for number, line in enumerate(self.text.split("\n"), start=1):
            if header := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
                name = table = _dotted(header.group(1))
            elif assignment := re.match(r"([^=#\[\]{}]+)=", line):
                name = _dotted(table, assignment.group(1))
            else:
                continue
            while name:
                lines.setdefault(name, number)
                name = name.rpartition(".")[0]
        wanted = _dotted(section, key)
        while wanted and wanted not in lines:
            wanted = wanted.rpartition(".")[0]
        return lines.get(wanted, 1)


class Table(Mapping[str, Any]):
    """One table of a space file, with its place in it."""

    def __init__(self, document: SpaceDocument, section: str, values: Mapping[str, Any]) -> None:
        self.document = document
        self.section = section
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def read(self, kind: type[T]) -> T:
        """The table as the dataclass `kind`, whose fields give each key's rule (`autotune.space.keys.rule`)."""
        self.check_keys(f.name for f in fields(kind))  # type: ignore[arg-type]
        try:
            return keys.read(kind, self._values)
        except keys.Refused as refused:
            raise self.error(refused.key, str(refused)) from None

    def check_keys(self, names: Iterable[str], *, within: str = "") -> None:
        """Raises BadInput if the table, or its inline table `within`, has a key not in `names`."""
        known = tuple(names)
        place = f"{self.section}.{within}" if within else self.section
        for key in self._values[within] if within else self._values:
            if key not in known:
                raise self.document.error(place, key, f"there is no key {key!r} here: {keys.did_you_mean(key, known)}")

    def error(self, key: str, problem: str) -> BadInput:
        """The error for `problem` with `key`, with its place."""
        return self.document.error(self.section, key, problem)

    @contextlib.contextmanager
    def locating(self, *errors: type[Exception]) -> Iterator[None]:
        """Turns `errors` raised within into BadInput, with the place of the key they name."""
        try:
            yield
        except errors as error:
            named = (key for key in self if re.search(rf"\b{re.escape(key)}\b", str(error)))
            raise self.error(next(named, ""), str(error)) from None


def value_of(table: Table, knob: Knob, value: Any) -> Any:
    """`value` as a value of the knob; raises BadInput if it is not legal."""
    value = keys.coerced(knob.kind, value)
    if type(value) is not knob.kind:
        raise table.error(knob.name, keys.wrong_kind(knob.name, knob.kind, value))
    if problem := knob.problem_with(value):
        raise table.error(knob.name, problem)
    return value


def _dotted(*parts: str) -> str:
    """A TOML key in full, without quotes and spaces."""
    return ".".join(re.sub(r"[\s\"']", "", key) for key in parts if key)
