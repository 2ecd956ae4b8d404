"""A whole space file as JSON Schema, for editors: they complete the keys, show what each means, and mark what is wrong.

It covers each table and key separately. Rules across keys are checked only when the space is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.space.document import SearchTable
from autotune.space.keys import schema_of
from autotune.space.knobs import Choice, FloatRange, IntRange, Knob, KnobValue
from autotune.space.plan import Plan

_DIALECT = "http://json-schema.org/draft-07/schema#"  # the newest that TOML editors support


def space_schema(*, workload: type, knobs: Mapping[str, Knob], defaults: Mapping[str, KnobValue]) -> dict[str, Any]:
    """The JSON Schema of a space whose [workload] is read as the dataclass `workload`.

    `defaults` are the values of knobs that [baseline] does not name.
    """
    one_goal = {"oneOf": [{"required": ["tokens"]}, {"required": ["target_loss"]}]}
    baseline = {n: _described(knob) | _value(knob) | {"default": defaults[n]} for n, knob in knobs.items()}
    searched = {n: _described(knob) | _domain(knob) for n, knob in knobs.items()}
    tables = {
        "workload": schema_of(workload) | {"description": "What is trained."},
        "plan": schema_of(Plan) | one_goal | {"description": "The run that the recommended configuration is for."},
        "search": schema_of(SearchTable) | {"description": "How long to search."},
        "baseline": _object(baseline)
        | {"description": "What you would run today. A knob that is not named has its default value."},
        "knobs": _object(searched)
        | {
            "description": "What to search: a list of values for each knob, or a range of a number. "
            "The value of the baseline must be in it.",
            "minProperties": 1,
        },
    }
    return {
        "$schema": _DIALECT,
        "title": "A search space of autotune",
        **_object(tables),
        "required": [name for name in tables if name != "search"],
    }


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _described(knob: Knob) -> dict[str, Any]:
    return {"title": knob.title, "description": knob.help}


def _value(knob: Knob) -> dict[str, Any]:
    """One legal value of the knob."""
    match knob.domain:
        case Choice(values=(bool(), *_)):
            return {"type": "boolean"}
        case Choice(values=values):
            return {"enum": list(values)}
        case IntRange(low=low, high=high):
            return {"type": "integer", "minimum": low, "maximum": high}
        case FloatRange(low=low, high=high):
            return {"type": "number", "minimum": low, "maximum": high}


def _domain(knob: Knob) -> dict[str, Any]:
    """What a space may search: a list of values, or a range if the knob is a number."""
    value = _value(knob)
    listed = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    if knob.kind not in (int, float):
        return listed
    bounds = _object({"low": value, "high": value, "log": {"type": "boolean", "default": False}})
    return {"anyOf": [listed, bounds | {"required": ["low", "high"]}]}
