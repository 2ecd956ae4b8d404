"""Reading one file as documents, each a stream of UTF-8 in parts of about a mebibyte.

| file | documents |
|---|---|
| `.jsonl`, `.ndjson`, `.jsonlines` | one a line: the text field of an object |
| `.json` | one an element of an array (objects or texts), one an object, or one a line |
| anything else | the whole file |

Each may be compressed with gzip, bzip2 or xz, in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. What is in
memory at once: a part of a text file, whatever its size, and a whole value of JSON, of 64 MiB at most.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import json
import lzma
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from autotune_model.config import InvalidConfiguration
from autotune_model.encodings import marked_encoding
from autotune_model.left_out import NotText, Reason

Parts = Iterator[bytes]
"""The UTF-8 of a document, in parts of any size; read it before the next document."""

_PART_BYTES = 1 << 20
_TELLING_BYTES = 8192
"""A zero byte within this many marks a file as binary, as in git."""
_JSON_BYTES = 64 << 20
_XZ_MEMORY_BYTES = 256 << 20
_BOMB_RATIO, _BOMB_BYTES = 200, 16 << 20
"""Text shrinks to a tenth, repetitive text to a fiftieth: more than this is a trap, once it has that many bytes."""

_LINES = frozenset({".jsonl", ".ndjson", ".jsonlines"})
_COMPRESSED = (".gz", ".bz2", ".xz")
_REFUSED_NAMES = {
    **dict.fromkeys((".zst", ".zstd", ".lz4", ".lzma", ".br", ".z", ".lz", ".sz", ".snappy"), Reason.PACKED),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".7z", ".rar", ".jar", ".whl"), Reason.PACKED),
    **dict.fromkeys((".parquet", ".arrow", ".feather", ".orc", ".avro", ".ipc"), Reason.TABLE),
    **dict.fromkeys((".npy", ".npz", ".h5", ".hdf5", ".sqlite", ".db", ".xls", ".xlsx", ".ods"), Reason.TABLE),
    **dict.fromkeys((".pdf", ".epub", ".doc", ".docx", ".odt", ".ps", ".djvu"), Reason.TABLE),
}
_REFUSED_STARTS = (
    (b"\x28\xb5\x2f\xfd", Reason.PACKED),  # zstandard
    (b"\x04\x22\x4d\x18", Reason.PACKED),  # lz4
    (b"\x1f\x9d", Reason.PACKED),  # compress
    (b"PK\x03\x04", Reason.PACKED),  # zip
    (b"7z\xbc\xaf\x27\x1c", Reason.PACKED),
    (b"Rar!\x1a", Reason.PACKED),
    (b"PAR1", Reason.TABLE),  # parquet
    (b"ARROW1", Reason.TABLE),
    (b"%PDF-", Reason.TABLE),
)


def documents_of(path: Path, text_field: str) -> Iterator[Parts]:
    """The documents of a file, some of them perhaps blank.

    Raises:
        NotText: the file cannot be read as text. Documents may have been yielded before.
        InvalidConfiguration: a line or element of a JSON file has no text.
    """
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    kind = os.path.splitext(name)[1]  # noqa: PTH122 the name alone, which is no path
    if kind in _REFUSED_NAMES:
        raise NotText(_REFUSED_NAMES[kind])
    try:
        with _opened(path) as file:
            parts = _decoded(_unpacked(file))
            if kind in _LINES:
                yield from _from_lines(path, _lines(path, parts, text_field), text_field)
            elif kind == ".json":
                yield from _from_json(path, parts, text_field)
            else:
                yield parts
                for _ in parts:  # what the reader did not want must be text, too
                    pass
    except OSError:
        raise NotText(Reason.UNREADABLE) from None


def _opened(path: Path) -> IO[bytes]:
    """The file, which is regular; opening a pipe that took its place does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotText(Reason.NOT_REGULAR)
    return os.fdopen(descriptor, "rb")


# -- bytes ---------------------------------------------------------------------------------------------


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a file, decompressed if it is compressed, whatever its name."""
    head = file.read(16)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        unpacked: Iterator[bytes] = _read(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
    elif head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        unpacked = _read(cast(IO[bytes], bz2.BZ2File(file)))
    elif head.startswith(b"\xfd7zXZ\0"):
        unpacked = _unpacked_xz(file)
    else:
        yield from _read(file)
        return
    limit = max(_BOMB_BYTES, _BOMB_RATIO * os.fstat(file.fileno()).st_size)
    total = 0
    try:
        for part in unpacked:
            total += len(part)
            if total > limit:
                raise NotText(Reason.BOMB)
            yield part
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        raise NotText(Reason.DAMAGED) from None


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while part := file.read(_PART_BYTES):
        yield part


def _unpacked_xz(file: IO[bytes]) -> Iterator[bytes]:
    """As `lzma.LZMAFile`, but with a limit on memory, which the file itself asks for."""
    given = b""
    while given := given or file.read(_PART_BYTES):
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        while not unpacker.eof:
            if unpacker.needs_input and not (given := given or file.read(_PART_BYTES)):
                raise EOFError
            yield unpacker.decompress(given, _PART_BYTES)
            given = b""
        given = unpacker.unused_data.lstrip(b"\0")  # streams may be padded


def _decoded(raw: Iterator[bytes]) -> Parts:
    """The text as UTF-8 without a byte order mark, checked."""
    head = b""
    while len(head) < _TELLING_BYTES and (part := next(raw, b"")):
        head += part
    for magic, reason in _REFUSED_STARTS:
        if head.startswith(magic):
            raise NotText(reason)
    if head[257:262] == b"ustar":
        raise NotText(Reason.PACKED)
    encoding = marked_encoding(head)
    if not encoding and b"\0" in head[:_TELLING_BYTES]:
        raise NotText(Reason.BINARY)
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    try:
        for part in itertools.chain((head,), raw):
            for at in range(0, len(part), _PART_BYTES):
                yield decoder.decode(part[at : at + _PART_BYTES]).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError:
        raise NotText(Reason.ENCODING) from None


# -- JSON ----------------------------------------------------------------------------------------------


def _lines(path: Path, parts: Parts, text_field: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    number, rest = 0, io.BytesIO()
    for part in itertools.chain(parts, (b"\n",)):
        first, *others = part.split(b"\n")
        rest.write(first)
        if rest.tell() > _JSON_BYTES:
            raise _bad(path, "line", number + 1, "more than 64 MiB", text_field)
        for line in others:
            number += 1
            whole = rest.getvalue()
            if whole and not whole.isspace():
                yield number, whole
            rest = io.BytesIO()
            rest.write(line)


def _from_lines(path: Path, lines: Iterable[tuple[int, bytes]], text_field: str) -> Iterator[Parts]:
    for number, line in lines:
        try:
            text = _text_of(_parsed(line), text_field)
        except _BadValueError as error:
            raise _bad(path, "line", number, str(error), text_field) from None
        yield iter((text,))


def _from_json(path: Path, parts: Parts, text_field: str) -> Iterator[Parts]:
    """The texts of a `.json` file, which may well hold JSON lines."""
    head = b""
    for part in parts:
        head += part
        first, found, others = head.lstrip().partition(b"\n")
        if found and first.startswith(b"{") and others.strip() and _is_json(first):
            again = itertools.chain((head,), parts)
            yield from _from_lines(path, _lines(path, again, text_field), text_field)
            return
        if len(head) > _JSON_BYTES:
            raise NotText(Reason.LARGE_JSON)
    if not head.strip():
        return
    try:
        value = _parsed(head)
    except _BadValueError:
        raise NotText(Reason.OTHER_JSON) from None
    elements = value if isinstance(value, list) else [value]
    for number, element in enumerate(elements, start=1):
        try:
            text = _text_of({text_field: element} if isinstance(element, str) else element, text_field)
        except _BadValueError as error:
            if number == 1:
                raise NotText(Reason.OTHER_JSON) from None
            raise _bad(path, "element", number, str(error), text_field) from None
        yield iter((text,))
    if not elements:
        raise NotText(Reason.OTHER_JSON)


class _BadValueError(ValueError):
    """What is wrong with a JSON text, or with its value."""


def _parsed(text: bytes) -> Any:
    """The value of a JSON text. Python's parser has limits of its own, and takes the last of two equal keys."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise _BadValueError("no JSON") from None
    except RecursionError:
        raise _BadValueError("JSON that is nested too deeply") from None
    except _BadValueError:
        raise
    except ValueError:  # more digits than Python converts
        raise _BadValueError("a number of too many digits") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _BadValueError(f"the key {twice[:40]!r} twice")
    return value


def _is_json(text: bytes) -> bool:
    try:
        _parsed(text)
    except _BadValueError:
        return False
    return True


def _text_of(value: Any, text_field: str) -> bytes:
    if not isinstance(value, dict):
        raise _BadValueError(f"a {type(value).__name__}")
    if text_field not in value:
        raise _BadValueError(f"fields {', '.join(value)}" if value else "no fields")
    text = value[text_field]
    if not isinstance(text, str):
        raise _BadValueError(f"a {type(text).__name__} there")
    if "\0" in text:
        raise _BadValueError("a zero character there")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _BadValueError("half of a surrogate pair there") from None


def _bad(path: Path, unit: str, number: int, problem: str, text_field: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"every {unit} of a JSON corpus must have a text in field {text_field!r}; "
        f"got {problem} in {unit} {number} of {str(path)!r}: set text_field or mend the {unit}"
    )
