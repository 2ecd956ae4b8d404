"""The search space bound to a workload: which configuration in these domains is best for the plan?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.errors import BadInput
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.document import SpaceDocument, Table, read_document, value_of
from autotune.space.knobs import (
    Choice,
    Dimension,
    Domain,
    FloatRange,
    IntRange,
    Knob,
    KnobClass,
    KnobValue,
    contains,
    members,
)
from autotune.space.limits import Limits, Pruned, prune
from autotune.space.moves import turn, turned_back
from autotune.space.plan import Plan
from autotune.workload.base import Values, Workload
from autotune.workload.gpt import GPTWorkload
from autotune.workload.ranges import MOST_LISTED, with_listed_ranges

Read = Callable[[SpaceDocument], Workload]
"""Makes a workload of a space file."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The dimensions to search, the plan to search for, and the time budget.

    A knob that is not a dimension keeps its baseline value. `budget_seconds` caps the search; the command line may
    override it. `share_of_plan` caps it as well, as a share of the plan's cost with the baseline.
    """

    name: str
    workload: Workload
    plan: Plan
    dimensions: tuple[Dimension, ...]
    budget_seconds: float
    share_of_plan: float = 0.02

    @property
    def baseline(self) -> Configuration:
        """What the user would run today."""
        return self.workload.baseline

    def of_class(self, *classes: KnobClass) -> tuple[Dimension, ...]:
        """The dimensions whose knob has one of `classes`, in the order of the workload's knobs."""
        return tuple(d for d in self.dimensions if d.knob.knob_class in classes)

    def turned(self, configuration: Configuration, values: Mapping[str, KnobValue]) -> Configuration:
        """`configuration` with `values` set.

        Raises:
            InvalidConfiguration: the combination is not valid.
        """
        turned = configuration.with_values(values)
        self.workload.check(turned)
        return turned

    def changed(
        self, configuration: Configuration, *classes: KnobClass, base: Configuration | None = None
    ) -> dict[str, KnobValue]:
        """The knobs of `classes` (default: all) that differ from `base` (default: the baseline), with their values.

        In the order of the workload's knobs.
        """
        different = configuration.difference(self.baseline if base is None else base)
        return {
            name: different[name]
            for name, knob in self.workload.knobs.items()
            if name in different and (not classes or knob.knob_class in classes)
        }

    def complexity(self, configuration: Configuration) -> int:
        """The complexity of adopting it: the sum over the changed knobs."""
        return sum(self.workload.knobs[name].complexity for name in self.changed(configuration))

    def system_part(self, configuration: Configuration) -> Configuration:
        """`configuration` with every learning knob back at the baseline's value.

        Where that is not valid alone, one system knob that depends on them goes back, too, or all of them.
        """
        learning = {name: self.baseline[name] for name in self.changed(configuration, KnobClass.LEARNING)}
        others = self.changed(configuration, KnobClass.SYSTEM, KnobClass.NUMERICS)
        for back in ({}, *({name: self.baseline[name]} for name in others)):
            with contextlib.suppress(InvalidConfiguration):
                return self.turned(configuration, learning | back)
        return self.baseline

    def turn(
        self,
        configuration: Configuration,
        name: str,
        value: KnobValue,
        companions: Mapping[str, Sequence[KnobValue]],
    ) -> Iterator[Configuration]:
        """See `autotune.space.moves.turn`."""
        return turn(configuration, name, value, companions, self.workload.check)

    def turned_back(
        self, configuration: Configuration, name: str, base: Configuration | None = None
    ) -> Iterator[Configuration]:
        """`configuration` with the knob reset to the baseline (or `base`), together with knobs that depend on it."""
        target = self.baseline if base is None else base
        changes = tuple(self.changed(configuration, base=target))
        return turned_back(configuration, name, target, changes, self.workload.check)

    def pruned(self, limits: Limits) -> tuple[SearchSpace, tuple[Pruned, ...]]:
        """The space without the values that `limits` rules out, and the list of these values.

        A knob with one value is no dimension of it.
        """
        dimensions, gone = prune(self.dimensions, self.baseline, limits)
        return replace(self, dimensions=tuple(d for d in dimensions if len(members(d.domain)) != 1)), gone

    def check_choice(self, limits: Limits) -> None:
        """Raises BadInput if nothing is left to choose without the values that `limits` rules out."""
        space, gone = self.pruned(limits)
        if any(space._has_choice(d) for d in space.dimensions):
            return
        names = ", ".join(d.knob.name for d in self.dimensions)
        reasons = "".join(f"; {p.knob} = {p.value} is not tried here ({p.reason})" for p in gone)
        raise BadInput(
            f"a search needs a knob with two values that can be tried; got one for each of {names}{reasons}: "
            "add values to [knobs]"
        )

    def _has_choice(self, dimension: Dimension) -> bool:
        """Whether it has another value than the baseline's that is valid, alone or with others changed."""
        name, own = dimension.knob.name, self.baseline[dimension.knob.name]
        others = [value for value in members(dimension.domain) if value != own]
        return isinstance(dimension.domain, FloatRange) or any(
            next(self.turn(self.baseline, name, value, self.values), None) for value in others
        )

    def completed(self, configuration: Configuration) -> Configuration:
        """`configuration` with the baseline's value for every knob added since it was stored."""
        return self.baseline.with_values(configuration)

    @property
    def values(self) -> Values:
        """By knob: the values to try, as far as they can be listed."""
        return {d.knob.name: members(d.domain) for d in self.dimensions}

    def with_corpus(self, corpus: str) -> SearchSpace:
        """The same space on another text."""
        return replace(self, workload=self.workload.with_corpus(corpus))

    def identity(self) -> dict[str, str]:
        """By key of the space file, all that measurements depend on: not plan, prices or budget."""
        identity = {f"workload.{key}": value for key, value in self.workload.identity().items()}
        identity |= {f"baseline.{name}": json.dumps(value) for name, value in self.baseline.items()}
        identity |= {
            f"knobs.{d.knob.name}": json.dumps([type(d.domain).__name__, dataclasses.asdict(d.domain)])
            for d in self.dimensions
        }
        return identity


def read_workload(document: SpaceDocument) -> Workload:
    """The workload of a space file. This is the only place that chooses one.

    Raises:
        BadInput: the file does not describe it correctly.
    """
    return GPTWorkload.read(document)


def load_space(path: Path, read: Read = read_workload) -> SearchSpace:
    """The space in the TOML file at `path`.

    Raises:
        BadInput: the file is missing or cannot be searched.
    """
    return space_of(read_document(path), read)


def space_of(document: SpaceDocument, read: Read = read_workload) -> SearchSpace:
    """The search space that a space file describes; `read` makes its workload.

    Raises:
        BadInput: it cannot be searched.
    """
    workload = read(document)
    with document.table("baseline").locating(InvalidConfiguration):
        workload.check(workload.baseline)
    return SearchSpace(
        name=document.name,
        workload=workload,
        plan=document.plan(),
        dimensions=with_listed_ranges(_dimensions(document, workload), workload),
        budget_seconds=document.budget_seconds(),
        share_of_plan=document.share_of_plan(),
    )


def _dimensions(document: SpaceDocument, workload: Workload) -> tuple[Dimension, ...]:
    table = document.table("knobs")
    table.check_keys(workload.knobs)
    if not table:
        raise table.error("", f"a search needs at least one knob; got none: choose from {', '.join(workload.knobs)}")
    dimensions = tuple(
        Dimension(knob=knob, domain=_domain(table, knob)) for name, knob in workload.knobs.items() if name in table
    )
    for dimension in dimensions:
        name = dimension.knob.name
        value = workload.baseline[name]
        if not contains(dimension.domain, value):
            raise table.error(
                name,
                f"the domain of {name} must contain the baseline's value; got {table[name]!r} without {value!r}: "
                f"add it, or change [baseline] {name}",
            )
    return dimensions


def _domain(table: Table, knob: Knob) -> Domain:
    value = table[knob.name]
    if isinstance(value, list):
        return _choice(table, knob, value)
    if isinstance(value, dict) and knob.kind in (int, float) and {"low", "high"} <= set(value):
        return _range(table, knob, value)
    raise table.error(
        knob.name,
        f"a domain is a list of values or, for a number, {{ low = .., high = .. }}; got {value!r}: "
        "list the values to try",
    )


def _choice(table: Table, knob: Knob, listed: list[Any]) -> Choice:
    values = tuple(value_of(table, knob, value) for value in listed)
    if not values:
        raise table.error(knob.name, "a domain must not be empty; got []: list the values to try")
    if len(values) > MOST_LISTED:
        raise table.error(
            knob.name,
            f"a domain lists at most {MOST_LISTED} values; got {len(values)}: list those worth a trial, or a range",
        )
    if len(set(values)) != len(values):
        raise table.error(knob.name, f"a domain must not repeat a value; got {listed!r}: list each once")
    return Choice(values=values)


def _range(table: Table, knob: Knob, given: Mapping[str, Any]) -> IntRange | FloatRange:
    table.check_keys(("low", "high", "log"), within=knob.name)
    low, high, log = value_of(table, knob, given["low"]), value_of(table, knob, given["high"]), given.get("log", False)
    if not isinstance(log, bool):
        raise table.error(knob.name, f"log must be true or false; got {log!r}: use true for learning rates")
    if low >= high:
        raise table.error(knob.name, f"a range needs low below high; got {low!r} and {high!r}: widen it")
    if log and low <= 0:
        raise table.error(knob.name, f"a log range needs a positive low; got {low!r}: try 1e-5")
    if knob.kind is int:
        return IntRange(low=low, high=high, log=log)
    return FloatRange(low=low, high=high, log=log)
