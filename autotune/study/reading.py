"""Reading the files of a study back: what is damaged is named, with what to do about it."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import IO, Any, TypeVar

from autotune.errors import StoreDamaged
from autotune.trial.codec import from_json
from autotune.trial.types import TrialRecord, TrialSpec

T = TypeVar("T")


def read_records(folder: Path) -> tuple[TrialRecord, ...]:
    """The acknowledged trials of the study in `folder`, by number; the study is not locked."""
    return tuple(sorted(read_all(TrialRecord, folder, "result.json"), key=lambda r: r.spec.number))


def open_log(path: Path) -> IO[str]:
    """The decision log, ready to append; a line torn by a crash is cut off first."""
    if path.exists():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end != len(whole):
            with path.open("r+b") as file:
                file.truncate(end)
    return path.open("a", encoding="utf-8")


def last_elapsed(path: Path) -> float:
    """The study's clock at the last event, which may be later than what was last noted; 0 where that cannot be told."""
    if not path.exists():
        return 0.0
    for line in reversed(path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):  # torn by a crash: the one before will do
            return float(json.loads(line)["elapsed_seconds"])
    return 0.0


def read_all(kind: type[T], folder: Path, name: str) -> list[T]:
    """The files of that name of all trials, each where it belongs."""
    found = []
    for path in sorted((folder / "trials").glob(f"*/{name}")):
        value = read_as(kind, path)
        spec = value.spec if isinstance(value, TrialRecord) else value
        if isinstance(spec, TrialSpec) and path.parent.name != f"{spec.number:04d}":
            raise misshapen(path, f"it is trial {spec.number}")
        found.append(value)
    return found


def read_number(path: Path) -> float:
    """The number that the file holds, or 0 before there is one."""
    plain = read_json(path) if path.exists() else 0.0
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not 0 <= plain < math.inf:
        raise misshapen(path, "it must be a number, 0 or more")
    return float(plain)


def read_as(kind: type[T], path: Path) -> T:
    """The dataclass in the file.

    Raises:
        StoreDamaged: it cannot be read back.
    """
    return decode(kind, read_json(path), path)


def read_json(path: Path) -> Any:
    """The plain data in the file.

    Raises:
        StoreDamaged: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreDamaged(f"a study's files are JSON; {path} is not ({error}): {_remedy(path)}") from None


def decode(kind: type[T], plain: Any, path: Path) -> T:
    """The dataclass `kind` in plain data that was read from `path`.

    Raises:
        StoreDamaged: it has another form.
    """
    try:
        return from_json(kind, plain)
    except ValueError as error:
        raise misshapen(path, error) from None


def misshapen(path: Path, why: object) -> StoreDamaged:
    """The error of a file with another form than ours."""
    return StoreDamaged(f"a study's files keep their form; {path} does not ({why}): {_remedy(path)}")


def _remedy(path: Path) -> str:
    if path.name in ("result.json", "spec.json"):
        return f"delete {path.parent} and resume; what it measured is measured again where it is needed"
    return "restore it from a copy, or start a new study"
