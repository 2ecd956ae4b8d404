"""Finding files: a folder may hold anything, and nothing in it hangs or ends a search."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from autotune_model.config import InvalidConfiguration
from autotune_model.files import find_files
from autotune_model.left_out import Reason


def names(corpus: Path | str) -> list[str]:
    return [path.name for path in find_files(str(corpus)).paths]


def reasons(corpus: Path | str) -> dict[Reason, int]:
    return {row.reason: row.count for row in find_files(str(corpus)).left_out}


def test_a_folder_of_everything_gives_its_regular_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    for name in ("a.txt", "b.txt"):
        Path(name).write_text(name)
    Path("empty.txt").touch()
    Path(".hidden").write_text("hidden")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        Path("null").symlink_to("/dev/null")
        Path("linked.txt").symlink_to("a.txt")
        Path("gone").symlink_to("nowhere")
        Path("self").symlink_to("self")
        Path("around").symlink_to(".")
        Path("below").mkdir()
        Path("below", "up").symlink_to("..")
        assert names(tmp_path) == ["a.txt", "b.txt", "linked.txt"]
        assert reasons(tmp_path) == {
            Reason.EMPTY: 1,
            Reason.HIDDEN: 1,
            Reason.NOT_REGULAR: 3,
            Reason.BROKEN_LINK: 2,
            Reason.LINKED_FOLDER: 2,
        }


@pytest.mark.parametrize("pattern", ["**/*.txt", "**", "*/../**/*.txt"])
def test_a_glob_ends_however_links_loop(tmp_path: Path, pattern: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(name)
        for number in range(3):
            (tmp_path / name / f"around{number}").symlink_to(tmp_path)
    assert Counter(names(tmp_path / pattern)) >= Counter(["x.txt", "x.txt"])


def test_glob_takes_what_it_names_and_counts_what_is_no_file(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md", ".d.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "e.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "f.txt")
    assert names(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert reasons(tmp_path / "*.txt") == {Reason.BROKEN_LINK: 1, Reason.NOT_REGULAR: 1}
    assert names(tmp_path / ".*.txt") == [".d.txt"]


def test_a_glob_below_a_hidden_folder_is_spelt_out(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "a.txt").write_text("a")
    assert names(tmp_path / ".data" / "*.txt") == ["a.txt"]


def test_a_name_with_the_signs_of_a_glob_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("a")
    found = find_files(str(tmp_path / "a[1].txt"))
    assert found.named
    assert len(found.paths) == 1


def test_a_folder_that_cannot_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refusing(path: Path) -> object:  # root may read everything
        if Path(path).name == "locked":
            raise PermissionError
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(tmp_path) == ["a.txt"]
    (row,) = find_files(str(tmp_path)).left_out
    assert (row.reason, row.unknown_sizes) == (Reason.UNREADABLE, 1)


def test_a_path_that_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    for path, words in (
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path / "gone", "a link to nothing"),
    ):
        with pytest.raises(InvalidConfiguration, match=f"must be text in regular files; got '.*{path.name}'.*{words}"):
            find_files(str(path))


def test_a_path_without_files_is_an_error(tmp_path: Path) -> None:
    for corpus in (tmp_path, tmp_path / "nothing.txt", tmp_path / "*.txt", "no\0path", "x" * 5000 + "*"):
        with pytest.raises(InvalidConfiguration, match=r"where no file is|can be looked at"):
            find_files(str(corpus))


def test_a_folder_of_no_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(InvalidConfiguration, match=r"where no file is, only what is a link to nothing \(.*gone\)"):
        find_files(str(tmp_path))


def test_standard_library_is_sources_without_tests() -> None:
    files = find_files("stdlib").paths
    assert len(files) > 300
    assert {file.suffix for file in files} == {".py"}
    assert not any({"test", "tests", "site-packages"} & set(file.parts) for file in files)
