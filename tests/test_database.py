"""The database is a view: whatever is wrong with it, the search goes on and its answer is the same."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from kept_study import make, order, record_of

from autotune.search import database as module
from autotune.search.database import Dashboard, database
from autotune.study.events import Event, SittingFinished, TrialFinished
from autotune.study.store import Study
from autotune.trial.types import Stage

ENDED = Event(elapsed_seconds=1.0, what=SittingFinished(verdict="keep"))


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """A study with two trials, one of them shown."""
    with make(tmp_path) as made:
        made.acknowledge(record_of(order(made, seed=0)))
        show(made)
        made.acknowledge(record_of(order(made, seed=1)))
        yield made


def show(study: Study) -> list[str]:
    """One sitting of the dashboard; what it said."""
    said: list[str] = []
    with Dashboard(study, said.append) as dashboard:
        dashboard(ENDED)
    return said


def shown(study: Study) -> list[int]:
    with database(study.folder / "study.db") as storage:
        (found,) = optuna.get_all_study_summaries(storage)
        trials = optuna.load_study(study_name=found.study_name, storage=storage).trials
    return [trial.user_attrs["trial"] for trial in trials]


def test_each_result_is_shown_once(study: Study) -> None:
    assert shown(study) == [0]
    assert show(study) == []
    assert shown(study) == [0, 1]
    assert show(study) == []
    assert shown(study) == [0, 1]


def test_a_trial_is_shown_when_it_ends(study: Study) -> None:
    ended = TrialFinished(
        stage=Stage.RACE, number=1, label="", outcome="completed", reason="", throughput_ratio=None, loss=None
    )
    with Dashboard(study, print) as dashboard:
        dashboard(Event(elapsed_seconds=1.0, what=ended))
        assert shown(study) == [0, 1]


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all " * 300)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:] = os.urandom(len(content) - 200)
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.rename(path.parent.parent / "mine.db")
    path.symlink_to(path.parent.parent / "mine.db")


def a_hard_link(path: Path) -> None:
    path.rename(path.parent.parent / "mine.db")
    path.hardlink_to(path.parent.parent / "mine.db")


def of_a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE trials")
        connection.execute("CREATE TABLE trials (mine TEXT)")


@pytest.mark.parametrize(
    "spoil", [garbage, torn, overwritten, a_folder, a_pipe, a_link, a_hard_link, of_a_newer_version, of_another_program]
)
def test_one_that_cannot_be_used_is_set_aside_and_written_anew(study: Study, spoil: Callable[[Path], None]) -> None:
    spoil(study.folder / "study.db")
    (said,) = show(study)
    assert said.startswith("study.db could not be used (")
    assert "set aside as study.db.damaged-" in said
    assert "\n" not in said
    assert shown(study) == [0, 1]
    assert show(study) == []
    mine = study.folder.parent / "mine.db"
    if mine.exists():
        with closing(sqlite3.connect(mine)) as connection:
            assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (1,), "nothing was written to it"


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_one_or_none_is_made(study: Study, content: bytes | None) -> None:
    path = study.folder / "study.db"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert show(study) == []
    assert shown(study) == [0, 1]


def test_one_that_another_program_holds_is_brought_up_to_date_later(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.0)
    with closing(sqlite3.connect(study.folder / "study.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        (said,) = show(study)
        assert said == (
            "study.db is held by another program: the search goes on without it; "
            "`autotune resume mine` brings it up to date"
        )
    assert shown(study) == [0]
    assert show(study) == []
    assert shown(study) == [0, 1]


def test_a_program_that_lets_go_in_time_is_not_missed(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.0)
    said: list[str] = []
    path = study.folder / "study.db"
    with Dashboard(study, said.append) as dashboard, closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        dashboard(ENDED)
    assert len(said) == 1
    assert shown(study) == [0, 1]


def test_a_full_disk_is_said_and_costs_nothing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = module._connect

    def full(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(module, "_connect", full)
    for seed in range(2, 12):
        study.acknowledge(record_of(order(study, seed=seed)))
    (said,) = show(study)
    assert said.startswith("study.db cannot be written (database or disk is full): the search goes on without it")
    monkeypatch.undo()
    assert show(study) == []
    assert shown(study) == [*range(12)]


def test_one_that_stays_unusable_is_given_up(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a table that Optuna cannot read")

    monkeypatch.setattr(module, "mirror", broken)
    said = show(study)
    assert len(said) == 2
    assert said[1] == "study.db cannot be used ('a table that Optuna cannot read'): the search goes on without it"
