"""The written form of records and messages, read and written by pydantic.

A dataclass is an object with all its fields, an enum is its value, a tuple a list. Two forms are our own. A member
of a closed union of dataclasses is `{"its name": {its fields}}`, named by `autotune_model.protocol.tag`,
because two members may have the same fields. A `Configuration` is an object with its values, in its order.

Reading is strict. An unknown field, a missing field, a wrong type or a number that is not finite raises `Malformed`,
which names the place. A field with a default may be missing: it was added after the data was written, and its default
is what held before. Writing runs the same checks, so whatever is written can be read. NaN and infinity are refused
for two reasons: JSON has neither, and a loss that is not finite has its own outcome (`diverged`).
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, GetCoreSchemaHandler, JsonValue, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from pydantic_core import from_json as read_json

from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue
from autotune_model.protocol import (
    Command,
    Event,
    Fork,
    Notice,
    encode,
    tag,
)

T = TypeVar("T")

_STRICT = core_schema.CoreConfig(strict=True, extra_fields_behavior="forbid", allow_inf_nan=False)
"""Set for each object, because its schema does not inherit the config of the whole."""

_SHORT = reprlib.Repr()  # values in messages: foreign data may be long and deeply nested
_SHORT.maxstring = _SHORT.maxother = 80


class Malformed(ValueError):
    """Text or data that is not what it should be; the message gives place, rule and value."""


def parse_event(line: bytes) -> Event:
    """Raises Malformed: the line is not an event of a worker."""
    return cast(Event, _read(Event, line, "event"))


def encode_event(event: Event) -> bytes:
    """One line, as a worker writes it."""
    return encode(event).encode()


def encode_command(command: Command) -> bytes:
    """One line, as a worker expects it."""
    return encode(command).encode()


def parse_notice(line: bytes) -> Notice:
    """Raises Malformed: the line is not a notice of a launcher."""
    return cast(Notice, _read(Notice, line, "notice"))


def encode_fork(session: str) -> bytes:
    """The order to a launcher to fork a worker for the session in file `session`; its three pipes go alongside."""
    return encode(Fork(session=session)).encode()


def to_json(value: object) -> Any:
    """The plain form of a dataclass, ready for `json.dumps`.

    Raises:
        Malformed: a field does not hold what its type hint says, or a number is not finite.
    """
    kind: Any = type(value)
    adapter = _adapter(kind)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        raise _malformed(error, kind.__name__) from None


def from_json(kind: type[T], plain: object) -> T:
    """The dataclass `kind` from its plain form; inverse of `to_json`.

    Raises:
        Malformed: see the module docstring.
    """
    return cast(T, _read(kind, json.dumps(plain), kind.__name__))


def parse(text: str | bytes) -> Any:
    """The plain data in a JSON text.

    Raises:
        Malformed: the text is not JSON, or has NaN or Infinity.
    """
    try:
        return read_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"expected one line of JSON; got {_SHORT.repr(text)} ({error})") from None


def _read(kind: Any, text: str | bytes, place: str) -> Any:
    try:
        return _adapter(kind).validate_json(_with_whole_characters(text))
    except ValidationError as error:
        raise _malformed(error, place) from None


def _with_whole_characters(text: str | bytes) -> str | bytes:
    """JSON with "?" for lone surrogates, which a file name that is not UTF-8 leaves in a message."""
    if (b"\\ud" if isinstance(text, bytes) else "\\ud") not in text:  # type: ignore[operator]
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
    except ValueError:
        return text  # the caller reports what is wrong with it


def _malformed(error: ValidationError, place: str) -> Malformed:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    place += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    match first["type"]:
        case "json_invalid":
            return Malformed(f"{place} must be one line of JSON; got {_SHORT.repr(first['input'])} ({first['msg']})")
        case "value_error":  # the dataclass's own check; its text gives the value
            return Malformed(f"{place}: {first['ctx']['error']}")
        case "missing":
            return Malformed(f"{place} is missing")
        case "unexpected_keyword_argument" | "extra_forbidden":
            return Malformed(f"{place} is not known")
    rule = first["msg"].replace("Input should", " must", 1) if first["msg"].startswith("Input") else f": {first['msg']}"
    return Malformed(f"{place}{rule}; got {_SHORT.repr(first['input'])}")


# -- our own written forms ---------------------------------------------------------------------------

# A schema is used both ways. JSON input is read in its written form; an object is about to be written, so it must
# already be an instance.

Leaf = Callable[[Any], CoreSchema]
"""How pydantic itself reads and writes a type."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[Any, _Written(kind)], config=ConfigDict(strict=True, allow_inf_nan=False))


@dataclasses.dataclass(frozen=True)
class _Written:
    """Tells pydantic how `kind` is written."""

    kind: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _schema(self.kind, handler.generate_schema)


def _schema(kind: Any, leaf: Leaf) -> CoreSchema:
    if get_origin(kind) in (types.UnionType, Union):
        return _union_schema(get_args(kind), leaf)
    if dataclasses.is_dataclass(kind):
        return _dataclass_schema(cast(type, kind), leaf)
    if get_origin(kind) is tuple:
        items = get_args(kind)
        is_long = items[-1] is Ellipsis
        schemas = [_schema(item, leaf) for item in items if item is not Ellipsis]
        return core_schema.tuple_schema(schemas, variadic_item_index=0 if is_long else None)
    if get_origin(kind) is Mapping:  # writes any mapping, reads a dict
        return core_schema.dict_schema(core_schema.str_schema(), _schema(get_args(kind)[1], leaf), strict=False)
    if kind is Configuration:
        return _configuration_schema(leaf)
    return leaf(JsonValue if kind is object else kind)


def _dataclass_schema(kind: type, leaf: Leaf) -> CoreSchema:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return core_schema.dataclass_schema(
        kind,
        core_schema.dataclass_args_schema(
            kind.__name__,
            [core_schema.dataclass_field(f.name, _field_schema(f, _schema(hints[f.name], leaf))) for f in fields],
        ),
        [f.name for f in fields],
        post_init=hasattr(kind, "__post_init__"),
        revalidate_instances="always",
        slots=hasattr(kind, "__slots__"),
        config=_STRICT,
    )


def _field_schema(field: dataclasses.Field[Any], schema: CoreSchema) -> CoreSchema:
    if field.default is not dataclasses.MISSING:
        return core_schema.with_default_schema(schema, default=field.default)
    if field.default_factory is not dataclasses.MISSING:
        return core_schema.with_default_schema(schema, default_factory=field.default_factory)
    return schema


def _union_schema(members: tuple[Any, ...], leaf: Leaf) -> CoreSchema:
    if types.NoneType in members:
        others = tuple(member for member in members if member is not types.NoneType)
        return core_schema.nullable_schema(_union_schema(others, leaf) if len(others) > 1 else _schema(others[0], leaf))
    if all(map(dataclasses.is_dataclass, members)):
        return _tagged_schema(members, leaf)
    return core_schema.union_schema(
        [_schema(member, leaf) for member in members],
        custom_error_type="one_of",
        custom_error_message=f"Input should be one of {', '.join(_allowed(members))}",
    )


def _allowed(kinds: tuple[type, ...]) -> Iterator[str]:
    for kind in kinds:
        if issubclass(kind, Enum):
            yield from (member.value for member in kind)
        else:
            yield "finite float" if kind is float else kind.__name__


def _tagged_schema(members: tuple[type, ...], leaf: Leaf) -> CoreSchema:
    """A member of a closed union of dataclasses: `{"its name": {its fields}}`."""
    schemas = {tag(member): _schema(member, leaf) for member in members}
    fields = {name: core_schema.typed_dict_field(schema, required=False) for name, schema in schemas.items()}
    one_key = f"Input should be an object with one key out of {', '.join(schemas)}"

    def unwrap(named: dict[str, object]) -> object:
        if len(named) != 1:
            raise PydanticCustomError("one_key", one_key)
        return next(iter(named.values()))

    def wrap(member: object, write: Callable[[object], object]) -> dict[str, object]:
        return {tag(type(member)): write(member)}

    return core_schema.json_or_python_schema(
        core_schema.no_info_after_validator_function(unwrap, core_schema.typed_dict_schema(fields, config=_STRICT)),
        core_schema.tagged_union_schema(
            schemas,
            lambda member: tag(type(member)),
            custom_error_type="member",
            custom_error_message=f"Input should be one of {', '.join(member.__name__ for member in members)}",
        ),
        serialization=core_schema.wrap_serializer_function_ser_schema(
            wrap, schema=core_schema.union_schema(list(schemas.values()))
        ),
    )


def _configuration_schema(leaf: Leaf) -> CoreSchema:
    values = core_schema.dict_schema(core_schema.str_schema(), _schema(KnobValue, leaf), strict=False)
    return core_schema.json_or_python_schema(
        json_schema=core_schema.no_info_after_validator_function(Configuration, values),
        python_schema=core_schema.chain_schema([core_schema.is_instance_schema(Configuration), values]),
    )
