"""The rules for the keys of a space file, each defined once, beside the field it becomes.

pydantic checks them and publishes them as JSON Schema. It is imported lazily: the import takes a tenth of a second,
which `autotune --help` should not pay.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_KINDS: Mapping[type, tuple[str, str]] = {
    bool: ("true or false", "write one of them"),
    int: ("an integer", "write a whole number"),
    float: ("a number", "write one"),
    str: ("a string", "write it in quotes"),
}
_WRONG_KIND = {"bool_type": bool, "int_type": int, "float_type": float, "string_type": str}
_LARGEST = 2**63  # TOML's integers have 64 bits


class Refused(ValueError):
    """A table breaks the rule of one of its keys. The text gives the rule, the value and the remedy."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def rule(description: str, **rules: Any) -> dict[str, Any]:
    """The metadata of a dataclass field that is a key of a space file.

    `rules` are those of `pydantic.Field`. Types are strict: neither true nor "3" is a number.
    """
    return {"description": description, "strict": True, **rules}


def coerced(kind: object, value: Any) -> Any:
    """A number converted to `kind` if nothing is lost: 2 to a float, 2e9 to an int.

    Everything else is returned unchanged, for the rules to check.
    """
    if kind is float and type(value) is int and abs(value) < _LARGEST:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)  # TOML has no shorter way to write a large number
    return value


def wrong_kind(key: str, kind: type, value: object, examples: Iterable[object] = ()) -> str:
    """The error that `value` has the wrong type for `key` (rule, value, remedy)."""
    rule, remedy = _KINDS[kind]
    like = "".join(f" such as {json.dumps(example)}" for example in list(examples)[:1])
    return f"{key} must be {rule}; got {value!r}: {remedy}{like}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not in `known`: the closest match, else all of them."""
    names = tuple(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}"


@lru_cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """The values as the dataclass `kind`, which has a field for each.

    Raises:
        Refused: they break the rule of a field.
    """
    from pydantic import ValidationError

    hints = get_type_hints(kind)
    try:
        adapter = _adapter(cast(type, kind))
        return cast(T, adapter.validate_python({key: coerced(hints[key], value) for key, value in values.items()}))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    missing = [str(e["loc"][0]) for e in errors if e["type"] == "missing"]
    if missing:
        remedy = "add it" if len(missing) == 1 else "add them"
        raise Refused(missing[0], f"{', '.join(missing)} must be given; got none: {remedy}")
    key = str(errors[0]["loc"][0])
    examples = next(f.metadata.get("examples", ()) for f in fields(kind) if f.name == key)  # type: ignore[arg-type]
    raise Refused(key, _problem(key, errors[0]["type"], errors[0]["input"], errors[0].get("ctx", {}), examples))


def _problem(key: str, broken: str, value: object, bounds: Mapping[str, Any], examples: Iterable[object]) -> str:
    """One of pydantic's findings as rule, value and remedy."""
    if broken in _WRONG_KIND:
        return wrong_kind(key, _WRONG_KIND[broken], value, examples)
    rule, remedy = {
        "greater_than_equal": ("at least {ge:g}", "use {ge:g} or more"),
        "greater_than": ("above {gt:g}", "use a larger one"),
        "less_than_equal": ("at most {le:g}", "use {le:g} or less"),
        "finite_number": ("finite", "write an ordinary number"),
        "literal_error": ("{expected}", "choose one of them"),
    }[broken]
    return f"{key} must be {rule.format(**bounds)}; got {value!r}: {remedy.format(**bounds)}"


def schema_of(kind: type) -> dict[str, Any]:
    """The JSON Schema of a table that is read as the dataclass `kind`. Unknown keys are refused."""
    schema = _adapter(kind).json_schema()
    properties = {
        key: {name: value for name, value in rules.items() if name != "title"}
        for key, rules in schema["properties"].items()
    }
    required = {"required": schema["required"]} if "required" in schema else {}
    return {"type": "object", "properties": properties, **required, "additionalProperties": False}
