"""Reads a search space from TOML. Every error names the place, the rule, the value and the remedy."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from autotune_model.config import DataConfig, GPTConfig, InvalidConfiguration, TrainingConfig
from autotune_model.knobs import KNOBS, Knob

from autotune.errors import BadInput
from autotune.space.space import Choice, Dimension, Domain, FloatRange, IntRange, Plan, SearchSpace, Workload, contains

_SECTIONS = ("workload", "plan", "search", "baseline", "knobs")
_GPT_KEYS = tuple(f.name for f in fields(GPTConfig))
_DATA_KEYS = tuple(f.name for f in fields(DataConfig) if f.name != "cache_dir")
_WORKLOAD_DEFAULTS: Mapping[str, Any] = {"evaluation_tokens": 16_384, "device": "auto"}
_WORKLOAD_KEYS = (*_DATA_KEYS, *_GPT_KEYS, "horizon_tokens", *_WORKLOAD_DEFAULTS)

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `20m`, `1h30m` or `2d`.

    Raises:
        BadInput: the text is no positive duration.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < math.inf or "".join(number + unit for number, unit in parts) != text:
        raise BadInput(f"a duration is a number with s, m, h or d; got {text!r}: write 90s, 20m or 1h30m")
    return seconds


def load_space(path: Path) -> SearchSpace:
    """The search space in the TOML file at `path`; a relative corpus is taken from the file's folder.

    Raises:
        BadInput: the file is missing or says something that cannot be searched.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise BadInput(f"a space is a readable TOML file; got {str(path)!r} ({reason}): check the path") from None
    return parse_space(text, name=path.stem, source=str(path), folder=path.resolve().parent)


def parse_space(text: str, *, name: str, source: str, folder: Path) -> SearchSpace:
    """The search space in `text`; `source` is how errors call it."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{source}: a search space must be valid TOML; {error}: mend that line") from None
    return _Reader(text=text, source=source, document=document).space(name, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    text: str
    source: str
    document: Mapping[str, Any]

    def space(self, name: str, folder: Path) -> SearchSpace:
        self._known("", self.document, _SECTIONS)
        for section in self.document:
            if not isinstance(self.document[section], dict):
                raise self._error(
                    section, "", f"{section} must be a table; got {self.document[section]!r}: write [{section}]"
                )
        baseline = self._baseline()
        space = SearchSpace(
            name=name,
            workload=self._workload(folder),
            plan=self._plan(),
            baseline=baseline,
            dimensions=self._dimensions(baseline),
            budget_seconds=self._budget(),
        )
        try:
            space.session(baseline, seed=0, horizon_tokens=space.workload.horizon_tokens)
        except InvalidConfiguration as error:
            raise self._error("baseline", "parallelism", str(error)) from None
        return space

    def _workload(self, folder: Path) -> Workload:
        table = dict(_WORKLOAD_DEFAULTS) | self._section("workload", required=True)
        self._known("workload", table, _WORKLOAD_KEYS)
        for key in ("horizon_tokens", "evaluation_tokens"):
            if type(table.get(key)) is not int or table[key] < 1:
                raise self._error("workload", key, f"{key} must be a positive int; got {table.get(key)!r}: try 50_000")
        if table["device"] not in ("auto", "cpu", "cuda", "mps"):
            raise self._error(
                "workload", "device", f'device must be auto, cpu, cuda or mps; got {table["device"]!r}: use "auto"'
            )
        try:
            gpt = GPTConfig.from_mapping({k: v for k, v in table.items() if k in _GPT_KEYS})
            data = DataConfig.from_mapping({k: v for k, v in table.items() if k in _DATA_KEYS})
        except InvalidConfiguration as error:
            raise self._error("workload", _first_key(str(error), table), str(error)) from None
        if data.corpus != "stdlib":
            try:
                table["corpus"] = str(folder / Path(data.corpus).expanduser())
            except RuntimeError:
                raise self._error(
                    "workload", "corpus", f"~ must stand for a user's folder; got {data.corpus!r}: write the path out"
                ) from None
            data = DataConfig.from_mapping({k: v for k, v in table.items() if k in _DATA_KEYS})
        if table["horizon_tokens"] < gpt.sequence_length:
            raise self._error(
                "workload",
                "horizon_tokens",
                f"horizon_tokens must hold at least one sequence of {gpt.sequence_length}; "
                f"got {table['horizon_tokens']}: try {100 * gpt.sequence_length}",
            )
        return Workload(
            gpt=gpt,
            data=data,
            horizon_tokens=table["horizon_tokens"],
            evaluation_tokens=table["evaluation_tokens"],
            device=table["device"],
        )

    def _plan(self) -> Plan:
        table = self._section("plan", required=True)
        kinds = get_type_hints(Plan)
        names = [f.name for f in fields(Plan)]
        self._known("plan", table, names)
        values: dict[str, Any] = {}
        for key, value in table.items():
            kind = kinds[key]
            if kind is float and type(value) is int:
                value = float(value)
            if kind is int and type(value) is float and value.is_integer():
                value = int(value)  # TOML has no other way to write 2e9
            if type(value) is not kind:
                raise self._error("plan", key, f"{key} must be {kind.__name__}; got {value!r}: write a {kind.__name__}")
            if kind is not bool and not 0 <= value < float("inf"):
                raise self._error("plan", key, f"{key} must be finite and not negative; got {value!r}: use 0 or more")
            values[key] = value
        plan = Plan(**values)
        if (plan.tokens > 0) == (plan.target_loss > 0):
            raise self._error(
                "plan",
                "tokens",
                f"a plan has either tokens or target_loss; got tokens {plan.tokens} and target_loss "
                f"{plan.target_loss:g}: give exactly one of them",
            )
        for key in ("runs", "devices"):
            if getattr(plan, key) < 1:
                raise self._error("plan", key, f"{key} must be at least 1; got {getattr(plan, key)}: use 1")
        if plan.pue < 1.0:
            raise self._error(
                "plan", "pue", f"pue must be at least 1; got {plan.pue:g}: use 1.0 for a machine in a room"
            )
        return plan

    def _budget(self) -> float:
        table = {"budget": "10m"} | self._section("search", required=False)
        self._known("search", table, ("budget",))
        if not isinstance(table["budget"], str):
            raise self._error("search", "budget", f'budget must be a duration; got {table["budget"]!r}: write "10m"')
        try:
            return parse_duration(table["budget"])
        except BadInput as error:
            raise self._error("search", "budget", str(error)) from None

    def _baseline(self) -> TrainingConfig:
        table = self._section("baseline", required=True)
        self._known("baseline", table, KNOBS)
        values = {name: _as_kind(KNOBS[name], value) for name, value in table.items()}
        try:
            return TrainingConfig.from_mapping(values)
        except InvalidConfiguration as error:
            raise self._error("baseline", _first_key(str(error), table), str(error)) from None

    def _dimensions(self, baseline: TrainingConfig) -> tuple[Dimension, ...]:
        table = self._section("knobs", required=True)
        self._known("knobs", table, KNOBS)
        if not table:
            raise self._error(
                "knobs", "", f"a search needs at least one knob; got none: choose from {', '.join(KNOBS)}"
            )
        dimensions = [
            Dimension(knob=knob, domain=self._domain(knob, table[name]))
            for name, knob in KNOBS.items()
            if name in table
        ]
        for dimension in dimensions:
            name = dimension.knob.name
            value = getattr(baseline, name)
            if not contains(dimension.domain, value):
                raise self._error(
                    "knobs",
                    name,
                    f"the domain of {name} must contain the baseline's value; got {table[name]!r} without {value!r}: "
                    f"add it, or change [baseline] {name}",
                )
        return tuple(dimensions)

    def _domain(self, knob: Knob, value: Any) -> Domain:
        if isinstance(value, list):
            return self._choice(knob, value)
        if isinstance(value, dict) and knob.kind in (int, float) and {"low", "high"} <= set(value):
            return self._range(knob, value)
        raise self._error(
            "knobs",
            knob.name,
            f"a domain is a list of values or, for a number, {{ low = .., high = .. }}; got {value!r}: "
            "list the values to try",
        )

    def _choice(self, knob: Knob, listed: list[Any]) -> Choice:
        values = tuple(_as_kind(knob, v) for v in listed)
        if not values:
            raise self._error("knobs", knob.name, "a domain must not be empty; got []: list the values to try")
        for value in values:
            if problem := knob.problem_with(value):
                raise self._error("knobs", knob.name, problem)
        if len(set(values)) != len(values):
            raise self._error("knobs", knob.name, f"a domain must not repeat a value; got {listed!r}: list each once")
        return Choice(values=values)

    def _range(self, knob: Knob, table: Mapping[str, Any]) -> IntRange | FloatRange:
        self._known(f"knobs.{knob.name}", table, ("low", "high", "log"))
        low, high, log = _as_kind(knob, table["low"]), _as_kind(knob, table["high"]), table.get("log", False)
        for bound in (low, high):
            if problem := knob.problem_with(bound):
                raise self._error("knobs", knob.name, problem)
        if not isinstance(log, bool):
            raise self._error(
                "knobs", knob.name, f"log must be true or false; got {log!r}: use true for learning rates"
            )
        if low >= high:
            raise self._error("knobs", knob.name, f"a range needs low below high; got {low!r} and {high!r}: widen it")
        if log and low <= 0:
            raise self._error("knobs", knob.name, f"a log range needs a positive low; got {low!r}: try 1e-5")
        if knob.kind is int:
            return IntRange(low=low, high=high, log=log)
        return FloatRange(low=low, high=high, log=log)

    def _section(self, section: str, *, required: bool) -> dict[str, Any]:
        if required and section not in self.document:
            raise self._error(
                "", section, f"a search space needs a table [{section}]; got none: copy it from a shipped space"
            )
        return dict(self.document.get(section, {}))

    def _known(self, section: str, table: Iterable[str], known: Iterable[str]) -> None:
        for key in table:
            if key not in known:
                kind = "key" if section else "table"
                raise self._error(section, key, f"there is no {kind} {key!r} here: use one of {', '.join(known)}")

    def _error(self, section: str, key: str, problem: str) -> BadInput:
        place = f"{self.source}:{self._line_of(section, key)}"
        return BadInput(f"{place}: [{section}] {problem}" if section else f"{place}: {problem}")

    def _line_of(self, section: str, key: str) -> int:
        """The line of `key` in `section` (tomllib keeps none), else of what it would stand in, else the first."""
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


def _dotted(*keys: str) -> str:
    """A TOML key in full, without quotes and spaces."""
    return ".".join(re.sub(r"[\s\"']", "", key) for key in keys if key)


def _as_kind(knob: Knob, value: Any) -> Any:
    """An int where a float knob is meant is that float; everything else stays as it is and is judged later."""
    return float(value) if knob.kind is float and type(value) is int else value


def _first_key(message: str, table: Iterable[str]) -> str:
    return next((key for key in table if re.search(rf"\b{re.escape(key)}\b", message)), "")
