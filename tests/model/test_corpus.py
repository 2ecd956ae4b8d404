"""Surveying a corpus: what is text, what is left out and why, and what identifies it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from autotune_model.config import InvalidConfiguration
from autotune_model.corpus import find_source
from autotune_model.left_out import Reason


def documents(corpus: Path | str) -> list[str]:
    source = find_source(str(corpus), "text")
    texts = [b"".join(document).decode() for document in source.documents(source.survey().paths)]
    return [text for text in texts if text and not text.isspace()]


def test_folder_is_read_in_order_without_hidden_blank_and_binary_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "2.md").write_text("second")
    (tmp_path / "a.txt").write_text("\ufefffirst", encoding="utf-8")
    (tmp_path / "c.txt").write_text(" \n")
    (tmp_path / "d.txt").write_text("")
    (tmp_path / ".git" / "hidden.txt").write_text("hidden")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "old.txt").write_bytes("café".encode("latin-1"))
    assert documents(tmp_path) == ["first", "second"]
    survey = find_source(str(tmp_path), "text").survey()
    assert (survey.documents, survey.text_bytes) == (2, 11)
    rows = {row.reason: row for row in survey.left_out}
    assert {reason: (row.count, row.bytes) for reason, row in rows.items()} == {
        Reason.BINARY: (1, 6),
        Reason.ENCODING: (1, 4),
        Reason.EMPTY: (2, 2),
        Reason.HIDDEN: (1, 0),
    }
    assert rows[Reason.BINARY].examples == (str(tmp_path / "image.png"),)
    assert {reason for reason, row in rows.items() if row.matters} == {Reason.BINARY, Reason.ENCODING}


def test_a_folder_without_text_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(InvalidConfiguration, match=r"got none in 1 files; for example .*image\.png is binary"):
        find_source(str(tmp_path), "text").survey()


def test_many_files_of_a_kind_are_counted_and_few_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    for number in range(9):
        (tmp_path / f"{number}.bin").write_bytes(b"\0" * 10)
    (row,) = find_source(str(tmp_path), "text").survey().left_out
    assert (row.count, row.bytes, len(row.examples)) == (9, 90, 3)


def test_binary_file_named_by_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\0\1\2")
    with pytest.raises(InvalidConfiguration, match=r"text in regular files; got '.*model\.bin', which is binary"):
        documents(tmp_path / "model.bin")


def test_a_file_that_is_gone_is_counted_or_an_error(tmp_path: Path) -> None:
    for name in ("gone.txt", "there.txt"):
        (tmp_path / name).write_text("x")
    source = find_source(str(tmp_path), "text")
    surveyed = source.survey()
    (tmp_path / "gone.txt").unlink()
    assert [row.reason for row in source.survey().left_out] == [Reason.UNREADABLE]
    with pytest.raises(InvalidConfiguration, match=r"must not change while it is read; got a change in '.*gone\.txt'"):
        list(source.documents(surveyed.paths))


def test_a_bad_line_in_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "fine"}\n{')
    with pytest.raises(InvalidConfiguration, match=r"no JSON in line 2 of '.*rows\.jsonl'"):
        documents(tmp_path)


def test_the_same_text_has_the_same_content_however_it_is_stored(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    (one / "a.txt").write_text("naïve")
    (other / "z.jsonl").write_text(json.dumps({"text": "naïve"}))
    surveys = [find_source(str(folder), "text").survey() for folder in (one, other)]
    assert surveys[0].content_sha256 == surveys[1].content_sha256


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_other_text_of_the_same_size_and_times_is_another_corpus(tmp_path: Path, size: int) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a" * size)
    before, state = find_source(str(path), "text").fingerprint(), path.stat()
    path.write_text("b" * size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert find_source(str(path), "text").fingerprint() != before


def test_the_content_tells_texts_apart_when_no_time_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a" * 1000)
    state = path.stat()
    before = find_source(str(path), "text").fingerprint()
    path.write_text("b" * 1000)
    monkeypatch.setattr(Path, "stat", lambda self, **_: state)
    assert find_source(str(path), "text").fingerprint() != before


def test_what_is_left_out_belongs_to_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    before = find_source(str(tmp_path), "text").fingerprint()
    (tmp_path / "more").symlink_to(tmp_path.parent)
    assert find_source(str(tmp_path), "text").fingerprint() != before
