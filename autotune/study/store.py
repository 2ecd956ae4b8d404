"""A study on disk: one folder that survives crashes and can be resumed.

reports/<study>/
    study.json   the study itself: format, text, budget, and what its measurements depend on
    space.toml   an exact copy of the space file
    trials/NNNN/ spec.json (ordered), result.json (acknowledged), log.txt (the worker's own output)
    machine.json the machine as first examined, and what it cannot run
    stages.json  deadlines of the stages and which are finished
    elapsed.json seconds searched so far, over all sittings
    next_trial.json the number of the next trial; numbers are never reused, even after deletions
    study.db     the same trials for Optuna's dashboard: a view, made of the results
    events.jsonl the decision log
    report.*     the recommendation, and the checksums of its files
    lock         the number of the process that owns the study

A trial counts once its `result.json` exists, and not before. One process at a time owns a study. The files that the
study reads again are sealed (`autotune.study.seal`); `space.toml` is not, because it may be edited.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.errors import BadInput, EnvironmentProblem
from autotune.space.configuration import Configuration
from autotune.space.document import SpaceDocument, parse_document
from autotune.study.events import Event, StudyMended
from autotune.study.folder import Folder, write_all
from autotune.study.info import FILE as INFO
from autotune.study.info import FORMAT as FORMAT
from autotune.study.info import StudyInfo as StudyInfo
from autotune.study.info import beside, no_study, places_of_text, read_info, write_info
from autotune.study.info import check_name as check_name
from autotune.study.info import differences as differences
from autotune.study.info import written_corpus as written_corpus
from autotune.study.listing import REPORT_SUMS
from autotune.study.lock import FILE as LOCK
from autotune.study.lock import lock
from autotune.study.making import clear, has_trials, remove_new
from autotune.study.marks import StageMark as StageMark
from autotune.study.mending import (
    BASELINE_LOG,
    ELAPSED,
    EVENTS,
    MACHINE,
    NEXT,
    STAGES,
    read_and_mend,
    stages_text,
)
from autotune.study.reading import RESULT, SPEC, TRIALS, folder_name
from autotune.study.runlog import RunLog
from autotune.study.seal import sealed, sum_of
from autotune.study.spacefile import SPACE, document_of, read_space, space_text
from autotune.trial.codec import to_json
from autotune.trial.types import Stage, StageEnd, TrialRecord, TrialSpec
from autotune.workload.machine import Machine
from autotune.workload.space import Read, read_workload, space_of

TRIAL_LOG, REFERENCE_LOG = "log.txt", "reference.log"


class Study:
    """An open study, locked for this process. As a context manager it releases the lock on exit."""

    def __init__(self, files: Folder, owned: int, info: StudyInfo, read: Read) -> None:
        """Read the study in `files`, owned through the descriptor `owned`; use `Study.open` or `Study.create`."""
        self._files = files
        self._owned = owned
        self._read_workload = read
        self.info = info
        self.space = read_space(files, info, read)
        found = read_and_mend(files, info)
        self._records = {n: self._completed(r) for n, r in found.records.items()}
        self._specs = {n: self._complete(s) for n, s in found.specs.items()}
        self._stages = found.stages
        self._next_number = found.next_number
        self.elapsed_seconds = found.elapsed_seconds
        self.machine = found.machine
        self.baseline_log = found.baseline_log
        os.close(files.append(REFERENCE_LOG))  # an executor opens it by its path
        if info.space_sha256 not in ("", sum_of(self._space_text)):
            edited = StudyMended(text=f"{SPACE} was edited since the study wrote it: it counts as it is now")
            found.mended.append(edited)
        self.mended = tuple(Event(elapsed_seconds=self.elapsed_seconds, what=what) for what in found.mended)
        self._log = files.append(EVENTS)
        try:
            for event in self.mended:
                self.log(event)
        except BaseException:
            os.close(self._log)
            raise

    @classmethod
    def create(cls, folder: Path, info: StudyInfo, space_text: str, read: Read = read_workload) -> Self:
        """Create a new study. `read` makes the workload of its space.

        A study that has no trial yet makes way for it. If this fails, nothing new is left behind.

        Raises:
            BadInput: a study of this name exists, or the space cannot be searched.
            StudyBusy: another process is creating or searching it.
            EnvironmentProblem: its folder cannot be written.
        """
        check_name(folder.name)
        space_of(parse_document(space_text, name=info.space_name, source=info.space_name, folder=folder), read)
        info = replace(
            info,
            id=secrets.token_hex(8),
            corpus_beside=beside(info.corpus, folder),
            space_sha256=sum_of(space_text),
        )
        files = Folder.make(folder)
        owned, is_new = -1, False
        try:
            owned = lock(files)
            is_new = not files.has(INFO)
            if not is_new:
                if has_trials(files):
                    raise BadInput(
                        f"a new study needs a new name; got {folder.name!r}, which exists: choose another --study"
                    )
                clear(files, (STAGES, ELAPSED, NEXT, MACHINE, BASELINE_LOG, EVENTS))
            files.child(TRIALS, make=True).close()
            files.write(SPACE, space_text)
            write_info(files, info)
            return cls(files, owned, info, read)
        except BaseException:
            if is_new:
                remove_new(files, (INFO, SPACE, EVENTS, REFERENCE_LOG, LOCK))
            _give_back(files, owned)
            raise

    @classmethod
    def open(cls, folder: Path, read: Read = read_workload) -> Self:
        """Open an existing study. `read` makes the workload of its space.

        Nothing is written before the folder was found to be a study. What is damaged and can be mended is mended:
        `mended` says what.

        Raises:
            BadInput: there is no such study, or another version made it.
            StudyBusy: another process has it open.
            StoreDamaged: one of its files cannot be read.
            EnvironmentProblem: the system refuses to read or write.
        """
        try:
            files = Folder.open(folder)
        except FileNotFoundError:
            raise no_study(folder) from None
        owned = -1
        try:
            read_info(files)
            owned = lock(files)
            return cls(files, owned, read_info(files), read)  # read again: it may have changed before it was locked
        except BaseException:
            _give_back(files, owned)
            raise

    def close(self) -> None:
        """Release the study. Safe to call twice."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
            _give_back(self._files, self._owned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Its folder, for messages and for programs that open paths."""
        return self._files.path

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def document(self) -> SpaceDocument:
        """Its space file."""
        return document_of(self._files, self.info)

    @property
    def _space_text(self) -> str:
        return space_text(self._files)

    @property
    def places_of_text(self) -> tuple[str, ...]:
        """Where its text may lie now, the likeliest first; see `autotune.study.info.places_of_text`."""
        return places_of_text(self.info, self.folder)

    def take_text_from(self, corpus: str) -> None:
        """Train on the text at `corpus`, which has the content of the study's text."""
        self.space = self.space.with_corpus(corpus)
        self._describe(replace(self.info, corpus=corpus, corpus_beside=beside(corpus, self.folder)))

    def _describe(self, info: StudyInfo) -> None:
        if info != self.info:
            self.info = info
            write_info(self._files, info)

    def revise(self, document: SpaceDocument, *, corpus: str, budget_seconds: float) -> None:
        """Change plan, prices or budget; no measurement depends on them.

        Stages that ended early are reopened, unless a later stage has already used their results.
        """
        space = replace(space_of(document, self._read_workload), budget_seconds=budget_seconds)
        before = (self.space.plan, self.info.budget_seconds)
        if document.text != self._space_text:
            self._files.write(SPACE, document.text)
        self._describe(
            replace(
                self.info,
                corpus=corpus,
                corpus_beside=beside(corpus, self.folder) if corpus != self.info.corpus else self.info.corpus_beside,
                corpus_as_written=written_corpus(document),
                budget_seconds=budget_seconds,
                space_sha256=sum_of(document.text),
            )
        )
        self.space = space.with_corpus(corpus)
        if (space.plan, budget_seconds) != before:
            self._reopen()

    def _reopen(self) -> None:
        """Reopen the stages that ended early, unless a later stage has already run trials on their results."""
        stages = list(Stage)
        last_measured = max((n for n, stage in enumerate(stages) if self.ordered(stage)), default=0)
        early = (StageEnd.BUDGET, StageEnd.NOT_WORTH_IT)
        ended_early = [n for n, stage in enumerate(stages) if (mark := self.stage(stage)) and mark.reason in early]
        first = next((n for n in ended_early if n >= last_measured), len(stages))
        for number, stage in enumerate(stages):
            mark = self.stage(stage)
            if mark and (number >= first or not mark.finished):
                self.mark(stage, mark.reopened(self.elapsed_seconds))

    # -- trials ----------------------------------------------------------------------------------

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All acknowledged trials, by number."""
        return tuple(self._records[n] for n in sorted(self._records))

    def of_stage(self, stage: Stage) -> tuple[TrialRecord, ...]:
        """The acknowledged trials of one stage, by number."""
        return tuple(r for r in self.records if r.spec.stage is stage)

    def order(
        self, *, stage: Stage, label: str, config: Configuration, seed: int, horizon_tokens: int, block: int
    ) -> TrialSpec:
        """The spec of this trial: the one ordered before a crash if there is one, else a new one, stored on disk."""
        wanted = TrialSpec(
            number=self._next_number,
            stage=stage,
            label=label,
            config=config,
            seed=seed,
            horizon_tokens=horizon_tokens,
            block=block,
        )
        for spec in self._specs.values():
            if replace(spec, number=wanted.number) == wanted:
                self._order(spec)
                return spec
        self._next_number += 1
        self._files.write(NEXT, sealed({"next_trial": self._next_number}, self.info.id))
        self._order(wanted)
        return wanted

    def _order(self, spec: TrialSpec) -> None:
        """The trial's folder, its spec, and its log, which an executor opens by its path."""
        with self._trial(spec.number) as trial:
            if spec.number not in self._specs:
                trial.write(SPEC, sealed(to_json(spec), self.info.id, indent=1))
                self._specs[spec.number] = spec
            if spec.number not in self._records:
                os.close(trial.append(TRIAL_LOG))

    def ordered(self, stage: Stage) -> tuple[TrialSpec, ...]:
        """All trials ordered so far in one stage, acknowledged or not, by number."""
        return tuple(self._specs[n] for n in sorted(self._specs) if self._specs[n].stage is stage)

    def result_of(self, spec: TrialSpec) -> TrialRecord | None:
        """The acknowledged record of `spec`, if any."""
        return self._records.get(spec.number)

    def acknowledge(self, record: TrialRecord) -> None:
        """Store a finished trial. From here on it counts, even after a crash."""
        with self._trial(record.spec.number) as trial:
            trial.write(RESULT, sealed(to_json(record), self.info.id))
        self._records[record.spec.number] = record

    def _trial(self, number: int) -> Folder:
        with self._files.child(TRIALS, make=True) as trials:
            return trials.child(folder_name(number), make=True)

    def _complete(self, spec: TrialSpec) -> TrialSpec:
        return replace(spec, config=self.space.completed(spec.config))

    def _completed(self, record: TrialRecord) -> TrialRecord:
        """The record with the baseline's value for every knob added since it was written."""
        return replace(record, spec=self._complete(record.spec))

    def trial_folder(self, number: int) -> Path:
        """The folder of trial `number`. Its log is there from `order` on, and is a file of its own."""
        return self.folder / TRIALS / folder_name(number)

    @property
    def files(self) -> Folder:
        """The open folder."""
        return self._files

    # -- stages, clock and log -------------------------------------------------------------------

    def stage(self, stage: Stage) -> StageMark | None:
        """The state of `stage`, or None before it starts."""
        return self._stages.get(stage.value)

    @property
    def is_finished(self) -> bool:
        """Whether all stages are finished, so that nothing more will be measured."""
        return all((mark := self.stage(stage)) is not None and mark.finished for stage in Stage)

    @property
    def search_seconds(self) -> float:
        """Search time up to the end of the last finished stage. Reading a study adds nothing to it."""
        return max((m.finished_seconds for m in self._stages.values() if m.finished), default=0.0)

    @property
    def seconds_by_stage(self) -> dict[str, float]:
        """How long each finished stage took, on the study's clock."""
        return {
            name: m.finished_seconds - m.started_seconds + m.earlier_seconds
            for name, m in self._stages.items()
            if m.finished
        }

    def mark(self, stage: Stage, mark: StageMark) -> None:
        """Store the state of `stage`."""
        self._stages[stage.value] = mark
        self._files.write(STAGES, stages_text(self._stages, self.info.id))

    def note_elapsed(self, seconds: float) -> None:
        """Store the search time so far, over all sittings."""
        self.elapsed_seconds = seconds
        self._files.write(ELAPSED, sealed({"elapsed_seconds": round(seconds, 3)}, self.info.id))

    def keep_machine(self, machine: Machine) -> Machine:
        """`machine` with the limits found when the study began, which hold for all of it. Stores the first one."""
        if self.machine is not None:
            return replace(machine, limits=self.machine.limits)
        self._files.write(MACHINE, sealed(to_json(machine), self.info.id, indent=1))
        self.machine = machine
        return machine

    def keep_baseline_log(self, log: RunLog) -> None:
        """Store the log of a run of the plan with the baseline, in place of one stored before."""
        self._files.write(BASELINE_LOG, sealed(to_json(log), self.info.id))
        self.baseline_log = log

    def keep_report(self, files: Mapping[str, str]) -> None:
        """Store the files of a report, each whole or not at all, and then their checksums."""
        for name, text in files.items():
            self._files.write(name, text)
        self._files.write(REPORT_SUMS, sealed({name: sum_of(text) for name, text in files.items()}, self.info.id))

    def log(self, event: Event) -> None:
        """Append to the decision log.

        Raises:
            EnvironmentProblem: the disk is full, or the system refuses.
        """
        line = json.dumps(to_json(event), allow_nan=False) + "\n"
        try:
            write_all(self._log, line.encode())
        except OSError as error:
            raise EnvironmentProblem(
                f"a study must be writable; got {error.strerror} at {self.folder / EVENTS}: "
                "free some space, and resume the study: nothing is lost"
            ) from None


def _give_back(files: Folder, owned: int) -> None:
    if owned >= 0:
        os.close(owned)
    files.close()
