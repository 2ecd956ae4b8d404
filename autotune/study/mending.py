"""Opens what a study has on disk, mends what can be mended, and says so.

What follows from other files (the clock, the stages, the next number, a spec that has its result) is written anew. A
result that cannot be used is set aside, and its trial runs again. Only the owner of a study may mend it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from autotune.study.events import StudyMended
from autotune.study.folder import Folder
from autotune.study.history import History, history_of
from autotune.study.info import StudyInfo
from autotune.study.marks import StageMark
from autotune.study.reading import (
    RESULT,
    SPEC,
    TRIALS,
    DamagedTrial,
    folder_name,
    read_as,
    read_result,
    read_spec,
    trial_folders,
)
from autotune.study.runlog import RunLog
from autotune.study.seal import Broken, sealed, unsealed
from autotune.trial.codec import from_json, to_json
from autotune.trial.types import Stage, TrialRecord, TrialSpec
from autotune.workload.machine import Machine

T = TypeVar("T")

ELAPSED, NEXT, STAGES, EVENTS = "elapsed.json", "next_trial.json", "stages.json", "events.jsonl"
MACHINE, BASELINE_LOG = "machine.json", "baseline_log.json"
_MOST_AHEAD_SECONDS = 1.5  # of an event before the noted clock


@dataclass(slots=True)
class Contents:
    """What a study has on disk, and what had to be mended."""

    records: dict[int, TrialRecord] = field(default_factory=dict)
    specs: dict[int, TrialSpec] = field(default_factory=dict)
    stages: dict[str, StageMark] = field(default_factory=dict)
    next_number: int = 0
    elapsed_seconds: float = 0.0
    machine: Machine | None = None
    baseline_log: RunLog | None = None
    mended: list[StudyMended] = field(default_factory=list)


def read_and_mend(folder: Folder, info: StudyInfo) -> Contents:
    """The contents of the study in `folder`, which the caller owns."""
    return _Reader(folder, info).contents()


class _Reader:
    """Reads one study. Each step needs those before it."""

    def __init__(self, folder: Folder, info: StudyInfo) -> None:
        self._folder = folder
        self._id = info.id
        self._found = Contents()

    def contents(self) -> Contents:
        self._folder.sweep()
        history = self._history()
        lost = self._read_trials()
        lost |= self._missing(history, lost)
        self._read_number(history)
        self._read_stages(history, lost)
        self._read_elapsed(history)
        if self._found.records and not self._folder.has(MACHINE):
            self._say(f"{MACHINE} was missing: the machine is examined again")
        self._found.machine = self._kept(Machine, MACHINE, "the machine is examined again")
        self._found.baseline_log = self._kept(RunLog, BASELINE_LOG, "give it again with --baseline-log")
        return self._found

    def _say(self, sentence: str, *, lost_trial: int | None = None) -> None:
        lost = () if lost_trial is None else (lost_trial,)
        self._found.mended.append(StudyMended(text=sentence, lost_trials=lost))

    # -- the decision log ------------------------------------------------------------------------

    def _history(self) -> History:
        """What the decision log knows; lines that cannot be read leave it, and what they were is kept aside."""
        try:
            log = self._folder.read(EVENTS)
        except ValueError as error:
            aside = self._folder.set_aside(EVENTS)
            self._say(f"{EVENTS} could not be used ({error}): set aside as {aside}, and begun anew")
            return History()
        if log is None:
            if self._folder.has(STAGES):
                self._say(f"{EVENTS} was missing: the decision log begins anew")
            return History()
        history = history_of(log)
        if history.unreadable:
            aside = self._folder.set_aside(EVENTS)
            self._say(f"{history.unreadable} lines of {EVENTS} were damaged: the whole is set aside as {aside}")
        if history.unreadable or len(history.readable) != len(log) or not self._folder.is_own_file(EVENTS):
            self._folder.write(EVENTS, history.readable.decode())
        return history

    # -- trials ----------------------------------------------------------------------------------

    def _read_trials(self) -> dict[int, Stage | None]:
        """Reads specs and results. Returns the trials whose result is lost, with their stage if it is known."""
        lost: dict[int, Stage | None] = {}
        for number, trial in trial_folders(self._folder):
            if isinstance(trial, str):
                with self._folder.child(TRIALS) as trials:
                    aside = trials.set_aside(folder_name(number))
                self._say(f"trial {number} could not be used ({trial}): set aside as {aside}", lost_trial=number)
                lost[number] = None
                continue
            with trial:
                trial.sweep()
                if self._read_trial(trial, number):
                    spec = self._found.specs.get(number)
                    lost[number] = spec.stage if spec else None
        return lost

    def _read_trial(self, trial: Folder, number: int) -> bool:
        """Reads one trial. Whether its result was lost."""
        record, spec = read_result(trial, number, self._id), read_spec(trial, number, self._id)
        is_lost = isinstance(record, DamagedTrial)
        if isinstance(record, DamagedTrial):
            aside = trial.set_aside(RESULT)
            self._say(
                f"the result of trial {number} was damaged ({record.reason}): set aside as {aside}, it runs again",
                lost_trial=number,
            )
        elif record is not None:
            self._found.records[number] = record
            if not isinstance(spec, TrialSpec):
                trial.write(SPEC, sealed(to_json(record.spec), self._id, indent=1))
                self._say(f"{SPEC} of trial {number} was lost: written anew from its result")
                spec = record.spec
        if isinstance(spec, DamagedTrial):
            aside = trial.set_aside(SPEC)
            self._say(f"{SPEC} of trial {number} was damaged ({spec.reason}): set aside as {aside}")
        elif spec is not None:
            self._found.specs[number] = spec
        return is_lost

    def _missing(self, history: History, lost: Mapping[int, Stage | None]) -> dict[int, Stage | None]:
        """Other trials that the decision log knows as finished, and whose result is not there."""
        there = {*self._found.records, *lost}
        gone: dict[int, Stage | None] = {n: stage for n, stage in history.acknowledged.items() if n not in there}
        for number in gone:
            self._say(f"the result of trial {number} was missing: it runs again", lost_trial=number)
        return gone

    def _read_number(self, history: History) -> None:
        numbers = [*self._found.specs, *self._found.records, *history.ordered]
        least = max(numbers, default=-1) + 1
        if least and not self._folder.has(NEXT):
            self._say(f"{NEXT} was missing: trials are numbered from {least} on")
        kept = self._number(NEXT, "next_trial")
        self._found.next_number = max(least, int(kept or 0))
        if kept is None and least:
            self._folder.write(NEXT, sealed({"next_trial": least}, self._id))

    # -- stages and clock ------------------------------------------------------------------------

    def _read_stages(self, history: History, lost: Mapping[int, Stage | None]) -> None:
        try:
            text = self._folder.read(STAGES)
            plain = {} if text is None else unsealed(text, self._id)
            stages = {Stage(name).value: from_json(StageMark, mark) for name, mark in plain.items()}
            reason = "missing" if text is None and history.stages else ""
        except ValueError as error:
            stages, reason = {}, f"damaged ({error})"
        if reason:
            stages = dict(history.stages)
            self._say(f"{STAGES} was {reason}: the stages are as the decision log has them")
        known = {**history.ordered, **history.acknowledged}
        again = {stage or known.get(number) for number, stage in lost.items()}
        for name, mark in stages.items():
            if mark.finished and name in again:
                stages[name] = mark.reopened(mark.finished_seconds)
        self._found.stages = stages
        if reason or again:
            self._folder.write(STAGES, stages_text(stages, self._id))

    def _read_elapsed(self, history: History) -> None:
        """The noted clock may be a second behind the last event. What is further ahead of it is a damaged line."""
        kept = self._number(ELAPSED, "elapsed_seconds")
        marks = self._found.stages.values()
        least = max((max(m.started_seconds, m.finished_seconds) for m in marks), default=0.0)
        last = history.elapsed_seconds
        if kept is not None:
            last = max(kept, last if last <= kept + _MOST_AHEAD_SECONDS else 0.0)
        self._found.elapsed_seconds = max(least, last)

    def _number(self, name: str, key: str) -> float | None:
        """The number in a file; None if there is none, or it was damaged."""
        try:
            text = self._folder.read(name)
            if text is None:
                return None
            return _number_in(text, key, self._id)
        except ValueError as error:
            aside = self._folder.set_aside(name)
            self._say(f"{name} was damaged ({error}): set aside as {aside}, and worked out from the rest")
            return None

    def _kept(self, kind: type[T], name: str, remedy: str) -> T | None:
        try:
            return read_as(kind, self._folder, name, self._id)
        except ValueError as error:
            aside = self._folder.set_aside(name)
            self._say(f"{name} was damaged ({error}): set aside as {aside}; {remedy}")
            return None


def stages_text(stages: dict[str, StageMark], study_id: str) -> str:
    """The text of the file of all stages."""
    return sealed({name: to_json(mark) for name, mark in stages.items()}, study_id, indent=1)


def _number_in(text: bytes, key: str, study_id: str) -> float:
    found: Any
    if study_id:
        found = unsealed(text, study_id).get(key)
    else:  # a study of before the seals may have the bare number
        found = json.loads(text)
        found = unsealed(text, study_id).get(key) if isinstance(found, dict) else found
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise Broken("it must hold a number, 0 or more")
    return float(found)
