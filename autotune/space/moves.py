"""Turning one knob of a configuration, and with it what depends on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from autotune_model.config import InvalidConfiguration, TrainingConfig
from autotune_model.knobs import KnobValue

_MOST_COMPANIONS = 2  # a strategy brings along the number of processes, and that the size of a micro-batch


def turn(
    config: TrainingConfig, name: str, value: KnobValue, companions: Mapping[str, Sequence[KnobValue]]
) -> Iterator[TrainingConfig]:
    """`config` with the knob `name` at `value`; where that is impossible by itself, with the fewest others turned too.

    `companions` are the values that other knobs may be turned to. All possibilities with that fewest number
    of them, in the order of `companions`; none where two do not suffice.
    """
    others = {other: values for other, values in companions.items() if other != name}
    for count in range(_MOST_COMPANIONS + 1):
        is_possible = False
        for names in itertools.combinations(others, count):
            for values in itertools.product(*(others[other] for other in names)):
                try:
                    turned = config.with_knobs({name: value, **dict(zip(names, values, strict=True))})
                except InvalidConfiguration:
                    continue
                is_possible = True
                yield turned
        if is_possible:
            return


def turned_back(config: TrainingConfig, name: str, baseline: TrainingConfig) -> Iterator[TrainingConfig]:
    """`config` with the knob as in `baseline`; with others that differ turned back too, where they depend on it."""
    changes = config.difference(baseline)
    return turn(config, name, getattr(baseline, name), {other: (getattr(baseline, other),) for other in changes})
