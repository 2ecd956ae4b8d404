"""Reads the trials of a study. Nothing is locked, changed or followed out of its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from autotune.errors import StoreDamaged
from autotune.study.folder import Folder
from autotune.study.info import id_of, no_study
from autotune.study.seal import Broken, unsealed
from autotune.trial.codec import from_json
from autotune.trial.types import TrialRecord, TrialSpec

T = TypeVar("T")

TRIALS, RESULT, SPEC = "trials", "result.json", "spec.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedTrial:
    """A trial whose result cannot be used, and why."""

    number: int
    reason: str


def read_records(path: Path) -> tuple[TrialRecord, ...]:
    """The stored trials of the study in the folder at `path`, by number.

    Raises:
        StoreDamaged: one of them cannot be used.
        BadInput: there is no such study.
    """
    found = read_all_records(path)
    for trial in found:
        if isinstance(trial, DamagedTrial):
            file = path / TRIALS / folder_name(trial.number) / RESULT
            raise StoreDamaged(
                f"a study's files must be valid; {file} is not ({trial.reason}): "
                "resume the study, and the trial runs again if it is needed"
            )
    return tuple(trial for trial in found if isinstance(trial, TrialRecord))


def read_all_records(path: Path) -> tuple[TrialRecord | DamagedTrial, ...]:
    """As `read_records`, with the damaged ones in their place."""
    try:
        folder = Folder.open(path)
    except FileNotFoundError:
        raise no_study(path) from None
    found: list[TrialRecord | DamagedTrial] = []
    with folder:
        study_id = id_of(folder)
        for number, trial in trial_folders(folder):
            if isinstance(trial, str):
                found.append(DamagedTrial(number=number, reason=trial))
                continue
            with trial:
                record = read_result(trial, number, study_id)
            if record is not None:
                found.append(record)
    return tuple(found)


def trial_folders(study: Folder) -> Iterator[tuple[int, Folder | str]]:
    """The trials of a study by number: their open folders, which the caller closes, or what stands in the place of one.

    Raises:
        StoreDamaged: the folder of all trials is none.
    """
    try:
        trials = study.child(TRIALS)
    except FileNotFoundError:
        return
    with trials:
        for name in sorted((n for n in trials.names() if re.fullmatch(r"[0-9]{4,9}", n)), key=int):
            if name != folder_name(int(name)):
                continue
            try:
                found: Folder | str = trials.child(name)
            except FileNotFoundError:  # deleted in this moment
                continue
            except StoreDamaged:
                found = "it is a link or no folder"
            yield int(name), found


def folder_name(number: int) -> str:
    """The name of the folder of trial `number`."""
    return f"{number:04d}"


def read_result(trial: Folder, number: int, study_id: str | None) -> TrialRecord | DamagedTrial | None:
    """The acknowledged record of a trial; None if there is none yet."""
    try:
        record = read_as(TrialRecord, trial, RESULT, study_id)
        if record is not None and record.spec.number != number:
            raise Broken(f"it belongs to trial {record.spec.number}")
    except ValueError as error:
        return DamagedTrial(number=number, reason=str(error))
    return record


def read_spec(trial: Folder, number: int, study_id: str | None) -> TrialSpec | DamagedTrial | None:
    """The spec of a trial as it was ordered; None if there is none."""
    try:
        spec = read_as(TrialSpec, trial, SPEC, study_id)
        if spec is not None and spec.number != number:
            raise Broken(f"it belongs to trial {spec.number}")
    except ValueError as error:
        return DamagedTrial(number=number, reason=str(error))
    return spec


def read_as(kind: type[T], folder: Folder, name: str, study_id: str | None) -> T | None:
    """The dataclass in a file; None if there is no file.

    Raises:
        ValueError: the file is damaged, or another study's; the text says how.
    """
    text = folder.read(name)
    return None if text is None else from_json(kind, unsealed(text, study_id))
