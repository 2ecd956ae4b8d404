"""Changes one knob of a configuration, and with it what depends on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import KnobValue

Check = Callable[[Configuration], None]
"""Raises InvalidConfiguration if it is invalid: `Workload.check`."""

_MOST_COMPANIONS = 2  # a strategy changes the number of processes, and that the micro-batch size


def turn(
    configuration: Configuration,
    name: str,
    value: KnobValue,
    companions: Mapping[str, Sequence[KnobValue]],
    check: Check,
) -> Iterator[Configuration]:
    """`configuration` with the knob `name` at `value`; if that is invalid alone, with as few other changes as possible.

    `companions` are the values that other knobs may change to. Yields all valid combinations with the fewest
    changes, in the order of `companions`; none if two do not suffice.
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
    """`configuration` with the knob as in `baseline`; other `changes` are reverted only if necessary."""
    return turn(configuration, name, baseline[name], {other: (baseline[other],) for other in changes}, check)
