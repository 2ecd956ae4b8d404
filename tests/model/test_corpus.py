from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_model.config import InvalidConfiguration
from autotune_model.corpus import find_source, hold_out


def documents(corpus: Path | str) -> list[str]:
    return list(find_source(str(corpus), "text").documents())


def test_folder_is_read_in_order_without_hidden_blank_and_binary_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "2.md").write_text("second")
    (tmp_path / "a.txt").write_text("\ufefffirst", encoding="utf-8")
    (tmp_path / "c.txt").write_text(" \n")
    (tmp_path / ".git" / "hidden.txt").write_text("hidden")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "old.txt").write_bytes("café".encode("latin-1"))
    assert documents(tmp_path) == ["first", "second"]
    reported = capsys.readouterr().err
    assert "image.png" in reported
    assert "old.txt" in reported


def test_glob_takes_what_it_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert documents(tmp_path / "*.txt") == ["a.txt", "b.txt"]


def test_jsonl_has_a_document_a_line(tmp_path: Path) -> None:
    rows = [{"text": "one\nline"}, {"text": "half a pair: \ud83d"}, {"text": " "}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert documents(tmp_path / "rows.jsonl") == ["one\nline", "half a pair: ?"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [('{"body": "x", "id": 1}', "fields body, id"), ("{", "no JSON"), ("[1]", "a list"), ('{"text": 3}', "a int")],
)
def test_bad_line_of_jsonl_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(InvalidConfiguration, match=rf"field 'text'; got {problem}.* in line 2 of .*rows\.jsonl"):
        documents(path)


def test_binary_file_named_by_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\0\1\2")
    with pytest.raises(InvalidConfiguration, match=r"UTF-8 text; got '.*model\.bin'"):
        documents(tmp_path / "model.bin")


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text("x")
    source = find_source(str(tmp_path), "text")
    (tmp_path / "gone.txt").unlink()
    with pytest.raises(InvalidConfiguration, match=r"readable; got '.*gone\.txt' \(No such file"):
        list(source.documents())


def test_a_path_without_files_is_an_error(tmp_path: Path) -> None:
    for corpus in (tmp_path, tmp_path / "nothing.txt", tmp_path / "*.txt"):
        with pytest.raises(InvalidConfiguration, match="where no file is"):
            find_source(str(corpus), "text")


def test_standard_library_is_sources_without_tests() -> None:
    files = find_source("stdlib", "text").files
    assert len(files) > 300
    assert {file.suffix for file in files} == {".py"}
    assert not any({"test", "tests", "site-packages"} & set(file.parts) for file in files)


@given(st.text(alphabet="ab \n", min_size=1, max_size=2000).filter(lambda text: not text.isspace()))
def test_pieces_of_a_single_document_are_the_document(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "single.txt"
    path.write_text(text)
    pieces = documents(path)
    assert "".join(pieces) == text
    assert len(pieces) <= 100


def test_single_document_is_cut_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {number} of this book\n" for number in range(3000)))
    pieces = documents(path)
    assert 80 <= len(pieces) <= 100
    assert all(piece.endswith("\n") for piece in pieces)


corpora = st.dictionaries(st.binary(min_size=2, max_size=4), st.integers(1, 10_000), min_size=2, max_size=60)


@given(corpora, st.floats(0.01, 0.5), st.randoms(use_true_random=False))
def test_split_leaves_both_sides_text_and_ignores_order(
    sizes: dict[bytes, int], fraction: float, order: object
) -> None:
    held = hold_out(sizes, fraction)
    assert held
    assert held < set(sizes)
    rows = list(sizes.items())
    order.shuffle(rows)  # type: ignore[attr-defined]
    assert hold_out(dict(rows), fraction) == held


@given(corpora, st.floats(0.01, 0.5))
def test_split_holds_out_no_more_than_asked_if_it_can(sizes: dict[bytes, int], fraction: float) -> None:
    held = hold_out(sizes, fraction)
    total = sum(sizes[digest] for digest in held)
    assert total <= fraction * sum(sizes.values()) or total == min(sizes.values())


def test_split_of_many_documents_comes_close_to_the_fraction() -> None:
    sizes = {number.to_bytes(2, "big"): 100 + number % 7 for number in range(1000)}
    held = sum(sizes[digest] for digest in hold_out(sizes, 0.1))
    assert held == pytest.approx(0.1 * sum(sizes.values()), rel=0.02)


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(InvalidConfiguration, match="two different documents"):
        hold_out({b"only": 10}, 0.1)
