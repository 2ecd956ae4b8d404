"""A number with its interval, or the reason why there is none, and arithmetic on either.

`map` and `scaled` work on both, so a reason passes through unchanged until it is shown:

    saving = speedup.map(math.expm1).scaled(plan_hours)

`combine`, `all_known`, `only_known` and `or_else` do the same for any value that may be Unknown.
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
        """A number known exactly."""
        return cls(estimate=value, low=value, high=value, level=level)

    @classmethod
    def around(cls, estimate: float, half_width: float, *, level: float) -> Self:
        """An interval symmetric about its estimate."""
        return cls(estimate=estimate, low=estimate - half_width, high=estimate + half_width, level=level)

    @property
    def half_width(self) -> float:
        """Half the width of the interval, in the unit of the estimate."""
        return (self.high - self.low) / 2

    def map(self, increasing: Callable[[float], float]) -> Interval:
        """Apply an increasing function to estimate, low and high; the level is kept."""
        return Interval(
            estimate=increasing(self.estimate), low=increasing(self.low), high=increasing(self.high), level=self.level
        )

    def map_decreasing(self, decreasing: Callable[[float], float]) -> Interval:
        """Apply a decreasing function: low and high swap."""
        return Interval(
            estimate=decreasing(self.estimate), low=decreasing(self.high), high=decreasing(self.low), level=self.level
        )

    def scaled(self, factor: float) -> Interval:
        """Multiply by a non-negative `factor`, for example to change the unit."""
        return self.map(lambda value: value * factor)

    def plus(self, other: Interval) -> Interval:
        """The sum with an independent quantity of the same unit and level: half-widths add in quadrature."""
        return Interval.around(
            self.estimate + other.estimate, math.hypot(self.half_width, other.half_width), level=self.level
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A quantity that is not known, and why. Never a silent zero."""

    reason: str

    def map(self, increasing: Callable[[float], float]) -> Unknown:  # noqa: ARG002 - there is nothing to map
        """Itself: the reason is kept."""
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
    """`function(*values)` if all values are known; else the first Unknown."""
    unknown = first_unknown(*values)
    return function(*values) if unknown is None else unknown


def first_unknown(*values: object) -> Unknown | None:
    """The first Unknown of `values`; None if all are known."""
    return next((value for value in values if isinstance(value, Unknown)), None)


def all_known(values: Iterable[T | Unknown]) -> list[T] | Unknown:
    """All values if all are known; else the first Unknown."""
    known: list[T] = []
    for value in values:
        if isinstance(value, Unknown):
            return value
        known.append(value)
    return known


def only_known(values: Iterable[T | Unknown]) -> list[T]:
    """The known ones of `values`, in order."""
    return [value for value in values if not isinstance(value, Unknown)]


def or_else(value: T | Unknown, default: T) -> T:
    """`value`, or `default` if it is Unknown."""
    return default if isinstance(value, Unknown) else value
