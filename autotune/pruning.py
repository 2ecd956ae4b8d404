"""Values that a machine cannot run, or that make no difference there, are taken out before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autotune.space import Choice, Dimension, SearchSpace
from model.knobs import KnobValue

Limits = Mapping[str, Mapping[str, str]]
"""By knob and value (as text): why the value is of no use on a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A value of a knob that is not tried, and why."""

    knob: str
    value: str
    reason: str


def limits_of(
    space: SearchSpace, limits: Limits, *, vocab_size: int, environment: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """What the machine was found to lack, and what follows for the values in `space` from its cores and vocabulary."""
    found = {knob: dict(values) for knob, values in limits.items()}
    found["world_size"] = _too_many_processes(space, environment)
    found["parallelism"] = found.get("parallelism", {}) | _without_processes(space, found["world_size"])
    cores = int(environment.get("logical_cores", "0"))
    rows = {_padded(vocab_size, space.baseline.vocab_multiple)}
    for dimension in space.dimensions:
        for value in dimension.domain.values if isinstance(dimension.domain, Choice) else ():
            name, reasons = dimension.knob.name, found.setdefault(dimension.knob.name, {})
            if name == "threads" and cores and int(value) > cores:
                reasons[str(value)] = f"there are {cores} logical cores"
            if name == "vocab_multiple" and value != space.baseline.vocab_multiple:
                padded = _padded(vocab_size, int(value))
                if padded in rows:
                    reasons[str(value)] = f"the vocabulary has {padded} rows with another value already"
                rows.add(padded)
    return {knob: reasons for knob, reasons in found.items() if reasons}


def _too_many_processes(space: SearchSpace, environment: Mapping[str, str]) -> dict[str, str]:
    """Why sizes of the world do not serve: on a CPU its cores are shared out, elsewhere each has a device."""
    on_cpu = environment.get("device", "cpu") == "cpu"
    most = int(environment.get("logical_cores" if on_cpu else "devices", "0"))
    reason = f"there are {most} {'logical cores' if on_cpu else 'devices'}"
    sizes = [v for d in space.dimensions if d.knob.name == "world_size" for v in _listed(d)]
    return {str(v): reason for v in sizes if most and int(v) > most}


def _without_processes(space: SearchSpace, sizes: Mapping[str, str]) -> dict[str, str]:
    """Why strategies do not serve where no number of processes is left that they could be tried with."""
    values = [v for d in space.dimensions if d.knob.name == "parallelism" for v in _listed(d)]
    listed = [v for d in space.dimensions if d.knob.name == "world_size" for v in _listed(d)]
    if space.baseline.world_size > 1 or any(int(v) > 1 and str(v) not in sizes for v in listed):
        return {}
    reason = next(iter(sizes.values()), "") or "world_size has no value above 1 to try"
    return {str(v): reason for v in values if v != space.baseline.parallelism}


def _listed(dimension: Dimension) -> tuple[KnobValue, ...]:
    return dimension.domain.values if isinstance(dimension.domain, Choice) else ()


def _padded(vocab_size: int, multiple: int) -> int:
    return math.ceil(vocab_size / multiple) * multiple


def prune(space: SearchSpace, limits: Limits) -> tuple[SearchSpace, tuple[Pruned, ...]]:
    """`space` without the values that `limits` names, and these; a knob with nothing left to try is no dimension.

    The baseline's own value always stays: where it does not run, the search says so by itself.
    """
    dimensions, pruned = [], []
    for dimension in space.dimensions:
        name = dimension.knob.name
        kept, gone = _split(dimension, limits.get(name, {}), getattr(space.baseline, name))
        pruned += gone
        if kept is not None:
            dimensions.append(kept)
    return replace(space, dimensions=tuple(dimensions)), tuple(pruned)


def _split(
    dimension: Dimension, reasons: Mapping[str, str], baseline: KnobValue
) -> tuple[Dimension | None, list[Pruned]]:
    domain = dimension.domain
    if not isinstance(domain, Choice) or not reasons:
        return dimension, []
    kept = tuple(v for v in domain.values if v == baseline or str(v) not in reasons)
    gone = [
        Pruned(knob=dimension.knob.name, value=str(v), reason=reasons[str(v)]) for v in domain.values if v not in kept
    ]
    if not gone:
        return dimension, []
    return (replace(dimension, domain=Choice(values=kept)) if len(kept) > 1 else None), gone
