"""A study on disk: one folder that survives crashes and can be resumed.

reports/<study>/
    study.json   the study itself: format, text, budget, and what its measurements depend on
    space.toml   an exact copy of the space file
    trials/NNNN/ spec.json (ordered), result.json (acknowledged), log.txt (the worker's own output)
    machine.json the machine as first examined, and what it cannot run
    stages.json  deadlines of the stages and which are finished
    elapsed.json seconds searched so far, over all sittings
    next_trial.json the number of the next trial; numbers are never reused, even after deletions
    study.db     the same trials for Optuna and its dashboard
    events.jsonl the decision log
    report.*     the recommendation

A trial counts once its `result.json` exists, and not before. One process at a time owns a study.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from autotune.errors import BadInput, StoreDamaged, StudyBusy
from autotune.files import write_atomically
from autotune.space.configuration import Configuration
from autotune.space.document import SpaceDocument, parse_document
from autotune.study.events import Event
from autotune.study.reading import decode, last_elapsed, misshapen, open_log, read_all, read_as, read_json, read_number
from autotune.study.runlog import RunLog
from autotune.trial.codec import to_json
from autotune.trial.types import Stage, StageEnd, TrialRecord, TrialSpec
from autotune.workload.machine import Machine
from autotune.workload.space import Read, SearchSpace, read_workload, space_of

FORMAT = 3
_LONGEST_NAME = 60  # characters: file systems allow 255 bytes
_NAME_RULE = (
    f"a study's name is at most {_LONGEST_NAME} letters, digits, '.', '_' and '-', and must not start with '.' or '-'"
)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """One clause per key in which two identities differ, with both values in full."""
    return tuple(
        f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """The description of a study. Its name is its folder's name, so it can be moved and renamed.

    `corpus` is the text trained on; `corpus_as_written` is the text named in its copy of the space, which `--data`
    may override. `identity` holds, by key, all that its measurements depend on: model, text, code and hardware, but
    not plan, prices or budget. `warm_start` are configurations of the study it was forked from, best first.
    """

    format: int
    created_at: str
    space_name: str
    corpus: str
    corpus_as_written: str
    budget_seconds: float
    identity: Mapping[str, str]
    forked_from: str = ""
    warm_start: tuple[Configuration, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMark:
    """The state of a stage, on the study's clock (seconds of search over all sittings).

    A reopened stage has no deadline until it gets a new share; `earlier_seconds` is the time it took before that.
    `reason` is why the stage finished, None while it has not.
    """

    started_seconds: float
    deadline_seconds: float | None
    finished_seconds: float = 0.0
    earlier_seconds: float = 0.0
    reason: StageEnd | None = None

    @property
    def finished(self) -> bool:
        return self.reason is not None


def check_name(name: str) -> str:
    """Return `name` if it is a legal name of a study.

    Raises:
        BadInput: it is not.
    """
    is_legal = 0 < len(name) <= _LONGEST_NAME and name[0] not in ".-" and all(c.isalnum() or c in "._-" for c in name)
    if not is_legal:
        raise BadInput(f"{_NAME_RULE}; got {name!r}: try 'my-study'")
    return name


class Study:
    """An open study, locked for this process. As a context manager it releases the lock on exit."""

    def __init__(self, folder: Path, lock: IO[str], read: Read) -> None:
        """Read the study in `folder`; use `Study.open` or `Study.create`."""
        self.folder = folder
        self._lock = lock
        self._read_workload = read
        self.info = _read_info(folder)
        self.space = _read_space(folder, self.info, read)
        records = (self._completed(r) for r in read_all(TrialRecord, folder, "result.json"))
        self._records = {r.spec.number: r for r in records}
        self._specs = {s.number: self._complete(s) for s in read_all(TrialSpec, folder, "spec.json")}
        self._stages = _read_stages(folder / "stages.json")
        self._next_number = max(int(read_number(folder / "next_trial.json")), max(self._specs, default=-1) + 1)
        self.elapsed_seconds = max(read_number(folder / "elapsed.json"), last_elapsed(folder / "events.jsonl"))
        self._log = open_log(folder / "events.jsonl")

    @classmethod
    def create(cls, folder: Path, info: StudyInfo, space_text: str, read: Read = read_workload) -> Self:
        """Create a new study; a failure leaves nothing behind. `read` makes the workload of its space.

        Raises:
            BadInput: a study of this name exists, or the space cannot be searched.
            StudyBusy: another process is creating it.
        """
        check_name(folder.name)
        space_of(parse_document(space_text, name=info.space_name, source=info.space_name, folder=folder), read)
        if (folder / "study.json").exists():
            raise BadInput(f"a new study needs a new name; got {folder.name!r}, which exists: choose another --study")
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        with _given_back_on_error(lock):
            write_atomically(folder / "space.toml", space_text)
            write_atomically(folder / "study.json", json.dumps(to_json(info), indent=1) + "\n")
            return cls(folder, lock, read)

    @classmethod
    def open(cls, folder: Path, read: Read = read_workload) -> Self:
        """Open an existing study. `read` makes the workload of its space.

        Raises:
            BadInput: there is no such study, or another version made it.
            StudyBusy: another process has it open.
            StoreDamaged: one of its files cannot be read.
        """
        if not (folder / "study.json").exists():
            raise BadInput(f"a study is a folder with study.json; got {str(folder)!r}: see `autotune studies`")
        lock = _lock(folder)
        with _given_back_on_error(lock):
            return cls(folder, lock, read)

    def close(self) -> None:
        """Release the study. Safe to call twice."""
        self._log.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    def revise(self, document: SpaceDocument, *, corpus: str, budget_seconds: float) -> None:
        """Change plan, prices or budget; no measurement depends on them.

        Stages that ended early are reopened, unless a later stage has already used their results.
        """
        space = replace(space_of(document, self._read_workload), budget_seconds=budget_seconds)
        before = (self.space.plan, self.info.budget_seconds)
        self.info = replace(
            self.info, corpus=corpus, corpus_as_written=written_corpus(document), budget_seconds=budget_seconds
        )
        write_atomically(self.folder / "space.toml", document.text)
        write_atomically(self.folder / "study.json", json.dumps(to_json(self.info), indent=1) + "\n")
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
                until = mark.finished_seconds if mark.finished else self.elapsed_seconds
                earlier = mark.earlier_seconds + until - mark.started_seconds
                self.mark(stage, StageMark(started_seconds=until, deadline_seconds=None, earlier_seconds=earlier))

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
                return spec
        self._next_number += 1
        write_atomically(self.folder / "next_trial.json", f"{self._next_number}\n")
        folder = self.trial_folder(wanted.number)
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "spec.json", json.dumps(to_json(wanted), indent=1) + "\n")
        self._specs[wanted.number] = wanted
        return wanted

    def ordered(self, stage: Stage) -> tuple[TrialSpec, ...]:
        """All trials ordered so far in one stage, acknowledged or not, by number."""
        return tuple(self._specs[n] for n in sorted(self._specs) if self._specs[n].stage is stage)

    def result_of(self, spec: TrialSpec) -> TrialRecord | None:
        """The acknowledged record of `spec`, if any."""
        return self._records.get(spec.number)

    def acknowledge(self, record: TrialRecord) -> None:
        """Store a finished trial. From here on it counts, even after a crash."""
        path = self.trial_folder(record.spec.number) / "result.json"
        write_atomically(path, json.dumps(to_json(record)) + "\n")
        self._records[record.spec.number] = record

    def _complete(self, spec: TrialSpec) -> TrialSpec:
        return replace(spec, config=self.space.completed(spec.config))

    def _completed(self, record: TrialRecord) -> TrialRecord:
        """The record with the baseline's value for every knob added since it was written."""
        return replace(record, spec=self._complete(record.spec))

    def trial_folder(self, number: int) -> Path:
        """The folder of trial `number`."""
        return self.folder / "trials" / f"{number:04d}"

    @property
    def database(self) -> Path:
        """The Optuna database of this study."""
        return self.folder / "study.db"

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
        plain = {name: to_json(m) for name, m in self._stages.items()}
        write_atomically(self.folder / "stages.json", json.dumps(plain, indent=1) + "\n")

    def note_elapsed(self, seconds: float) -> None:
        """Store the search time so far, over all sittings."""
        self.elapsed_seconds = seconds
        write_atomically(self.folder / "elapsed.json", f"{seconds:.3f}\n")

    def keep_machine(self, machine: Machine) -> Machine:
        """`machine` with the limits found when the study began, which hold for the whole study. Stores the first one.

        Raises:
            StoreDamaged: the stored machine cannot be read.
        """
        kept = self.machine
        if kept is not None:
            return replace(machine, limits=kept.limits)
        write_atomically(self.folder / "machine.json", json.dumps(to_json(machine), indent=1) + "\n")
        return machine

    @property
    def machine(self) -> Machine | None:
        """The machine as examined when the study began; None before."""
        path = self.folder / "machine.json"
        return read_as(Machine, path) if path.exists() else None

    def keep_baseline_log(self, log: RunLog) -> None:
        """Store the log of a run of the plan with the baseline, in place of one stored before."""
        write_atomically(self.folder / "baseline_log.json", json.dumps(to_json(log)) + "\n")

    @property
    def baseline_log(self) -> RunLog | None:
        """The log of a run of the plan with the baseline, if the user gave one."""
        path = self.folder / "baseline_log.json"
        return read_as(RunLog, path) if path.exists() else None

    def log(self, event: Event) -> None:
        """Append to the decision log."""
        self._log.write(json.dumps(to_json(event), allow_nan=False) + "\n")
        self._log.flush()


def _lock(folder: Path) -> IO[str]:
    file = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StudyBusy(
            f"only one process may own a study; {folder.name!r} is owned by process {owner}: wait for it or stop it"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


@contextlib.contextmanager
def _given_back_on_error(lock: IO[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lock.close()
        raise


def written_corpus(document: SpaceDocument) -> str:
    """The corpus as the space file spells it; empty if it names none."""
    return str(document.tables.get("workload", {}).get("corpus", ""))


def _read_info(folder: Path) -> StudyInfo:
    plain = read_json(folder / "study.json")
    found = plain.get("format") if isinstance(plain, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise BadInput(
            f"this version resumes studies of format {FORMAT}; got format {found} in {folder.name!r}, of another "
            "version: it can be read (`autotune report`); to search again, use its space.toml under a new name"
        )
    return decode(StudyInfo, plain, folder / "study.json")


def _read_space(folder: Path, info: StudyInfo, read: Read) -> SearchSpace:
    path = folder / "space.toml"
    try:
        document = parse_document(
            path.read_text(encoding="utf-8"), name=info.space_name, source=str(path), folder=folder
        )
    except (OSError, UnicodeDecodeError) as error:
        raise StoreDamaged(f"a study needs its space file; {path} cannot be read ({error}): restore it") from None
    space = replace(space_of(document, read), budget_seconds=info.budget_seconds)
    if written_corpus(document) != info.corpus_as_written:
        return space  # edited since, so an earlier --data no longer applies
    return space.with_corpus(info.corpus)


def _read_stages(path: Path) -> dict[str, StageMark]:
    plain = read_json(path) if path.exists() else {}
    if not isinstance(plain, dict):
        raise misshapen(path, "it must be an object")
    return {name: decode(StageMark, mark, path) for name, mark in plain.items()}
