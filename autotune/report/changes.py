"""What one configuration changes over another, in words: as a table, in one line, and as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping

from autotune.analysis.recommendation import Recommendation
from autotune.report.view import Change, Turn
from autotune.report.words import plain, value_text
from autotune.space.configuration import Configuration
from autotune.space.knobs import Knob, KnobValue


def rest_of(r: Recommendation) -> str:
    """What the claimed part is called: what there is if nothing is expected."""
    return "your baseline" if r.claimed == r.baseline else "the claimed part"


def changes_of(r: Recommendation, config: Configuration) -> tuple[Change, ...]:
    """What `config` changes over the baseline, beside the hand-tuned default."""
    return tuple(
        Change(
            knob=name,
            title=_title(r.knobs, name),
            baseline=_value(r.baseline, name),
            value=_value(config, name),
            expert=_value(r.expert_default, name),
        )
        for name in changed(r.baseline, config)
    )


def turns_of(old: Configuration, new: Configuration, knobs: Mapping[str, Knob]) -> tuple[Turn, ...]:
    """What `new` changes over `old`."""
    return tuple(
        Turn(knob=name, title=_title(knobs, name), old=_value(old, name), new=_value(new, name))
        for name in changed(old, new)
    )


def changed(old: Configuration, new: Configuration) -> tuple[str, ...]:
    """The knobs whose values differ, in the order of `old`."""
    different = new.difference(old)
    return tuple(name for name in old if name in different)


def difference(old: Configuration, new: Configuration) -> str:
    """What `new` changes over `old`, in one line: "dtype=bf16_autocast, compile=off"; empty if nothing."""
    return ", ".join(f"{plain(name)}={_value(new, name)}" for name in changed(old, new))


def toml_of(config: Configuration, baseline: Configuration) -> str:
    """The whole configuration as TOML, with the old value beside each changed line."""

    def literal(value: KnobValue) -> str:
        return json.dumps(value) if isinstance(value, str) else value_text(value)

    lines = []
    for name, value in config.items():
        old = baseline[name]
        remark = f"  # was {literal(old)}" if old != value else ""
        lines.append(f"{name} = {literal(value)}{remark}")
    return "\n".join(lines) + "\n"


def _title(knobs: Mapping[str, Knob], name: str) -> str:
    return plain(knobs[name].title if name in knobs else name)


def _value(config: Configuration, knob: str) -> str:
    return value_text(config[knob]) if knob in config else ""
