"""What a search would do, said before anything runs."""

from __future__ import annotations

import json
import math

from autotune_model.knobs import KnobClass

from autotune.search.propose import grid_size, impossible_combinations
from autotune.space.space import Choice, FloatRange, IntRange, SearchSpace
from autotune.study.ledger import SHARES


def preview(space: SearchSpace, *, as_json: bool) -> str:
    """Size of the space, what of it cannot exist and why, and what the search may cost, as text or JSON."""
    system = space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)
    learning = space.of_class(KnobClass.LEARNING)
    impossible = impossible_combinations(space.baseline, space.dimensions)
    hours = space.budget_seconds / 3600
    facts = {
        "space": space.name,
        "dimensions": {d.knob.name: _words(d.domain) for d in space.dimensions},
        "system_and_numerics_combinations": _finite(grid_size(system)),
        "learning_combinations": _finite(grid_size(learning)),
        "filtered": "too many combinations to look at" if impossible is None else dict(impossible),
        "budget_seconds": space.budget_seconds,
        "expected_cost": {"hours": hours, "usd": hours * space.plan.device_hour_usd},
        "budget_seconds_by_stage": {stage.value: share * space.budget_seconds for stage, share in SHARES.items()},
    }
    if as_json:
        return json.dumps(facts, indent=2)
    lines = [f"{space.name}: {len(space.dimensions)} knobs"]
    lines += [f"  {d.knob.name:18} {d.knob.knob_class:9} {_words(d.domain)}" for d in space.dimensions]
    lines.append(
        f"combinations: {_size(grid_size(system))} of system and numerics, {_size(grid_size(learning))} of learning"
    )
    if impossible is None:
        lines.append("filtered: not counted, there are too many combinations to look at")
    elif impossible:
        lines += [f"filtered: {count} combinations, {rule}" for rule, count in impossible.items()]
    else:
        lines.append("filtered: none")
    cost = f" and {hours * space.plan.device_hour_usd:.3g} USD" if space.plan.device_hour_usd else ""
    lines.append(f"expected cost: at most {space.budget_seconds:.0f} s of this machine{cost}, shared out as")
    lines += [f"  {stage.value:18} {share * space.budget_seconds:6.0f} s" for stage, share in SHARES.items()]
    lines.append("a stage that finishes early, or does not pay, leaves its time to the next ones")
    return "\n".join(lines)


def _words(domain: Choice | IntRange | FloatRange) -> str:
    match domain:
        case Choice(values=values):
            return ", ".join(map(str, values))
        case IntRange(low=low, high=high, log=log) | FloatRange(low=low, high=high, log=log):
            return f"{low:g} to {high:g}{' (log)' if log else ''}"


def _finite(size: float) -> int | str:
    return int(size) if math.isfinite(size) else "continuous"


def _size(size: float) -> str:
    return f"{size:.0f}" if math.isfinite(size) else "infinitely many"
