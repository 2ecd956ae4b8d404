"""A number with its interval, or the reason why there is none; and how to reckon with either.

`map` and its kin work on both, so that a reason travels on untouched to the place where it is told:

    saving = speedup.map(math.expm1).scaled(plan_hours)

`combine`, `all_known`, `only_known` and `or_else` do the same for anything that may be Unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and its two-sided interval at `level` (0.9 is 90 %)."""

    estimate: float
    low: float
    high: float
    level: float

    @classmethod
    def exactly(cls, value: float, *, level: float = 1.0) -> Self:
        """A number that is known for certain."""
        return cls(estimate=value, low=value, high=value, level=level)

    @classmethod
    def around(cls, estimate: float, half_width: float, *, level: float) -> Self:
        """An interval that reaches as far to either side of its estimate."""
        return cls(estimate=estimate, low=estimate - half_width, high=estimate + half_width, level=level)

    @property
    def half_width(self) -> float:
        """Half the distance from end to end, in the unit of the estimate."""
        return (self.high - self.low) / 2

    def map(self, increasing: Callable[[float], float]) -> Interval:
        """An increasing function of it, number by number: ends stay ends, and the level is kept."""
        return Interval(
            estimate=increasing(self.estimate), low=increasing(self.low), high=increasing(self.high), level=self.level
        )

    def map_decreasing(self, decreasing: Callable[[float], float]) -> Interval:
        """A decreasing function of it: the ends change places."""
        return Interval(
            estimate=decreasing(self.estimate), low=decreasing(self.high), high=decreasing(self.low), level=self.level
        )

    def scaled(self, factor: float) -> Interval:
        """It times a `factor` that is not negative, as for a change of unit."""
        return self.map(lambda value: value * factor)

    def plus(self, other: Interval) -> Interval:
        """The sum with an independent quantity of the same unit and level: half-widths add in quadrature."""
        return Interval.around(
            self.estimate + other.estimate, math.hypot(self.half_width, other.half_width), level=self.level
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A quantity that cannot be stated, and why. Never a silent zero."""

    reason: str

    def map(self, increasing: Callable[[float], float]) -> Unknown:  # noqa: ARG002 - there is nothing to map
        """Itself: the reason stays the reason."""
        return self

    def scaled(self, factor: float) -> Unknown:  # noqa: ARG002 - there is nothing to scale
        """Itself."""
        return self


Quantity = Interval | Unknown
"""A number with its interval, or the reason why there is none."""


@overload
def combine(function: Callable[[A], T | Unknown], a: A | Unknown, /) -> T | Unknown: ...
@overload
def combine(function: Callable[[A, B], T | Unknown], a: A | Unknown, b: B | Unknown, /) -> T | Unknown: ...
@overload
def combine(
    function: Callable[[A, B, C], T | Unknown], a: A | Unknown, b: B | Unknown, c: C | Unknown, /
) -> T | Unknown: ...
def combine(function: Callable[..., Any], /, *values: Any) -> Any:
    """What `function` makes of values that are all known; else the first of them that is not."""
    unknown = first_unknown(*values)
    return function(*values) if unknown is None else unknown


def first_unknown(*values: object) -> Unknown | None:
    """The first of `values` that is not known; None where all are."""
    return next((value for value in values if isinstance(value, Unknown)), None)


def all_known(values: Iterable[T | Unknown]) -> list[T] | Unknown:
    """All values where all are known; else the first that is not."""
    known: list[T] = []
    for value in values:
        if isinstance(value, Unknown):
            return value
        known.append(value)
    return known


def only_known(values: Iterable[T | Unknown]) -> list[T]:
    """Those of `values` that are known, in their order."""
    return [value for value in values if not isinstance(value, Unknown)]


def or_else(value: T | Unknown, default: T) -> T:
    """`value`, or `default` where it is not known."""
    return default if isinstance(value, Unknown) else value
