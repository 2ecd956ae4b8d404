"""Lists studies. Uses only the standard library, so that listing is instant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_ROOT = Path("reports")
"""The default folder of all studies."""

UNFINISHED = "unfinished"
DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One study in the listing.

    `name` is the folder's name. `state` is `unfinished`, `damaged`, or the verdict of its report. `created_at`
    (ISO 8601, UTC) and `space` are empty if the study is damaged.
    """

    name: str
    state: str
    created_at: str
    space: str


def studies(root: Path | str = DEFAULT_ROOT) -> list[StudySummary]:
    """All studies under `root`, by name, damaged ones included. No study is locked or changed."""
    return [_summary(path.parent) for path in sorted(Path(root).glob("*/study.json"))]


def _summary(folder: Path) -> StudySummary:
    try:
        info = _object(folder / "study.json")
        created_at, space = _text(info, "created_at"), _text(info, "space_name")
        report = folder / "report.json"
        state = _text(_object(report), "verdict") if report.exists() else UNFINISHED
    except (OSError, ValueError, RecursionError):
        return StudySummary(name=folder.name, state=DAMAGED, created_at="", space="")
    return StudySummary(name=folder.name, state=state, created_at=created_at, space=space)


def _object(path: Path) -> Mapping[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold an object")
    return value


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a string")
    return value
