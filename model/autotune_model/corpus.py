"""The training text: finding its files, splitting it into documents, holding some of them out.

A document is a line of a `.jsonl` file, or any other whole file. A corpus of a single
document is split at line ends into about a hundred pieces that count as documents.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune_model.config import InvalidConfiguration

_PIECES_OF_A_SINGLE_DOCUMENT = 100
_TELLING_BYTES = 8192
"""A zero byte within this many marks a file as binary, as in git."""
_NOT_OURS = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})
"""Folders of the standard library that hold tests, or packages that differ between machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files of a corpus, sorted.

    In a folder, files that are not UTF-8 text are skipped; files that were `named` must be text.
    """

    files: tuple[Path, ...]
    named: bool
    text_field: str

    def fingerprint(self) -> str:
        """A digest of paths, sizes and modification times: what is known without reading the files."""
        states = [(path, path.stat()) for path in self.files]
        rows = [[str(path), state.st_size, state.st_mtime_ns] for path, state in states]
        return hashlib.sha256(json.dumps([rows, self.text_field]).encode()).hexdigest()

    def documents(self) -> Iterator[str]:
        """Every document that is not blank, in a fixed order."""
        found = self._whole_documents()
        first, second = next(found, None), next(found, None)
        if first is None:
            return
        if second is None:
            yield from _pieces(first)
            return
        yield first
        yield second
        yield from found

    def _whole_documents(self) -> Iterator[str]:
        for path in self.files:
            text = self._read(path)
            documents = self._lines(path, text) if path.suffix == ".jsonl" else [text]
            for document in documents:
                if document and not document.isspace():
                    yield document

    def _read(self, path: Path) -> str:
        """The text of a file; empty if it may be skipped."""
        try:
            with path.open("rb") as file:
                data = file.read(_TELLING_BYTES)
                is_binary = b"\0" in data
                data += b"" if is_binary else file.read()
        except OSError as error:
            raise InvalidConfiguration(
                f"the files of a corpus must be readable; got {str(path)!r} ({error.strerror}): "
                "grant access or name other files"
            ) from None
        if not is_binary:
            try:
                return data.decode("utf-8-sig")
            except UnicodeDecodeError:
                pass
        if self.named:
            raise InvalidConfiguration(
                f"a corpus must be UTF-8 text; got {str(path)!r}, which is not: convert it or name another file"
            )
        print(f"passed over {path}: it is not UTF-8 text", file=sys.stderr)
        return ""

    def _lines(self, path: Path, text: str) -> Iterator[str]:
        """The documents of a `.jsonl` file."""
        for number, line in enumerate(text.split("\n"), start=1):
            if not line or line.isspace():
                continue
            try:
                value = json.loads(line)
                document = value[self.text_field]
            except json.JSONDecodeError:
                problem = "no JSON"
            except (KeyError, TypeError):
                problem = f"fields {', '.join(value)}" if isinstance(value, dict) else f"a {type(value).__name__}"
            else:
                if isinstance(document, str):
                    yield document.encode(errors="replace").decode()  # JSON can encode half a surrogate pair
                    continue
                problem = f"a {type(document).__name__} there"
            raise InvalidConfiguration(
                f"every line of a .jsonl corpus must have a text in field {self.text_field!r}; "
                f"got {problem} in line {number} of {str(path)!r}: set text_field or mend the line"
            )


def find_source(corpus: str, text_field: str) -> Source:
    """The files that `corpus` names: a file, a folder, a glob, or `stdlib`.

    Raises:
        InvalidConfiguration: it names no file.
    """
    path = Path(corpus).expanduser()
    named = False
    if corpus == "stdlib":
        files = [file for file in _files_below(Path(sysconfig.get_path("stdlib")), _NOT_OURS) if file.suffix == ".py"]
    elif path.is_dir():
        files = _files_below(path.resolve())
    else:
        named = True
        matches = [str(path)] if path.exists() else glob.glob(str(path), recursive=True)  # noqa: PTH207 absolute globs
        files = sorted(match.resolve() for match in map(Path, matches) if match.is_file())
    if not files:
        raise InvalidConfiguration(
            f'corpus must name a text file, a folder, a glob or "stdlib"; got {corpus!r}, where no file is: '
            "check the path"
        )
    return Source(files=tuple(files), named=named, text_field=text_field)


def hold_out(document_bytes: Mapping[bytes, int], fraction: float) -> set[bytes]:
    """The documents to hold out: at most `fraction` of all bytes if any document is that small.

    Documents are identified by content digest, so the choice depends on neither order nor file
    names, and copies of a document stay together. They are held out in digest order, which is
    effectively random, until the next one would exceed the limit.

    Raises:
        InvalidConfiguration: there are fewer than two different documents, one for each split.
    """
    if len(document_bytes) < 2:
        raise InvalidConfiguration(
            f"a corpus must hold two different documents or lines, one to train on and one to hold out; "
            f"got {len(document_bytes)}: use more text"
        )
    allowed = fraction * sum(document_bytes.values())
    held: set[bytes] = set()
    held_bytes = 0
    for digest in sorted(document_bytes):
        if held_bytes + document_bytes[digest] <= allowed:
            held.add(digest)
            held_bytes += document_bytes[digest]
        elif held:
            break
    return held or {min(document_bytes, key=lambda digest: (document_bytes[digest], digest))}


def _files_below(folder: Path, passed_over: frozenset[str] = frozenset()) -> list[Path]:
    """All files below a folder, sorted; hidden ones are skipped."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in passed_over]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _pieces(text: str) -> Iterator[str]:
    """Split a text into about 100 pieces, each ending at the first line end past its size, or there if that is far."""
    size = math.ceil(len(text) / _PIECES_OF_A_SINGLE_DOCUMENT)
    start = 0
    while start < len(text):
        line_end = text.find("\n", start + size - 1, start + 2 * size)
        end = start + size if line_end < 0 else line_end + 1
        yield text[start:end]
        start = end
