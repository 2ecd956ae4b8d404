"""A study on disk: one folder that survives anything and can be taken up again.

reports/<study>/
    study.json   what the study is: format, text, budget, and what its measurements depend on
    space.toml   the exact copy of the space that was asked
    trials/NNNN/ spec.json (ordered), result.json (acknowledged), log.txt (the worker's own output)
    machine.json the machine as it was examined first, and what it cannot run
    stages.json  deadlines of the stages and which are finished
    elapsed.json seconds searched so far, over all sittings
    next_trial.json the number of the next trial: none is given twice, whatever is deleted
    study.db     the same trials for Optuna and its dashboard
    events.jsonl the decision log
    report.*     the recommendation

A trial counts from the moment its `result.json` is in place, and only then. One driver owns a study.
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
from autotune.trial.codec import to_json
from autotune.trial.types import Stage, StageEnd, TrialRecord, TrialSpec
from autotune.workload.gpt import GPTWorkload
from autotune.workload.machine import Machine
from autotune.workload.space import Read, SearchSpace, space_of

FORMAT = 3
_LONGEST_NAME = 60  # characters: a file system takes 255 bytes
_NAME_RULE = (
    f"a study's name is at most {_LONGEST_NAME} letters, digits, '.', '_' and '-', and starts with none of '.-'"
)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """One clause for every key in which two identities differ, with both values whole."""
    return tuple(
        f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """What a study is. Its name is that of its folder, so that it may be moved and renamed.

    `corpus` is the text that is trained on, `corpus_as_written` what its copy of the space says of it (`--data` may
    override that). `identity` is by key all that its measurements depend on: model, text, code and hardware, but
    neither plan nor prices nor budget. `warm_start` are configurations of the study it was forked from, best first.
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
    """Where a stage stands, on the study's own clock (seconds of search over all sittings).

    It has no deadline where it is to be allotted time once more; `earlier_seconds` is what it took before that.
    `reason` is why it is finished.
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
    """`name` itself where it can name a study.

    Raises:
        BadInput: it cannot.
    """
    is_legal = 0 < len(name) <= _LONGEST_NAME and name[0] not in ".-" and all(c.isalnum() or c in "._-" for c in name)
    if not is_legal:
        raise BadInput(f"{_NAME_RULE}; got {name!r}: try 'my-study'")
    return name


class Study:
    """An open study, locked for this process. A context manager: leaving it gives the lock back."""

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
    def create(cls, folder: Path, info: StudyInfo, space_text: str, read: Read = GPTWorkload.read) -> Self:
        """Make a new study; nothing is left behind where that fails. `read` makes the workload of its space.

        Raises:
            BadInput: there is a study of this name already, or the space cannot be searched.
            StudyBusy: another driver is just making it.
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
    def open(cls, folder: Path, read: Read = GPTWorkload.read) -> Self:
        """Open a study that exists. `read` makes the workload of its space.

        Raises:
            BadInput: there is none, or an earlier version made it.
            StudyBusy: another driver owns it.
            StoreDamaged: a file of it cannot be read back.
        """
        if not (folder / "study.json").exists():
            raise BadInput(f"a study is a folder with study.json; got {str(folder)!r}: see `autotune studies`")
        lock = _lock(folder)
        with _given_back_on_error(lock):
            return cls(folder, lock, read)

    def close(self) -> None:
        """Give the study back. Safe to call twice."""
        self._log.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.folder.name

    def revise(self, document: SpaceDocument, *, corpus: str, budget_seconds: float) -> None:
        """Ask the study's question with another plan, other prices or another budget: no measurement depends on them.

        What ended for lack of either is taken up again where nothing was built on its end.
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
        """Take up again the stages that ended early, so far as no later stage has measured what came of them."""
        measured = [stage for stage in Stage if self.ordered(stage)]
        early = (StageEnd.BUDGET, StageEnd.NOT_WORTH_IT)
        first = next(
            (
                stage
                for stage in Stage
                if (mark := self.stage(stage))
                and mark.reason in early
                and all(list(Stage).index(later) <= list(Stage).index(stage) for later in measured)
            ),
            None,
        )
        for stage in Stage:
            mark = self.stage(stage)
            is_later = first is not None and list(Stage).index(stage) >= list(Stage).index(first)
            if mark and (is_later or not mark.finished):
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
        """The spec of this trial: the one ordered before a crash if there was one, else a new one, kept on disk."""
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
        """The acknowledged record of `spec`, if there is one."""
        return self._records.get(spec.number)

    def acknowledge(self, record: TrialRecord) -> None:
        """Keep a finished trial: from here on it counts, whatever happens."""
        path = self.trial_folder(record.spec.number) / "result.json"
        write_atomically(path, json.dumps(to_json(record)) + "\n")
        self._records[record.spec.number] = record

    def _complete(self, spec: TrialSpec) -> TrialSpec:
        return replace(spec, config=self.space.completed(spec.config))

    def _completed(self, record: TrialRecord) -> TrialRecord:
        """With a value for every knob that is younger than the record."""
        return replace(record, spec=self._complete(record.spec))

    def trial_folder(self, number: int) -> Path:
        """Where trial `number` keeps its files."""
        return self.folder / "trials" / f"{number:04d}"

    @property
    def database(self) -> Path:
        """The Optuna database of this study."""
        return self.folder / "study.db"

    # -- stages, clock and log -------------------------------------------------------------------

    def stage(self, stage: Stage) -> StageMark | None:
        """Where `stage` stands, or None before it starts."""
        return self._stages.get(stage.value)

    @property
    def is_finished(self) -> bool:
        """Whether all stages were run to their ends: nothing more will be measured."""
        return all((mark := self.stage(stage)) is not None and mark.finished for stage in Stage)

    @property
    def search_seconds(self) -> float:
        """What the search took up to the end of its last finished stage; reading a study adds nothing to it."""
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
        """Keep where `stage` stands."""
        self._stages[stage.value] = mark
        plain = {name: to_json(m) for name, m in self._stages.items()}
        write_atomically(self.folder / "stages.json", json.dumps(plain, indent=1) + "\n")

    def note_elapsed(self, seconds: float) -> None:
        """Keep how long the study has been searched, all sittings together."""
        self.elapsed_seconds = seconds
        write_atomically(self.folder / "elapsed.json", f"{seconds:.3f}\n")

    def keep_machine(self, machine: Machine) -> Machine:
        """`machine` with what the study's own was found to lack when the study began, which holds for all of it.

        Raises:
            StoreDamaged: what was kept cannot be read.
        """
        kept = self.machine
        if kept is not None:
            return replace(machine, limits=kept.limits)
        write_atomically(self.folder / "machine.json", json.dumps(to_json(machine), indent=1) + "\n")
        return machine

    @property
    def machine(self) -> Machine | None:
        """The machine as it was examined when the study began; None before."""
        path = self.folder / "machine.json"
        return read_as(Machine, path) if path.exists() else None

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
            f"one driver owns a study; {folder.name!r} is owned by process {owner}: wait for it or stop it"
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
    """The text that a space names, as it is written there; empty where it names none."""
    return str(document.tables.get("workload", {}).get("corpus", ""))


def _read_info(folder: Path) -> StudyInfo:
    plain = read_json(folder / "study.json")
    found = plain.get("format") if isinstance(plain, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise BadInput(
            f"this version goes on with studies of format {FORMAT}; got format {found} in {folder.name!r}, of another "
            "version: it can be read (`autotune report`), and its space.toml searched under a new name"
        )
    return decode(StudyInfo, plain, folder / "study.json")


def _read_space(folder: Path, info: StudyInfo, read: Read) -> SearchSpace:
    path = folder / "space.toml"
    try:
        document = parse_document(
            path.read_text(encoding="utf-8"), name=info.space_name, source=str(path), folder=folder
        )
    except (OSError, UnicodeDecodeError) as error:
        raise StoreDamaged(f"a study keeps its space; {path} cannot be read ({error}): restore it") from None
    space = replace(space_of(document, read), budget_seconds=info.budget_seconds)
    if written_corpus(document) != info.corpus_as_written:
        return space  # edited since: it is not what --data once stood for
    return space.with_corpus(info.corpus)


def _read_stages(path: Path) -> dict[str, StageMark]:
    plain = read_json(path) if path.exists() else {}
    if not isinstance(plain, dict):
        raise misshapen(path, "it must be an object")
    return {name: decode(StageMark, mark, path) for name, mark in plain.items()}
