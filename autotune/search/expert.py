"""The hand-tuned default: what a careful engineer would set on this machine without measuring."""

from __future__ import annotations

import contextlib

from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import contains
from autotune.workload.machine import Machine
from autotune.workload.space import SearchSpace


def expert_within(space: SearchSpace, machine: Machine) -> Configuration:
    """The hand-tuned default as far as `space` can express it: only its knobs change, and only within its domains."""
    wished = space.workload.expert(machine)
    granted = space.baseline
    for dimension in space.dimensions:
        name = dimension.knob.name
        if wished[name] != space.baseline[name] and contains(dimension.domain, wished[name]):
            with contextlib.suppress(InvalidConfiguration):  # not valid with a value that the space does not search
                granted = space.turned(granted, {name: wished[name]})
    return granted
