"""The written form of a trial: strict JSON for records on disk and for the messages of a worker.

One rule each way, driven by the type hints: a dataclass is an object with its fields, a member of a
closed union is `{"its name": {its fields}}` (its `tag`, or else its class in snake_case), an enum is its
value, a tuple a list, None null, `object` any plain value. All fields are written. A field that has a
default may be missing where it is read: it is younger than what was written, and its default says what
was so before it. Nothing else is guessed or repaired: an unknown or missing field, a wrong type or a
number that is not finite raises `Malformed` and names the place. NaN and infinity are refused because
JSON has neither and because a measurement that is not finite has an outcome of its own (`diverged`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import re
import reprlib
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache
from typing import Any, ClassVar, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from autotune.trial.types import Evaluation, FailedKind, Fingerprint, GradientNoise, InfeasibleKind, Ready, Slice

MODEL_COMMAND = (sys.executable, "-P", "-m", "autotune_model")
"""How the torch side is started. `-P` keeps a `model.py` in the user's folder from taking its place."""

T = TypeVar("T")

_SHORT = reprlib.Repr()  # values in messages: foreign data may be long and deeply nested
_SHORT.maxstring = _SHORT.maxother = 80


class Malformed(ValueError):
    """Text or data that is not what it should be; the message gives place, rule and value."""


class PhaseName(StrEnum):
    """The signs of progress of a worker that is getting ready."""

    STARTED = "started"  # the process runs and has read its orders
    BUILT = "built"  # data, model and optimizer stand


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A worker on its way to `Ready`."""

    name: PhaseName


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A worker's last words."""

    kind: InfeasibleKind | FailedKind
    message: str


Event = Phase | Ready | Slice | Evaluation | Fingerprint | GradientNoise | Failure
"""What a worker says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Train `steps` whole optimizer steps; the slice carries the pairing round `round`."""

    steps: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Report the loss on the held-out documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureFingerprint:
    """Report the fingerprint; only before the first `Advance`."""

    tag: ClassVar[str] = "fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureGradientNoise:
    """Report the gradient noise over the next `batches` global batches, without training on them."""

    tag: ClassVar[str] = "gradient_noise"

    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """End the session."""


Command = Advance | Evaluate | MeasureFingerprint | MeasureGradientNoise | Close
"""What a worker is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A launcher has imported everything and takes orders."""

    ready: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A launcher has started the worker `pid`."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The worker `pid` has ended with the raw wait status `status`."""

    pid: int
    status: int


Notice = Launcher | Forked | Exited
"""What a launcher says."""


def tag(kind: type) -> str:
    """The name of a member of a union in the written form: `gradient_noise` for `GradientNoise`."""
    own: str | None = getattr(kind, "tag", None)
    return own or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def parse_event(line: bytes) -> Event:
    """Raises Malformed: the line is not an event of a worker."""
    return cast(Event, _load(Event, parse(line), "event"))


def encode_event(event: Event) -> bytes:
    """One line, as a worker would write it."""
    return _line(Event, event)


def encode_command(command: Command) -> bytes:
    """One line, as a worker expects it."""
    return _line(Command, command)


def parse_notice(line: bytes) -> Notice:
    """Raises Malformed: the line is not a notice of a launcher."""
    return cast(Notice, _load(Notice, parse(line), "notice"))


def encode_fork(session: str) -> bytes:
    """The order to a launcher to fork a worker for the session in the file `session`; its three pipes go beside."""
    return _text({"fork": {"session": session}}).encode() + b"\n"


def to_json(value: object) -> Any:
    """The plain form of a dataclass, ready for `json.dumps`.

    Raises:
        Malformed: a field does not hold what its type hint says, or a number is not finite.
    """
    return _dump(type(value), value, type(value).__name__)


def from_json(kind: type[T], plain: object) -> T:
    """The dataclass `kind` from its plain form; inverse of `to_json`.

    Raises:
        Malformed: see the head of this file.
    """
    return cast(T, _load(kind, plain, kind.__name__))


def parse(text: str | bytes) -> Any:
    """The plain data in a JSON text.

    Raises:
        Malformed: the text is not JSON; NaN and Infinity are not.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected one line of JSON; got {_SHORT.repr(text)} ({error})") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _line(kind: Any, value: object) -> bytes:
    return _text(_dump(kind, value, type(value).__name__)).encode() + b"\n"


def _text(plain: object) -> str:
    return json.dumps(plain, allow_nan=False, separators=(",", ":"))


def _fail(place: str, rule: str, value: object) -> NoReturn:
    raise Malformed(f"{place} must be {rule}; got {_SHORT.repr(value)}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The type of each field of the dataclass `kind`. Cached: a record resolves thousands of slices."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


@cache
def _required(kind: Any) -> frozenset[str]:
    """The fields of the dataclass `kind` that have no default."""
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing)


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or nothing."""
    return get_args(kind) if get_origin(kind) in (types.UnionType, Union) else ()


def _present(members: tuple[Any, ...]) -> Any:
    """What the union of `members` is where it is not None."""
    return functools.reduce(operator.or_, (m for m in members if m is not types.NoneType))


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _is_dataclass(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _dump(kind: Any, value: Any, place: str) -> Any:
    members = _members(kind)
    if types.NoneType in members:
        return None if value is None else _dump(_present(members), value, place)
    if members:
        if type(value) not in members:
            _fail(place, " or ".join(m.__name__ for m in members), value)
        plain = _dump(type(value), value, place)
        return plain if _is_enum(type(value)) else {tag(type(value)): plain}
    if _is_dataclass(kind):
        hints = _hints(kind)
        if type(value) is not kind:
            _fail(place, f"a {kind.__name__}", value)
        return {name: _dump(hint, getattr(value, name), f"{place}.{name}") for name, hint in hints.items()}
    if _is_enum(kind):
        return value.value if isinstance(value, kind) else _fail(place, f"a {kind.__name__}", value)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            _fail(place, "a tuple", value)
        return _elements(_dump, kind, value, place)
    if get_origin(kind) is Mapping:
        return _items(_dump, kind, value, place)
    return _plain(value, place) if kind is object else _scalar(kind, value, place)


def _load(kind: Any, plain: Any, place: str) -> Any:
    members = _members(kind)
    if types.NoneType in members:
        return None if plain is None else _load(_present(members), plain, place)
    if members:
        return _load_member(members, plain, place)
    if _is_dataclass(kind):
        return _load_fields(kind, plain, place)
    if _is_enum(kind):
        try:
            return kind(plain)
        except ValueError:
            _fail(place, f"one of {', '.join(repr(m.value) for m in kind)}", plain)
    if get_origin(kind) is tuple:
        if not isinstance(plain, list):
            _fail(place, "a list", plain)
        return tuple(_elements(_load, kind, plain, place))
    if get_origin(kind) is Mapping:
        return _items(_load, kind, plain, place)
    return _plain(plain, place) if kind is object else _scalar(kind, plain, place)


def _load_member(members: tuple[Any, ...], plain: Any, place: str) -> Any:
    if all(map(_is_enum, members)):
        values = {member.value: member for kind in members for member in kind}
        return (
            values[plain]
            if isinstance(plain, str) and plain in values
            else _fail(place, f"one of {', '.join(values)}", plain)
        )
    kinds = {tag(member): member for member in members}
    if not isinstance(plain, dict) or len(plain) != 1 or next(iter(plain)) not in kinds:
        _fail(place, f"an object with one key out of {', '.join(kinds)}", plain)
    ((name, fields),) = plain.items()
    return _load(kinds[name], fields, f"{place}.{name}")


def _load_fields(kind: Any, plain: Any, place: str) -> Any:
    if not isinstance(plain, dict):
        _fail(place, f"an object with the fields of {kind.__name__}", plain)
    hints = _hints(kind)
    if unknown := sorted(set(plain) - set(hints)):
        _fail(place, f"without unknown fields, one of {', '.join(hints)}", ", ".join(unknown))
    if missing := sorted(_required(kind) - set(plain)):
        _fail(place, "complete", f"no {', '.join(missing)}")
    values = {name: _load(hints[name], plain[name], f"{place}.{name}") for name in hints if name in plain}
    try:
        return kind(**values)
    except ValueError as error:  # the dataclass checks itself
        raise Malformed(f"{place}: {error}") from None


def _elements(each: Any, kind: Any, values: Sequence[Any], place: str) -> list[Any]:
    """Each element by its own hint: `tuple[int, ...]` has one for all, `tuple[int, float]` one for each."""
    hints = get_args(kind)
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(values)
    if len(values) != len(hints):
        _fail(place, f"of length {len(hints)}", values)
    return [each(hint, value, f"{place}[{i}]") for i, (hint, value) in enumerate(zip(hints, values, strict=True))]


def _items(each: Any, kind: Any, value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _fail(place, "a mapping with text keys", value)
    return {key: each(get_args(kind)[1], item, f"{place}[{key!r}]") for key, item in value.items()}


def _plain(value: Any, place: str) -> Any:
    """Any plain value, checked down to its numbers."""
    if isinstance(value, Mapping):
        return _items(_dump, Mapping[str, object], value, place)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, str | bool | int):
        return value
    return _scalar(float, value, place)


def _scalar(kind: type, value: Any, place: str) -> Any:
    """`value` if it is a `kind`; an int may stand for a float, nothing else is converted."""
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else _fail(place, "a finite number", value)
    return value if type(value) is kind else _fail(place, f"of type {kind.__name__}", value)
