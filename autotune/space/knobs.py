"""Knobs: what can be tuned, over which values, and what has to be measured for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import TypeVar

T = TypeVar("T")

KnobValue = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A domain of listed values, in the order given."""

    values: tuple[KnobValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntRange:
    """Whole numbers from `low` to `high` inclusive, spread evenly or (`log`) by their logarithm.

    `listed` are those of them that a search tries, in order; all if it is empty.
    """

    low: int
    high: int
    log: bool = False
    listed: tuple[int, ...] = ()

    @property
    def numbers(self) -> Sequence[int]:
        """Those that are tried."""
        return self.listed or range(self.low, self.high + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRange:
    """Numbers from `low` to `high` inclusive, sampled evenly or (`log`) by their logarithm."""

    low: float
    high: float
    log: bool = False


Domain = Choice | IntRange | FloatRange


def contains(domain: Domain, value: KnobValue) -> bool:
    """Whether `value` is in `domain`, with the right type (True is not 1)."""
    match domain:
        case Choice(values=values):
            return any(value == v and type(value) is type(v) for v in values)
        case IntRange(low=low, high=high):
            return type(value) is int and low <= value <= high
        case FloatRange(low=low, high=high):
            return type(value) is float and low <= value <= high


def members(domain: Domain) -> Sequence[KnobValue]:
    """The values of a finite domain; nothing for a continuous range."""
    match domain:
        case Choice(values=values):
            return values
        case IntRange(numbers=numbers):
            return numbers
        case FloatRange():
            return ()


def tidy(domain: Domain, value: T) -> T:
    """Round a value of a continuous range to three significant digits, clipped to the range.

    Nobody types a learning rate with more digits, and equal values are then detected.
    """
    if isinstance(domain, FloatRange) and isinstance(value, float):
        return type(value)(min(max(float(f"{value:.3g}"), domain.low), domain.high))
    return value


class KnobClass(StrEnum):
    """What a knob can change, and so what has to be measured before it is recommended."""

    SYSTEM = "system"  # same mathematics, different speed
    NUMERICS = "numerics"  # different rounding: loss is checked on paired seeds
    LEARNING = "learning"  # different optimisation: loss is measured over complete schedules


class Law(StrEnum):
    """The scaling law that a learning knob follows; it selects what is known before a search (docs/method.md, 9.3)."""

    RATE = "rate"  # its optimum drifts with the token budget
    BATCH = "batch"  # its optimum grows with the token budget
    SCHEDULE = "schedule"  # its effect changes sign between few and many steps
    OTHER = "other"


class Complexity(IntEnum):
    """What adopting a technique costs the user, in steps an engineer would recognise."""

    FLAG = 1  # a value in a config file
    CARE = 2  # a flag that needs watching (compile failures, overflow, memory)
    CHANGE = 3  # a change to code or the checkpoint format


ADOPTION_HOURS: Mapping[Complexity, float] = MappingProxyType(
    {Complexity.FLAG: 0.1, Complexity.CARE: 1.0, Complexity.CHANGE: 4.0}
)
"""Engineer-hours charged for adopting one technique: our estimate, multiplied by the plan's hourly price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One knob of a workload.

    `domain` holds all legal values; a space searches some of them. `title` is what a report calls it, `technique`
    the row of the technique table it belongs to (3.1 to 3.9; empty if it is in none), `help` one line.
    `short_horizon_favours` says which values look better in a short trial than they are in a long run, `law` how a
    learning knob scales with the token budget.
    """

    name: str
    domain: Domain
    knob_class: KnobClass
    complexity: Complexity
    title: str
    technique: str = ""
    help: str = ""
    short_horizon_favours: str = ""
    law: Law = Law.OTHER

    @property
    def kind(self) -> type[KnobValue]:
        """The type of its values."""
        match self.domain:
            case Choice(values=values):
                return type(values[0])
            case IntRange():
                return int
            case FloatRange():
                return float

    def problem_with(self, value: object) -> str:
        """Why `value` is not legal for this knob (rule, value, remedy), or the empty string."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is float and is_number and not isinstance(value, float):
            return f"{self.name} must be float; got {value!r}: write {value}.0"
        if type(value) is not self.kind:
            return f"{self.name} must be {self.kind.__name__}; got {value!r}: write a {self.kind.__name__}"
        match self.domain:
            case Choice(values=values) if value not in values:
                choices = ", ".join(map(str, values))
                return f"{self.name} must be one of {choices}; got {value!r}: choose one of them"
            case IntRange(low=low, high=high) | FloatRange(low=low, high=high) if not low <= value <= high:  # type: ignore[operator]
                return f"{self.name} must be in [{low:g}, {high:g}]; got {value!r}: choose a value in the range"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One searched knob and its domain."""

    knob: Knob
    domain: Domain
