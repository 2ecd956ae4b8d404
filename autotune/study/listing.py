"""Lists studies. Uses only the standard library, so that listing is instant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import AutotuneError
from autotune.study.folder import Folder
from autotune.study.seal import sum_of, unsealed

DEFAULT_ROOT = Path("reports")
"""The default folder of all studies."""

UNFINISHED = "unfinished"
DAMAGED = "damaged"
REPORT_SUMS = "report_sums.json"
"""The checksums of the report's files, as written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One study in the listing.

    `name` is the folder's name. `state` is `unfinished`, `damaged`, or the verdict of its report. `created_at`
    (ISO 8601, UTC) and `space` are empty if the study is damaged; `reason` then says what is.
    """

    name: str
    state: str
    created_at: str
    space: str
    reason: str = ""


def studies(root: Path | str = DEFAULT_ROOT) -> list[StudySummary]:
    """All studies under `root`, by name, damaged ones included. No study is locked or changed."""
    return [_summary(path) for path in sorted(Path(root).glob("*")) if _is_study(path)]


def read_report(folder: Path, name: str) -> str | None:
    """The text of a file of the study's report, as it was written; None if there is none.

    Raises:
        ValueError: it is damaged; the text says how.
        autotune.errors.AutotuneError: it cannot be read.
    """
    with Folder.open(folder) as files:
        return _report(files, name)


def _is_study(folder: Path) -> bool:
    try:
        return (folder / "study.json").is_symlink() or (folder / "study.json").exists()
    except OSError:  # a folder that may not be looked into
        return folder.is_dir()


def _summary(folder: Path) -> StudySummary:
    try:
        with Folder.open(folder) as files:
            info = unsealed(files.read("study.json") or b"", None)
            created_at, space = _text(info, "created_at"), _text(info, "space_name")
            report = _report(files, "report.json")
        state = UNFINISHED if report is None else _text(_object(report), "verdict")
    except (OSError, ValueError, RecursionError, AutotuneError) as error:
        return StudySummary(name=folder.name, state=DAMAGED, created_at="", space="", reason=str(error))
    return StudySummary(name=folder.name, state=state, created_at=created_at, space=space)


def _report(files: Folder, name: str) -> str | None:
    text, sums = files.read(name), files.read(REPORT_SUMS)
    if sums is None:  # unfinished, or of before there were sums
        return None if text is None else text.decode()
    found = None if text is None else text.decode()
    if found is None or unsealed(sums, None).get(name) != sum_of(found):
        how = "is missing" if found is None else "has changed since it was written"
        raise ValueError(f"{name} {how}: `autotune resume {files.path.name}` writes it anew")
    return found


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("report.json must hold an object")
    return value


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a string")
    return value
