"""Turning one knob of a configuration, and with it what depends on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import KnobValue

Check = Callable[[Configuration], None]
"""Raises InvalidConfiguration for what cannot be: `Workload.check`."""

_MOST_COMPANIONS = 2  # a strategy brings along the number of processes, and that the size of a micro-batch


def turn(
    configuration: Configuration,
    name: str,
    value: KnobValue,
    companions: Mapping[str, Sequence[KnobValue]],
    check: Check,
) -> Iterator[Configuration]:
    """`configuration` with the knob `name` at `value`; where that is impossible by itself, with the fewest others too.

    `companions` are the values that other knobs may be turned to. All possibilities with that fewest number
    of them, in the order of `companions`; none where two do not suffice.
    """
    others = {other: values for other, values in companions.items() if other != name}
    for count in range(_MOST_COMPANIONS + 1):
        is_possible = False
        for names in itertools.combinations(others, count):
            for values in itertools.product(*(others[other] for other in names)):
                turned = configuration.with_values({name: value, **dict(zip(names, values, strict=True))})
                try:
                    check(turned)
                except InvalidConfiguration:
                    continue
                is_possible = True
                yield turned
        if is_possible:
            return


def turned_back(
    configuration: Configuration, name: str, baseline: Configuration, changes: Sequence[str], check: Check
) -> Iterator[Configuration]:
    """`configuration` with the knob as in `baseline`; with others of its `changes` turned back where it must be."""
    return turn(configuration, name, baseline[name], {other: (baseline[other],) for other in changes}, check)
