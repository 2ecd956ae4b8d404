"""A study on disk: one folder that survives anything and can be taken up again.

reports/<study>/
    study.json   what the study is: format, corpus, budget, fingerprint
    space.toml   the exact copy of the space that was asked
    trials/NNNN/ spec.json (ordered), result.json (acknowledged), log.txt (the worker's own output)
    limits.json  values of knobs that this machine cannot run, with the reasons
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
import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from autotune_model.config import TrainingConfig

from autotune.errors import BadInput, StoreDamaged, StudyBusy
from autotune.files import write_atomically
from autotune.space.limits import Limits
from autotune.space.load import parse_space
from autotune.space.space import SearchSpace
from autotune.study.events import Event
from autotune.trial.codec import from_json, to_json
from autotune.trial.types import Stage, TrialRecord, TrialSpec

T = TypeVar("T")

FORMAT = 2
_LONGEST_NAME = 60  # characters: a file system takes 255 bytes
_NAME_RULE = (
    f"a study's name is at most {_LONGEST_NAME} letters, digits, '.', '_' and '-', and starts with none of '.-'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a study's measurements depend on; a study goes on only where all of it is as it was."""

    space: str
    data: str
    code: str
    hardware: str

    def differences(self, now: Fingerprint) -> tuple[str, ...]:
        """One line for every part in which `now` differs."""
        return tuple(
            f"{f.name} was {getattr(self, f.name)[:80]}, is {getattr(now, f.name)[:80]}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != getattr(now, f.name)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """What a study is.

    `corpus` is the one that is trained on, `corpus_in_space` what its copy of the space says (`--data`
    may override it). `warm_start` are configurations of the study it was forked from, best first.
    """

    format: int
    name: str
    created_at: str
    space_name: str
    corpus: str
    budget_seconds: float
    fingerprint: Fingerprint
    corpus_in_space: str = ""
    forked_from: str = ""
    warm_start: tuple[TrainingConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMark:
    """Where a stage stands, on the study's own clock (seconds of search over all sittings)."""

    started_seconds: float
    deadline_seconds: float
    finished: bool = False
    finished_seconds: float = 0.0
    reason: str = ""


def check_name(name: str) -> str:
    """`name` itself where it can name a study.

    Raises:
        BadInput: it cannot.
    """
    is_legal = 0 < len(name) <= _LONGEST_NAME and name[0] not in ".-" and all(c.isalnum() or c in "._-" for c in name)
    if not is_legal:
        raise BadInput(f"{_NAME_RULE}; got {name!r}: try 'my-study'")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeptLimits:
    limits: Limits


class Study:
    """An open study, locked for this process. A context manager: leaving it gives the lock back."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        """Read the study in `folder`; use `Study.open` or `Study.create`."""
        self.folder = folder
        self._lock = lock
        self.info: StudyInfo = _read(StudyInfo, folder / "study.json")
        if self.info.format != FORMAT:
            raise StoreDamaged(
                f"this version reads studies of format {FORMAT}; got {self.info.format} in {folder}: "
                "use the version that made it"
            )
        self.space = _read_space(folder, self.info)
        self._records = {r.spec.number: r for r in _read_all(TrialRecord, folder, "result.json")}
        self._specs = {s.number: s for s in _read_all(TrialSpec, folder, "spec.json")}
        self._stages = _read_stages(folder / "stages.json")
        self._next_number = max(int(_read_number(folder / "next_trial.json")), max(self._specs, default=-1) + 1)
        self.elapsed_seconds = max(_read_number(folder / "elapsed.json"), _last_elapsed(folder / "events.jsonl"))
        self._log = _open_log(folder / "events.jsonl")

    @classmethod
    def create(cls, folder: Path, info: StudyInfo, space_text: str) -> Self:
        """Make a new study; nothing is left behind where that fails.

        Raises:
            BadInput: there is a study of this name already, or the space cannot be searched.
            StudyBusy: another driver is just making it.
        """
        check_name(info.name)
        parsed = parse_space(space_text, name=info.space_name, source=info.space_name, folder=folder)
        info = replace(info, corpus_in_space=parsed.workload.data.corpus)
        if (folder / "study.json").exists():
            raise BadInput(f"a new study needs a new name; got {info.name!r}, which exists: choose another --study")
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        with _given_back_on_error(lock):
            write_atomically(folder / "space.toml", space_text)
            write_atomically(folder / "study.json", json.dumps(to_json(info), indent=1) + "\n")
            return cls(folder, lock)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a study that exists.

        Raises:
            BadInput: there is none.
            StudyBusy: another driver owns it.
            StoreDamaged: a file of it cannot be read back.
        """
        if not (folder / "study.json").exists():
            raise BadInput(f"a study is a folder with study.json; got {str(folder)!r}: see `autotune studies`")
        lock = _lock(folder)
        with _given_back_on_error(lock):
            return cls(folder, lock)

    def close(self) -> None:
        """Give the study back. Safe to call twice."""
        self._log.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- trials ----------------------------------------------------------------------------------

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All acknowledged trials, by number."""
        return tuple(self._records[n] for n in sorted(self._records))

    def of_stage(self, stage: Stage) -> tuple[TrialRecord, ...]:
        """The acknowledged trials of one stage, by number."""
        return tuple(r for r in self.records if r.spec.stage is stage)

    def order(
        self, *, stage: Stage, label: str, config: TrainingConfig, seed: int, horizon_tokens: int, block: int
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
        return all(stage.value in self._stages and self._stages[stage.value].finished for stage in Stage)

    @property
    def search_seconds(self) -> float:
        """What the search took up to the end of its last finished stage; reading a study adds nothing to it."""
        return max((m.finished_seconds for m in self._stages.values() if m.finished), default=0.0)

    @property
    def seconds_by_stage(self) -> dict[str, float]:
        """How long each finished stage took, on the study's clock."""
        return {name: m.finished_seconds - m.started_seconds for name, m in self._stages.items() if m.finished}

    def mark(self, stage: Stage, mark: StageMark) -> None:
        """Keep where `stage` stands."""
        self._stages[stage.value] = mark
        plain = {name: to_json(m) for name, m in self._stages.items()}
        write_atomically(self.folder / "stages.json", json.dumps(plain, indent=1) + "\n")

    def note_elapsed(self, seconds: float) -> None:
        """Keep how long the study has been searched, all sittings together."""
        self.elapsed_seconds = seconds
        write_atomically(self.folder / "elapsed.json", f"{seconds:.3f}\n")

    def keep_limits(self, limits: Limits) -> Limits:
        """What the machine was found to lack when the study began, which holds for all of it: `limits`, if it begins.

        A study from before such findings were kept has none.

        Raises:
            StoreDamaged: what was kept cannot be read.
        """
        path = self.folder / "limits.json"
        if path.exists():
            return _read(_KeptLimits, path).limits
        if self._specs:
            return {}
        write_atomically(path, json.dumps(to_json(_KeptLimits(limits=limits)), indent=1) + "\n")
        return limits

    def log(self, event: Event) -> None:
        """Append to the decision log."""
        self._log.write(json.dumps(to_json(event), allow_nan=False) + "\n")
        self._log.flush()


def studies(root: Path) -> Iterator[tuple[Path, StudyInfo | None]]:
    """Every study under `root`, by name, and what it is, None where that is damaged; none is locked or changed."""
    for path in sorted(root.glob("*/study.json")):
        try:
            yield path.parent, _read(StudyInfo, path)
        except StoreDamaged:
            yield path.parent, None


def read_records(folder: Path) -> tuple[TrialRecord, ...]:
    """The acknowledged trials of the study in `folder`, by number; the study is not locked."""
    return tuple(sorted(_read_all(TrialRecord, folder, "result.json"), key=lambda r: r.spec.number))


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


def _read_space(folder: Path, info: StudyInfo) -> SearchSpace:
    path = folder / "space.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreDamaged(f"a study keeps its space; {path} cannot be read ({error}): restore it") from None
    space = parse_space(text, name=info.space_name, source=str(path), folder=folder)
    if space.workload.data.corpus != info.corpus_in_space:  # edited since: not what --data once stood for
        return replace(space, budget_seconds=info.budget_seconds)
    data = replace(space.workload.data, corpus=info.corpus)
    return replace(space, workload=replace(space.workload, data=data), budget_seconds=info.budget_seconds)


def _open_log(path: Path) -> IO[str]:
    """The decision log, ready to append; a line torn by a crash is cut off first."""
    if path.exists():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end != len(whole):
            with path.open("r+b") as file:
                file.truncate(end)
    return path.open("a", encoding="utf-8")


def _last_elapsed(path: Path) -> float:
    """The study's clock at the last event, which may be later than what was last noted; 0 where that cannot be told."""
    if not path.exists():
        return 0.0
    for line in reversed(path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):  # torn by a crash: the one before will do
            return float(json.loads(line)["elapsed_seconds"])
    return 0.0


def _read_all(kind: type[T], folder: Path, name: str) -> list[T]:
    found = []
    for path in sorted((folder / "trials").glob(f"*/{name}")):
        value = _read(kind, path)
        spec = value.spec if isinstance(value, TrialRecord) else value
        if isinstance(spec, TrialSpec) and path.parent.name != f"{spec.number:04d}":
            raise _misshapen(path, f"it is trial {spec.number}")
        found.append(value)
    return found


def _read_stages(path: Path) -> dict[str, StageMark]:
    plain = _json(path) if path.exists() else {}
    if not isinstance(plain, dict):
        raise _misshapen(path, "it must be an object")
    return {name: _decode(StageMark, mark, path) for name, mark in plain.items()}


def _read_number(path: Path) -> float:
    """The number that the file holds, or 0 before there is one."""
    plain = _json(path) if path.exists() else 0.0
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not 0 <= plain < math.inf:
        raise _misshapen(path, "it must be a number, 0 or more")
    return float(plain)


def _read(kind: type[T], path: Path) -> T:
    return _decode(kind, _json(path), path)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreDamaged(f"a study's files are JSON; {path} is not ({error}): {_remedy(path)}") from None


def _decode(kind: type[T], plain: Any, path: Path) -> T:
    try:
        return from_json(kind, plain)
    except ValueError as error:
        raise _misshapen(path, error) from None


def _misshapen(path: Path, why: object) -> StoreDamaged:
    return StoreDamaged(f"a study's files keep their form; {path} does not ({why}): {_remedy(path)}")


def _remedy(path: Path) -> str:
    if path.name in ("result.json", "spec.json"):
        return f"delete {path.parent} and resume; what it measured is measured again where it is needed"
    return "restore it from a copy, or start a new study"
