"""The training text: the files of a corpus, read as documents, and surveyed before anything is done with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune_model.config import InvalidConfiguration
from autotune_model.files import Files, find_files, refusal
from autotune_model.formats import Parts, documents_of
from autotune_model.left_out import WORDS, LeftOut, NotText, Reason, Tally
from autotune_model.seals import sampled

_SAMPLED_FILES = 64
"""Of how many files the fingerprint looks at the content, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a corpus holds: the files that are text, what is none, and the size of the text.

    `documents` are those that are not blank; `content_sha256` is of their text, in order.
    """

    paths: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]
    documents: int
    text_bytes: int
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the text of a corpus is."""

    files: Files
    text_field: str

    def fingerprint(self) -> str:
        """A digest of what is known without reading the text.

        Paths, sizes, times of content and of metadata, inodes and what is left out; for up to 64 files also some of
        the content, for times can be set and inodes are used again.
        """
        rows = []
        step = -(-len(self.files.paths) // _SAMPLED_FILES)
        for number, path in enumerate(self.files.paths):
            try:
                state = path.stat()
                content = sampled(path, blocks=16, block_bytes=4096) if number % step == 0 else ""
            except OSError:
                state, content = None, ""
            facts = [] if state is None else [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
            rows.append([str(path), facts, content])
        missing = [[row.reason, row.count, row.bytes, row.examples] for row in self.files.left_out]
        return hashlib.sha256(json.dumps([rows, missing, self.text_field]).encode()).hexdigest()

    def survey(self) -> Survey:
        """Read everything once. Files that are not text are left out with their reason, unless named by themselves.

        Raises:
            InvalidConfiguration: a named file is not text, a line of JSON has none, or there is no text at all.
        """
        tally = Tally(self.files.left_out)
        content = hashlib.sha256()
        readable: list[Path] = []
        documents = text_bytes = 0
        for path in self.files.paths:
            try:
                found = [fact for document in documents_of(path, self.text_field) if (fact := _size_of(document))[0]]
                if not found:
                    raise NotText(Reason.EMPTY)
            except NotText as problem:
                if self.files.named:
                    raise refusal(path, problem.reason) from None
                tally.add(problem.reason, path, _bytes_of(path))
                continue
            readable.append(path)
            documents += len(found)
            for size, digest in found:
                text_bytes += size
                content.update(digest)
        if not readable:
            rows = tally.rows()
            raise InvalidConfiguration(
                f"a corpus must hold text; got none in {len(self.files.paths):,} files; for example "
                f"{rows[0].examples[0]} is {WORDS[rows[0].reason][0]}: {WORDS[rows[0].reason][1]}"
            )
        return Survey(
            paths=tuple(readable),
            left_out=tally.rows(),
            documents=documents,
            text_bytes=text_bytes,
            content_sha256=content.hexdigest(),
        )

    def documents(self, paths: tuple[Path, ...]) -> Iterator[Parts]:
        """The documents of files that a survey found readable, in a fixed order; blank ones are among them.

        Raises:
            InvalidConfiguration: a file is no longer what it was.
        """
        for path in paths:
            try:
                yield from documents_of(path, self.text_field)
            except NotText:
                raise changed(path) from None


def find_source(corpus: str, text_field: str) -> Source:
    """Where the text that `corpus` names is: a file, a folder, a glob, or `stdlib`.

    Raises:
        InvalidConfiguration: it names no file.
    """
    return Source(files=find_files(corpus), text_field=text_field)


def changed(path: Path | str) -> InvalidConfiguration:
    """The error for a text that somebody changes while it is read."""
    return InvalidConfiguration(
        f"a corpus must not change while it is read; got a change in {str(path)!r}: start again when it is complete"
    )


def _size_of(document: Parts) -> tuple[int, bytes]:
    """Size in bytes and digest of a document; the size is 0 if it is blank."""
    digest, size, is_blank = hashlib.sha256(), 0, True
    for part in document:
        digest.update(part)
        size += len(part)
        is_blank = is_blank and (not part or part.isspace())
    return (0 if is_blank else size), digest.digest()


def _bytes_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
