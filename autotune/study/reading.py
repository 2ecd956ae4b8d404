"""Reads the files of a study; errors name the damaged file and the remedy."""

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
    """The stored trials of the study in `folder`, by number; the study is not locked."""
    return tuple(sorted(read_all(TrialRecord, folder, "result.json"), key=lambda r: r.spec.number))


def open_log(path: Path) -> IO[str]:
    """The decision log, opened for appending; a line torn by a crash is removed first."""
    if path.exists():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end != len(whole):
            with path.open("r+b") as file:
                file.truncate(end)
    return path.open("a", encoding="utf-8")


def last_elapsed(path: Path) -> float:
    """The study's clock at the last event, which may be later than `elapsed.json`; 0 if it cannot be read."""
    if not path.exists():
        return 0.0
    for line in reversed(path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):  # torn by a crash: use the line before
            return float(json.loads(line)["elapsed_seconds"])
    return 0.0


def read_all(kind: type[T], folder: Path, name: str) -> list[T]:
    """The files called `name` of all trials; each must be in its own trial's folder."""
    found = []
    for path in sorted((folder / "trials").glob(f"*/{name}")):
        value = read_as(kind, path)
        spec = value.spec if isinstance(value, TrialRecord) else value
        if isinstance(spec, TrialSpec) and path.parent.name != f"{spec.number:04d}":
            raise misshapen(path, f"it belongs to trial {spec.number}")
        found.append(value)
    return found


def read_number(path: Path) -> float:
    """The number in the file, or 0 if there is no file yet."""
    plain = read_json(path) if path.exists() else 0.0
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not 0 <= plain < math.inf:
        raise misshapen(path, "it must be a number, 0 or more")
    return float(plain)


def read_as(kind: type[T], path: Path) -> T:
    """The dataclass in the file.

    Raises:
        StoreDamaged: the file cannot be read.
    """
    return decode(kind, read_json(path), path)


def read_json(path: Path) -> Any:
    """The plain data in the file.

    Raises:
        StoreDamaged: the file is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreDamaged(f"a study's files must be JSON; {path} is not ({error}): {_remedy(path)}") from None


def decode(kind: type[T], plain: Any, path: Path) -> T:
    """The dataclass `kind` from plain data that was read from `path`.

    Raises:
        StoreDamaged: the data do not fit `kind`.
    """
    try:
        return from_json(kind, plain)
    except ValueError as error:
        raise misshapen(path, error) from None


def misshapen(path: Path, why: object) -> StoreDamaged:
    """The error for a file whose content is not valid."""
    return StoreDamaged(f"a study's files must be valid; {path} is not ({why}): {_remedy(path)}")


def _remedy(path: Path) -> str:
    if path.name in ("result.json", "spec.json"):
        return f"delete {path.parent} and resume; the trial runs again if it is needed"
    return "restore it from a copy, or start a new study"
