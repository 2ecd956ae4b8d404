"""First designs of a search: one knob at a time, values that somebody would type."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from autotune.space.configuration import Configuration
from autotune.space.knobs import Choice, Dimension, FloatRange, IntRange, KnobValue, tidy
from autotune.workload.space import SearchSpace


def one_at_a_time(
    space: SearchSpace, centre: Configuration, dimensions: Sequence[Dimension]
) -> Iterator[Configuration]:
    """`centre` with one knob changed: every knob's nearest other value first, then every knob's next.

    So even a small budget tries every knob once before any knob twice. A value that is not valid alone is
    changed together with the knobs it depends on.
    """
    others = {d.knob.name: _alternatives(d, centre[d.knob.name]) for d in dimensions}
    for row in itertools.zip_longest(*([(name, value) for value in values] for name, values in others.items())):
        for change in row:
            if change is not None:
                name, value = change
                yield from itertools.islice(space.turn(centre, name, value, others), 1)


def _alternatives(dimension: Dimension, centre: KnobValue) -> list[KnobValue]:
    """Other values of a domain, nearest to `centre` first; for a range, the midpoints towards its ends."""
    match dimension.domain:
        case Choice(values=values):
            others = [v for v in values if v != centre]
            if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
                others.sort(key=lambda v: abs(float(v) - float(centre)))
            return others
        case IntRange(low=low, high=high, log=log, numbers=numbers):
            wished = (_middle(float(centre), float(end), log=log) for end in (high, low))
            middles = {min(numbers, key=lambda n: abs(n - wish)) for wish in wished} - {centre}
            return sorted(middles or {numbers[0], numbers[-1]} - {centre}, reverse=True)
        case FloatRange(low=flow, high=fhigh, log=log):
            tidied = (tidy(dimension.domain, _middle(float(centre), end, log=log)) for end in (fhigh, flow))
            fmiddles = {m: None for m in tidied if m != centre}
            return list(fmiddles) or [end for end in (fhigh, flow) if end != centre]


def _middle(a: float, b: float, *, log: bool) -> float:
    return math.sqrt(a * b) if log and a > 0 and b > 0 else (a + b) / 2
