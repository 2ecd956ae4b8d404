"""What a search would do, shown before anything runs."""

from __future__ import annotations

import dataclasses
import json
import math

from autotune.report import words
from autotune.report.text_words import text_lines
from autotune.search.propose import grid_size, impossible_combinations
from autotune.space.knobs import Choice, FloatRange, IntRange, KnobClass
from autotune.study.ledger import SHARES
from autotune.workload.machine import Machine, epochs_of
from autotune.workload.space import SearchSpace

_MOST_SHOWN = 12  # numbers of a range


def preview(space: SearchSpace, machine: Machine, *, as_json: bool) -> str:
    """The text, the size of the space, what is skipped and why, and what the search may cost, as text or JSON.

    `space` is complete; what `machine` cannot run is removed here.
    """
    limits = space.workload.limits(machine, space.values)
    own = space.workload.limits(machine, {name: (value,) for name, value in space.baseline.items()})
    values = {name: str(space.baseline[name]) for name in own}
    at_baseline = {name: own[name][value] for name, value in values.items() if value in own[name]}
    space, pruned = space.pruned(limits)
    corpus, horizon = machine.corpus, space.workload.horizon_tokens
    system = space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)
    learning = space.of_class(KnobClass.LEARNING)
    impossible = impossible_combinations(space)
    hours = space.budget_seconds / 3600
    facts = {
        "space": space.name,
        "text": dataclasses.asdict(corpus),
        "epochs_of_a_trial": round(epochs_of(corpus, horizon), 4),
        "pruned": [dataclasses.asdict(p) for p in pruned],
        "baseline_in_doubt": at_baseline,
        "dimensions": {d.knob.name: _values(d.domain) for d in space.dimensions},
        "system_and_numerics_combinations": _finite(grid_size(system)),
        "learning_combinations": _finite(grid_size(learning)),
        "filtered": "too many combinations to look at" if impossible is None else dict(impossible),
        "budget_seconds": space.budget_seconds,
        "expected_cost": {"hours": hours, "usd": hours * space.plan.device_hour_usd},
        "budget_seconds_by_stage": {stage.value: share * space.budget_seconds for stage, share in SHARES.items()},
    }
    if as_json:
        return json.dumps(facts, indent=2)
    lines = [
        f"{space.name}: {len(space.dimensions)} knobs",
        *text_lines(corpus, horizon_tokens=horizon),
    ]
    lines += [
        f"  {d.knob.name:18} {words.class_word(d.knob.knob_class).partition(':')[0]:9} {_values(d.domain)}"
        for d in space.dimensions
    ]
    lines += [f"not tried here: {p.knob} = {p.value}, {p.reason}" for p in pruned]
    lines += [f"the baseline may not run here: {n} = {space.baseline[n]}, {why}" for n, why in at_baseline.items()]
    lines.append(
        f"combinations: {_size(grid_size(system))} of system and precision knobs, "
        f"{_size(grid_size(learning))} of learning knobs"
    )
    if impossible is None:
        lines.append("impossible: not counted, there are too many combinations")
    elif impossible:
        is_sampled = any(isinstance(d.domain, FloatRange) for d in space.dimensions)
        of = " of listed values and ends of ranges" if is_sampled else ""
        lines += [f"impossible: {count} combinations{of}, {rule}" for rule, count in impossible.items()]
    else:
        lines.append("impossible: none")
    cost = f" and {hours * space.plan.device_hour_usd:.3g} USD" if space.plan.device_hour_usd else ""
    lines.append(f"expected cost: at most {space.budget_seconds:.0f} s of this machine{cost}, shared out as")
    lines += [
        f"  {words.stage_word(stage):22} {share * space.budget_seconds:6.0f} s" for stage, share in SHARES.items()
    ]
    lines.append("a stage that finishes early leaves its time to the next ones")
    return "\n".join(lines)


def _class(knob_class: KnobClass) -> str:
    return words.class_word(knob_class).partition(":")[0]


def _values(domain: Choice | IntRange | FloatRange) -> str:
    match domain:
        case Choice(values=values):
            return ", ".join(map(words.value_text, values))
        case IntRange(low=low, high=high, numbers=numbers):
            if len(numbers) == high - low + 1:
                return f"{low} to {high}"
            tried = ", ".join(map(str, numbers)) if len(numbers) <= _MOST_SHOWN else f"{len(numbers)} possible values"
            return f"{low} to {high}, tried: {tried}"
        case FloatRange(low=low, high=high, log=log):
            return f"{low:g} to {high:g}{' (log)' if log else ''}"


def _finite(size: float) -> int | str:
    return int(size) if math.isfinite(size) else "continuous"


def _size(size: float) -> str:
    return f"{size:.0f}" if math.isfinite(size) else "infinitely many"
