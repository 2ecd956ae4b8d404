"""Removes values that a machine cannot run, or that make no difference there, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotune.space.configuration import Configuration
from autotune.space.knobs import Choice, Dimension, Domain, IntRange, KnobValue, members

Limits = Mapping[str, Mapping[str, str]]
"""By knob and value (as text): why the value is useless on a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A value of a knob that is not tried, or a run of whole numbers such as `5-8`, and why."""

    knob: str
    value: str
    reason: str


def prune(
    dimensions: Sequence[Dimension], baseline: Configuration, limits: Limits
) -> tuple[tuple[Dimension, ...], tuple[Pruned, ...]]:
    """`dimensions` without the values in `limits`, and the removed values; a knob with nothing left to try is dropped.

    The baseline's value always stays: if it does not run, the search reports that. A range of whole numbers is only
    trimmed at its ends, because the rest must be a range.
    """
    remaining: list[Dimension] = []
    pruned: list[Pruned] = []
    for dimension in dimensions:
        name = dimension.knob.name
        kept, gone = _split(dimension, limits.get(name, {}), baseline[name])
        pruned += gone
        if kept is not None:
            remaining.append(kept)
    return tuple(remaining), tuple(pruned)


def _split(
    dimension: Dimension, reasons: Mapping[str, str], baseline: KnobValue
) -> tuple[Dimension | None, list[Pruned]]:
    if not reasons:
        return dimension, []
    values = members(dimension.domain)
    kept = [v for v in values if v == baseline or str(v) not in reasons]
    domain: Domain
    if isinstance(dimension.domain, IntRange):
        low, high = int(kept[0]), int(kept[-1])
        within = tuple(v for v in dimension.domain.listed if low <= v <= high)
        domain = replace(dimension.domain, low=low, high=high, listed=within)
        gone = _run(dimension.domain.low, low - 1) | _run(high + 1, dimension.domain.high)
    else:
        domain = Choice(values=tuple(kept))
        gone = {str(v): str(v) for v in values if v not in kept}
    if not gone:
        return dimension, []
    pruned = [Pruned(knob=dimension.knob.name, value=text, reason=reasons[first]) for text, first in gone.items()]
    return (replace(dimension, domain=domain) if len(kept) > 1 else None), pruned


def _run(low: int, high: int) -> dict[str, str]:
    """The text for the range `low` to `high`, mapped to that of its first number; empty if `low` > `high`."""
    return {str(low) if low == high else f"{low}-{high}": str(low)} if low <= high else {}
