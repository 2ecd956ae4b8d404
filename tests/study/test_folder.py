"""A study's folder: nothing leads out of it, and every file is the old one or the new one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotune.errors import EnvironmentProblem, StoreDamaged
from autotune.study import folder as module
from autotune.study.folder import Folder, Unreadable

MINE = "mine, and of no concern to a study"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder.make(tmp_path / "study") as made:
        yield made


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file outside the folder."""
    path = tmp_path / "mine.txt"
    path.write_text(MINE)
    return path


def link(name: Path, target: Path) -> None:
    name.symlink_to(target)


def hard_link(name: Path, target: Path) -> None:
    name.hardlink_to(target)


def dangling(name: Path, target: Path) -> None:
    name.symlink_to(target.with_name("made-by-a-link"))


def pipe(name: Path, _target: Path) -> None:
    os.mkfifo(name)


def subfolder(name: Path, _target: Path) -> None:
    name.mkdir()
    (name / "full").write_text("")


STRANGE = [link, hard_link, dangling, pipe, subfolder]


def test_what_is_written_is_read(folder: Folder) -> None:
    assert folder.read("a.json") is None
    folder.write("a.json", "ä\n")
    folder.write("a.json", "b")
    assert folder.read("a.json") == b"b"
    assert folder.names() == ["a.json"]


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_written_takes_the_place_of_anything_and_follows_nothing(
    folder: Folder, mine: Path, strange: Callable[[Path, Path], None]
) -> None:
    strange(folder.path / "a.json", mine)
    folder.write("a.json", "new")
    assert folder.read("a.json") == b"new"
    assert mine.read_text() == MINE
    assert not (mine.parent / "made-by-a-link").exists()


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_appended_to_is_a_file_of_its_own(
    folder: Folder, mine: Path, strange: Callable[[Path, Path], None]
) -> None:
    strange(folder.path / "log.txt", mine)
    log = folder.append("log.txt")
    os.write(log, b"a line\n")
    os.close(log)
    assert folder.read("log.txt") == b"a line\n"
    assert mine.read_text() == MINE
    assert not (mine.parent / "made-by-a-link").exists()
    assert [n.split("-")[0] for n in folder.names()] == ["log.txt", "log.txt.damaged"]


@pytest.mark.parametrize("strange", [link, dangling, pipe, subfolder])
def test_only_regular_files_are_read_and_none_is_waited_for(
    folder: Folder, mine: Path, strange: Callable[[Path, Path], None]
) -> None:
    strange(folder.path / "a.json", mine)
    with pytest.raises(Unreadable, match="it is no regular file"):
        folder.read("a.json")


def test_a_file_of_any_size_is_not_read(folder: Folder) -> None:
    with (folder.path / "a.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(Unreadable, match="it has 1,099,511,627,776 bytes"):
        folder.read("a.json")


@pytest.mark.parametrize("strange", [link, pipe])
def test_a_folder_is_none_that_a_link_leads_to(
    folder: Folder, tmp_path: Path, strange: Callable[[Path, Path], None]
) -> None:
    for place in (tmp_path / "linked", folder.path / "trials"):
        strange(place, tmp_path)
        with pytest.raises(StoreDamaged, match="is a link or no folder"):
            Folder.open(place)
    with pytest.raises(StoreDamaged, match="is a link or no folder"):
        folder.child("trials", make=True)


def test_temporaries_are_swept_and_nothing_else(folder: Folder, mine: Path) -> None:
    for name in (".result.json.4711.tmp", ".result.json.0123456789abcdef.tmp"):
        (folder.path / name).write_text("half")
    link(folder.path / ".elapsed.json.00ff.tmp", mine)
    for name in ("notes.tmp", ".hidden", "result.json"):
        (folder.path / name).write_text("kept")
    folder.sweep()
    assert folder.names() == [".hidden", "notes.tmp", "result.json"]
    assert mine.read_text() == MINE


@pytest.mark.parametrize("call", ["fsync", "write", "rename"])
@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "mend that"), (errno.EIO, "mend that")]
)
def test_a_disk_that_refuses_leaves_the_old_file_and_no_litter(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, call: str, number: int, remedy: str
) -> None:
    folder.write("a.json", "old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, call, refuse)
    with pytest.raises(EnvironmentProblem, match=rf"must be writable; got .* at .*a\.json: {remedy}"):
        folder.write("a.json", "new")
    monkeypatch.undo()
    assert folder.read("a.json") == b"old"
    assert folder.names() == ["a.json"]


def test_a_write_that_the_system_cuts_short_is_completed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    folder.write("a.json", "a longer text")
    assert folder.read("a.json") == b"a longer text"
