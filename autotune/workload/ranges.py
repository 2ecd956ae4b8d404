"""Which numbers of a range of whole numbers a search tries: those that are possible."""

from __future__ import annotations

import bisect
import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace

from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import Dimension, IntRange, KnobValue, members
from autotune.workload.base import Values, Workload

MOST_LISTED = 64
"""The most numbers of a range that are tried: those of a longer one are spread over it."""
_MOST_CHECKED = 2_048


def with_listed_ranges(dimensions: Sequence[Dimension], workload: Workload) -> tuple[Dimension, ...]:
    """`dimensions` with the numbers of every range that are possible beside the baseline.

    A number is possible if it is valid there, alone or with one other searched knob changed. The baseline's own is.
    """
    values = {d.knob.name: _values(d, workload.baseline[d.knob.name]) for d in dimensions}
    return tuple(_listed(d, d.domain, values, workload) if isinstance(d.domain, IntRange) else d for d in dimensions)


def _values(dimension: Dimension, own: KnobValue) -> Sequence[KnobValue]:
    domain = dimension.domain
    return _spread(domain.numbers, domain, own) if isinstance(domain, IntRange) else members(domain)


def _listed(dimension: Dimension, domain: IntRange, values: Values, workload: Workload) -> Dimension:
    name, own = dimension.knob.name, workload.baseline[dimension.knob.name]
    others = {other: of_other for other, of_other in values.items() if other != name}
    numbers = _spread(workload.whole_numbers(name, domain.low, domain.high, others), domain, own, most=_MOST_CHECKED)
    possible = [n for n in numbers if _is_possible(name, n, others, workload)]
    return replace(dimension, domain=replace(domain, listed=_spread(possible, domain, own)))


def _is_possible(name: str, number: int, others: Values, workload: Workload) -> bool:
    alone = workload.baseline.with_values({name: number})
    beside = (alone.with_values({other: value}) for other, of_other in others.items() for value in of_other)
    return _is_valid(alone, workload) or any(_is_valid(config, workload) for config in beside)


def _is_valid(configuration: Configuration, workload: Workload) -> bool:
    with contextlib.suppress(InvalidConfiguration):
        workload.check(configuration)
        return True
    return False


def _spread(numbers: Sequence[int], domain: IntRange, own: KnobValue, *, most: int = MOST_LISTED) -> tuple[int, ...]:
    """At most `most` of the ascending `numbers`, the ends and the baseline's `own` among them."""
    if len(numbers) <= most:
        return tuple(numbers)
    low, high = numbers[0], numbers[-1]
    shares = [n / (most - 2) for n in range(most - 1)]
    if domain.log:
        wished = [low * math.pow(high / low, share) for share in shares]
    else:
        wished = [low + (high - low) * share for share in shares]
    chosen = {numbers[min(bisect.bisect_left(numbers, wish - 1e-9), len(numbers) - 1)] for wish in wished}
    return tuple(sorted({*chosen, int(own)}))
