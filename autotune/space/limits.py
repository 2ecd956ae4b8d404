"""Values that a machine cannot run, or that make no difference there, are taken out before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotune_model.knobs import KnobValue

from autotune.space.space import Choice, Dimension, Domain, IntRange, SearchSpace

Limits = Mapping[str, Mapping[str, str]]
"""By knob and value (as text): why the value is of no use on a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A value of a knob that is not tried, or a run of whole numbers such as `5-8`, and why."""

    knob: str
    value: str
    reason: str


def attempts_for(space: SearchSpace) -> tuple[str, ...]:
    """What only a compiler can tell about `space`, of `autotune_model.attempts.NAMES`: it costs seconds.

    A search that compiles nothing is not made to wait. One that does gains more than it waits for, as what torch
    keeps of the trial shortens the first sessions.
    """
    compiles = any(v not in ("off", space.baseline.compile) for v in _values(space, "compile"))
    attends = "flex" in _values(space, "attention") and space.baseline.attention != "flex"
    return ("compile",) * compiles + ("flex",) * attends


def limits_of(
    space: SearchSpace, limits: Limits, *, vocab_size: int, environment: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """What the machine was found to lack, and what follows for the values in `space` from its cores and vocabulary."""
    found = {knob: dict(values) for knob, values in limits.items()}
    found["world_size"] = _too_many_processes(space, environment)
    found["parallelism"] = found.get("parallelism", {}) | _without_processes(space, found["world_size"])
    found["threads"] = found.get("threads", {}) | _beyond_the_cores(_values(space, "threads"), environment)
    found["vocab_multiple"] = _same_padding(space, vocab_size)
    return {knob: reasons for knob, reasons in found.items() if reasons}


def _beyond_the_cores(values: Sequence[KnobValue], environment: Mapping[str, str]) -> dict[str, str]:
    cores = int(environment.get("logical_cores", "0"))
    return {str(v): f"there are {cores} logical cores to run on" for v in values if cores and int(v) > cores}


def _same_padding(space: SearchSpace, vocab_size: int) -> dict[str, str]:
    """Of multiples that pad to the same number of rows, the first one is enough."""
    reasons = {}
    own = space.baseline.vocab_multiple
    rows = {_padded(vocab_size, own)}
    for value in _values(space, "vocab_multiple"):
        padded = _padded(vocab_size, int(value))
        if padded in rows and value != own:
            reasons[str(value)] = f"the vocabulary has {padded} rows with another value already"
        rows.add(padded)
    return reasons


def _too_many_processes(space: SearchSpace, environment: Mapping[str, str]) -> dict[str, str]:
    """Why sizes of the world do not serve: on a CPU its cores are shared out, elsewhere each has a device."""
    sizes = _values(space, "world_size")
    if environment.get("device", "cpu") == "cpu":
        return _beyond_the_cores(sizes, environment)
    devices = int(environment.get("devices", "0"))
    return {str(v): f"there are {devices} devices" for v in sizes if devices and int(v) > devices}


def _without_processes(space: SearchSpace, sizes: Mapping[str, str]) -> dict[str, str]:
    """Why strategies do not serve where no number of processes is left that they could be tried with."""
    if space.baseline.world_size > 1 or any(int(v) > 1 and str(v) not in sizes for v in _values(space, "world_size")):
        return {}
    reason = next(iter(sizes.values()), "") or "world_size has no value above 1 to try"
    return {str(v): reason for v in _values(space, "parallelism") if v != space.baseline.parallelism}


def _values(space: SearchSpace, name: str) -> Sequence[KnobValue]:
    """What the knob may be turned to in `space`; nothing where that cannot be counted."""
    return next((_all_of(d.domain) for d in space.dimensions if d.knob.name == name), ())


def _all_of(domain: Domain) -> Sequence[KnobValue]:
    match domain:
        case Choice(values=values):
            return values
        case IntRange(low=low, high=high):
            return range(low, high + 1)
        case _:
            return ()


def _padded(vocab_size: int, multiple: int) -> int:
    return math.ceil(vocab_size / multiple) * multiple


def prune(space: SearchSpace, limits: Limits) -> tuple[SearchSpace, tuple[Pruned, ...]]:
    """`space` without the values that `limits` names, and these; a knob with nothing left to try is no dimension.

    The baseline's own value always stays: where it does not run, the search says so by itself. A range of whole
    numbers loses its ends alone, for what is left must be a range.
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
    if not reasons:
        return dimension, []
    values = _all_of(dimension.domain)
    kept = [v for v in values if v == baseline or str(v) not in reasons]
    domain: Domain
    if isinstance(dimension.domain, IntRange):
        low, high = int(kept[0]), int(kept[-1])
        domain = replace(dimension.domain, low=low, high=high)
        gone = _run(dimension.domain.low, low - 1) | _run(high + 1, dimension.domain.high)
    else:
        domain = Choice(values=tuple(kept))
        gone = {str(v): str(v) for v in values if v not in kept}
    if not gone:
        return dimension, []
    pruned = [Pruned(knob=dimension.knob.name, value=text, reason=reasons[first]) for text, first in gone.items()]
    return (replace(dimension, domain=domain) if len(kept) > 1 else None), pruned


def _run(low: int, high: int) -> dict[str, str]:
    """The text for the numbers from `low` to `high`, where there are any, and that of the first of them."""
    return {str(low) if low == high else f"{low}-{high}": str(low)} if low <= high else {}
