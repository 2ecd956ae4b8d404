"""`study.db`: an ordinary Optuna database with a study per stage, for Optuna's dashboard.

It is a view of the results and never read by the search. What is wrong with it costs the search nothing: one that
cannot be used is set aside and written anew, and one that another program holds is brought up to date later.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import optuna

from autotune.analysis.rates import PairedSpeed, paired_speed
from autotune.errors import AutotuneError
from autotune.space.knobs import Choice, Domain, FloatRange, IntRange
from autotune.study.events import Event, SittingFinished, TrialFinished
from autotune.study.store import Study
from autotune.trial.types import Completed, Pruned, TrialRecord, outcome_kind
from autotune.workload.space import SearchSpace

_NAME = "study.db"
_PARTS = (_NAME, f"{_NAME}-wal", f"{_NAME}-shm", f"{_NAME}-journal")
_LOCK_SECONDS = 2.0  # how long another program may hold the database
_POOR_SCORE = -5.0  # log-ratio of what cannot be used, for want of a value
_TRIAL = "trial"  # user attribute: the number of our trial


class _Trouble(Enum):
    """What is wrong with the database."""

    BUSY = auto()
    NO_ROOM = auto()
    UNUSABLE = auto()


class Dashboard:
    """Keeps `study.db` in step with the results of a study. A listener of its events, and open for one sitting."""

    def __init__(self, study: Study, tell: Callable[[str], None]) -> None:
        """Opens nothing yet. `tell` is called with a sentence for whatever is wrong with the database."""
        self._study = study
        self._tell = tell
        self._shown: set[int] = set()
        self._is_given_up = False
        self._is_busy = False
        self._open = contextlib.ExitStack()
        self._storage: optuna.storages.BaseStorage | None = None

    def __call__(self, event: Event) -> None:
        """Show what there is to show after `event`."""
        if isinstance(event.what, TrialFinished | SittingFinished) and not self._is_given_up:
            self._catch_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._is_busy:  # the other program may be gone
            self._catch_up()
        self._close()

    def _catch_up(self) -> None:
        """Show the results that are not shown yet; a database that cannot be used is set aside, once."""
        for is_last in (False, True):
            records = [r for r in self._study.records if r.spec.number not in self._shown]
            if not records and self._storage is not None:
                return
            try:
                mirror(self._opened(), self._study.space, records)
                self._shown.update(r.spec.number for r in records)
                return
            except Exception as error:  # Optuna and SQLAlchemy raise anything over a foreign table; this is only a view
                self._close()
                if not self._recover(error, is_last=is_last):
                    self._is_given_up = True
                    return

    def _recover(self, error: Exception, *, is_last: bool) -> bool:
        """Whether to try again, after saying what is wrong."""
        reason = " ".join(str(_cause(error)).split())[:200] or type(error).__name__
        later = f"`autotune resume {self._study.name}` brings it up to date"
        match _trouble(error):
            case _Trouble.BUSY if self._is_busy:
                pass  # said before
            case _Trouble.BUSY:
                self._is_busy = True
                self._tell(f"{_NAME} is held by another program: the search goes on without it; {later}")
            case _Trouble.NO_ROOM:
                self._tell(f"{_NAME} cannot be written ({reason}): the search goes on without it; {later}")
            case _Trouble.UNUSABLE if is_last:
                self._tell(f"{_NAME} cannot be used ({reason}): the search goes on without it")
            case _Trouble.UNUSABLE:
                with contextlib.suppress(AutotuneError):  # a folder that cannot be written to: then not at all
                    aside = self._set_aside()
                    self._tell(f"{_NAME} could not be used ({reason}): set aside as {aside}, and written anew")
                    self._shown.clear()
                    return True
                self._tell(f"{_NAME} cannot be used ({reason}): the search goes on without it")
        return False

    def _set_aside(self) -> str:
        files = self._study.files
        asides = [files.set_aside(part) for part in _PARTS if files.has(part)]
        return asides[0] if asides else _NAME

    def _opened(self) -> optuna.storages.BaseStorage:
        if self._storage is None:
            files = self._study.files
            for part in _PARTS:  # SQLite opens by path: nothing may lead it out of the folder
                if files.has(part) and not files.is_own_file(part):
                    raise sqlite3.DatabaseError(f"{part} is no regular file of its own")
            self._storage = self._open.enter_context(database(self._study.folder / _NAME))
        return self._storage

    def _close(self) -> None:
        self._storage = None
        with contextlib.suppress(Exception):  # closing what is broken; the next sitting finds out
            self._open.close()


@contextlib.contextmanager
def database(path: Path) -> Iterator[optuna.storages.BaseStorage]:
    """The Optuna database at `path`, created if needed and closed on exit."""
    # Optuna would fill in braces of a path in its URL.
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{path.name}", engine_kwargs={"creator": functools.partial(_connect, path)}
    )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _connect(path: Path) -> sqlite3.Connection:
    """Connect with write-ahead logging, which syncs occasionally instead of at each of Optuna's many commits.

    The database survives a killed process. A power cut may lose its latest trials, which `result.json` still has.
    """
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _trouble(error: BaseException) -> _Trouble:
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        match (getattr(cause, "sqlite_errorcode", 0) or 0) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return _Trouble.BUSY
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
                return _Trouble.NO_ROOM
    return _Trouble.NO_ROOM if isinstance(cause, OSError | AutotuneError) else _Trouble.UNUSABLE


def _cause(error: BaseException) -> BaseException:
    """The error of SQLite or the system that the libraries wrapped, else the error itself."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        if isinstance(link, sqlite3.Error | OSError):
            return link
        seen.append(link)
        link = link.__cause__ or link.__context__
    return error


def mirror(storage: optuna.storages.BaseStorage, space: SearchSpace, records: Sequence[TrialRecord]) -> None:
    """Copy trials into the storage, each once, so that dashboards show them.

    Their value is the log-ratio of speed over the session they were paired with, if known.
    """
    for stage, of_stage in groupby(sorted(records, key=lambda r: r.spec.stage), key=lambda r: r.spec.stage):
        study = optuna.create_study(study_name=stage.value, storage=storage, direction="maximize", load_if_exists=True)
        present = {t.user_attrs.get(_TRIAL) for t in study.get_trials(deepcopy=False)}
        for record in of_stage:
            if record.spec.number not in present:
                study.add_trial(_shown(record, space))


def _shown(record: TrialRecord, space: SearchSpace) -> optuna.trial.FrozenTrial:
    speed = paired_speed(record.slices, record.reference_slices)
    return optuna.trial.create_trial(
        value=speed.centre if isinstance(speed, PairedSpeed) else 0.0 if record.is_complete else _POOR_SCORE,
        params=dict(record.spec.config),
        distributions={name: _everything(knob.domain) for name, knob in space.workload.knobs.items()},
        constraints={"feasible": 0.0 if isinstance(record.outcome, Completed | Pruned) else 1.0},
        user_attrs={
            _TRIAL: record.spec.number,
            "label": record.spec.label,
            "outcome": outcome_kind(record.outcome),
        },
    )


def _everything(domain: Domain) -> optuna.distributions.BaseDistribution:
    """All legal values of a knob: Optuna needs one domain for all trials of a study."""
    match domain:
        case Choice(values=values):
            return optuna.distributions.CategoricalDistribution(values)
        case IntRange(low=low, high=high):
            return optuna.distributions.IntDistribution(low, high)
        case FloatRange(low=flow, high=fhigh):
            return optuna.distributions.FloatDistribution(flow, fhigh)
