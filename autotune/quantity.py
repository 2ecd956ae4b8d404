"""A number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and its two-sided interval at `level` (0.9 is 90 %)."""

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A quantity that cannot be stated, and why. Never a silent zero."""

    reason: str


Quantity = Interval | Unknown
"""A number with its interval, or the reason why there is none."""
