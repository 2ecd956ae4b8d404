"""Reading one file: encodings, compression, JSON in three shapes, and what is refused by name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_model import formats
from autotune_model.config import InvalidConfiguration
from autotune_model.formats import documents_of
from autotune_model.left_out import NotText, Reason

TEXT = "the model — naïve, 東京 \U0001f642\n"


def read(path: Path) -> list[str]:
    return [b"".join(document).decode() for document in documents_of(path, "text")]


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path) -> Reason:
    with pytest.raises(NotText) as caught:
        read(path)
    return caught.value.reason


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
def test_whatever_has_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    assert read(written(tmp_path, "a.txt", (mark + TEXT).encode(encoding))) == [TEXT]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("café".encode("latin-1"), Reason.ENCODING),
        (b"fine" * 1_000_000 + b"\xff", Reason.ENCODING),
        (TEXT.encode("utf-16-le"), Reason.BINARY),
        (b"\xff\xfe" + b"\x00\xd8" * 3, Reason.ENCODING),
        (b"\xff\xfea", Reason.ENCODING),
        (b"\x89PNG\0", Reason.BINARY),
        (b"%PDF-1.7 readable", Reason.TABLE),
        (b"PAR1 readable", Reason.TABLE),
        (b"PK\x03\x04 readable", Reason.PACKED),
        (b"\x28\xb5\x2f\xfd readable", Reason.PACKED),
        (b"a.txt".ljust(257, b" ") + b"ustar", Reason.PACKED),
        (gzip.compress(gzip.compress(b"twice")), Reason.BINARY),
        (gzip.compress(b"whole" * 100)[:-12], Reason.DAMAGED),
        (bz2.compress(b"whole" * 100)[:-12], Reason.DAMAGED),
        (lzma.compress(b"whole" * 100)[:-12], Reason.DAMAGED),
        (b"\x1f\x8b" + b"no gzip", Reason.DAMAGED),
    ],
)
def test_what_is_no_text_has_a_reason(tmp_path: Path, content: bytes, reason: Reason) -> None:
    assert refused(written(tmp_path, "a.txt", content)) is reason


@pytest.mark.parametrize(
    "name", ["a.jsonl.zst", "A.ZST", "a.txt.lz4", "a.tar.gz", "a.tgz", "a.zip", "a.parquet", "A.Parquet", "a.arrow.gz"]
)
def test_formats_that_are_not_read_are_refused_by_name(tmp_path: Path, name: str) -> None:
    assert refused(written(tmp_path, name, b"looks like text")) in (Reason.PACKED, Reason.TABLE)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".XZ", ""])
def test_compressed_text_is_read_by_its_content(
    tmp_path: Path, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    twice = compress(TEXT.encode()) + compress(TEXT.encode())
    assert read(written(tmp_path, f"a.txt{suffix}", twice)) == [TEXT * 2]
    rows = "\n".join(json.dumps({"text": text}) for text in ("one", "two")).encode()
    for kind in ("jsonl", "NDJSON", "json"):
        assert read(written(tmp_path, f"a.{kind}{suffix or '.gz'}", compress(rows))) == ["one", "two"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_given_up(
    tmp_path: Path, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_BOMB_BYTES", 1 << 16)
    assert refused(written(tmp_path, "a.txt", compress(b" " * (8 << 20)))) is Reason.BOMB


def test_an_archive_that_asks_for_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_XZ_MEMORY_BYTES", 1 << 20)
    packed = lzma.compress(TEXT.encode(), preset=6)
    assert refused(written(tmp_path, "a.xz", packed)) is Reason.DAMAGED


def test_a_pipe_in_the_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert refused(tmp_path / "a.txt") is Reason.NOT_REGULAR


def test_jsonl_has_a_document_a_line(tmp_path: Path) -> None:
    rows = [{"text": "one\nline"}, {"text": " "}, {"text": TEXT, "more": {"text": 1}}]
    content = "\ufeff" + "\r\n".join(map(json.dumps, rows)) + "\n\n"
    assert read(written(tmp_path, "rows.JSONL", content.encode("utf-16-be"))) == ["one\nline", " ", TEXT]


BAD = [
    ('{"body": "x", "id": 1}', "fields body, id"),
    ("{}", "no fields"),
    ("{", "no JSON"),
    ("[1]", "a list"),
    ('{"text": 3}', "a int"),
    ('{"text": null}', "a NoneType"),
    ("[" * 100_000 + "]" * 100_000, "JSON that is nested too deeply"),
    ('{"text": "x", "n": ' + "9" * 5000 + "}", "a number of too many digits"),
    ('{"text": "half \\ud83d"}', "half of a surrogate pair"),
    ('{"text": "zero \\u0000"}', "a zero character"),
    ('{"text": "x", "text": "y"}', "the key 'text' twice"),
    ('{"text": "x"} {"text": "y"}', "no JSON"),
    ('{"text": "tab\t\x01"}', "no JSON"),
]


@pytest.mark.parametrize(("line", "problem"), BAD)
def test_bad_line_of_jsonl_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = written(tmp_path, "rows.jsonl", b'{"text": "fine"}\n' + line.encode())
    with pytest.raises(InvalidConfiguration, match=rf"field 'text'; got {problem}.* in line 2 of .*rows\.jsonl") as bad:
        read(path)
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize(("value", "problem"), BAD[:6])
def test_bad_element_of_an_array_is_named_unless_it_is_the_first(tmp_path: Path, value: str, problem: str) -> None:
    if problem == "no JSON":
        return
    path = written(tmp_path, "rows.json", f'[{{"text": "fine"}},\n{value}]'.encode())
    with pytest.raises(InvalidConfiguration, match=rf"got {problem}.* in element 2 of .*rows\.json"):
        read(path)
    assert refused(written(tmp_path, "other.json", f"[{value}]".encode())) is Reason.OTHER_JSON


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('[{"text": "one"}, {"text": "two"}]', ["one", "two"]),
        ('[\n  {"text": "one"},\n  {"text": "two"}\n]\n', ["one", "two"]),
        ('["one", "two"]', ["one", "two"]),
        ('{"text": "one"}', ["one"]),
        ('{\n"text": "one"\n}\n', ["one"]),
        ('{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ('\n\n{"text": "one"}\n\n{"text": "two"}', ["one", "two"]),
        (" \n", []),
    ],
)
def test_json_is_an_array_an_object_or_lines(tmp_path: Path, content: str, texts: list[str]) -> None:
    assert read(written(tmp_path, "rows.json", content.encode())) == texts


@pytest.mark.parametrize("content", ['{"name": "x"}', "[]", "[1]", "3", "{", "// comment\n{}", "[" * 100_000])
def test_json_that_holds_no_texts_is_not_read_as_prose(tmp_path: Path, content: str) -> None:
    assert refused(written(tmp_path, "package.json", content.encode())) is Reason.OTHER_JSON


def test_values_of_json_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_JSON_BYTES", 1000)
    monkeypatch.setattr(formats, "_PART_BYTES", 100)
    rows = json.dumps([{"text": "x" * 100}] * 20)
    assert refused(written(tmp_path, "a.json", rows.encode())) is Reason.LARGE_JSON
    line = json.dumps({"text": "fine"}) + "\n" + json.dumps({"text": "x" * 2000})
    with pytest.raises(InvalidConfiguration, match="got more than 64 MiB in line 2"):
        read(written(tmp_path, "a.jsonl", line.encode()))


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), max_size=8))
def test_texts_survive_every_way_of_storing_them(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    for name, content in (
        ("a.jsonl", rows.encode()),
        ("a.ndjson.gz", gzip.compress(rows.encode("utf-8-sig"))),
        ("b.jsonl", rows.encode("utf-32")),
        ("c.json", json.dumps(texts or [""]).encode("utf-16")),
    ):
        found = read(written(folder, name, content))
        assert [text for text in found if text] == [text for text in texts if text]


@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.json", "a.jsonl", "a.gz", "a.json.xz"]))
def test_any_bytes_are_text_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = written(tmp_path_factory.getbasetemp(), name, content)
    with contextlib.suppress(NotText, InvalidConfiguration):
        read(path)
