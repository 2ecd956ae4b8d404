"""What a corpus left out, and why. Standard library only: both sides of the pipe import it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_EXAMPLES = 3
"""How many paths of each reason are kept."""


class Reason(StrEnum):
    """Why a file or a folder is no part of the text."""

    HIDDEN = "hidden"
    EMPTY = "empty"
    LINKED_FOLDER = "linked_folder"
    BROKEN_LINK = "broken_link"
    NOT_REGULAR = "not_regular"
    UNREADABLE = "unreadable"
    PACKED = "packed"
    DAMAGED = "damaged"
    BOMB = "bomb"
    TABLE = "table"
    BINARY = "binary"
    ENCODING = "encoding"
    OTHER_JSON = "other_json"
    LARGE_JSON = "large_json"


WORDS: Mapping[Reason, tuple[str, str]] = {
    Reason.HIDDEN: ("hidden", "rename it"),
    Reason.EMPTY: ("empty or blank", "fill it"),
    Reason.LINKED_FOLDER: ("a linked folder, which is not followed", "name the folder itself"),
    Reason.BROKEN_LINK: ("a link to nothing", "mend the link"),
    Reason.NOT_REGULAR: ("no regular file", "copy its text to a file"),
    Reason.UNREADABLE: ("not readable", "grant access"),
    Reason.PACKED: ("packed in a way that is not read", "unpack it, or compress it with gzip, bzip2 or xz"),
    Reason.DAMAGED: ("damaged: it cannot be decompressed", "compress it again"),
    Reason.BOMB: ("compressed to less than a 200th, which no text is", "unpack it if it is text"),
    Reason.TABLE: ("a format that is not read", "write its text as .jsonl or .txt"),
    Reason.BINARY: ("binary, or UTF-16 without a byte order mark", "convert it to UTF-8 if it is text"),
    Reason.ENCODING: ("neither UTF-8 nor what its byte order mark says", "convert it to UTF-8"),
    Reason.OTHER_JSON: ("JSON without texts in the text field", "set text_field, or write the texts as .jsonl"),
    Reason.LARGE_JSON: ("a JSON value of more than 64 MiB", "write it as .jsonl, a text a line"),
}
"""Each reason in words, after "it is", and its remedy."""

HARMLESS = frozenset({Reason.HIDDEN, Reason.EMPTY})
"""Reasons that nobody need be warned of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What was left out for one reason: how many files or folders, their bytes as far as known, and a few paths.

    `unknown_sizes` counts folders that were not entered and files that could not be looked at: they may hold any
    amount of text.
    """

    reason: Reason
    count: int
    bytes: int
    unknown_sizes: int
    examples: tuple[str, ...]

    @property
    def matters(self) -> bool:
        """Whether text may be missing that somebody expects."""
        return self.reason not in HARMLESS


class NotText(Exception):
    """A file cannot be read as text, for that reason. Whoever reads files decides whether this is an error."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Tally:
    """Counts what is left out."""

    def __init__(self, rows: Iterable[LeftOut] = ()) -> None:
        self._rows = {row.reason: row for row in rows}

    def add(self, reason: Reason, path: Path, size: int | None) -> None:
        """Count a path of `size` bytes, None if nobody knows."""
        before = self._rows.get(reason) or LeftOut(reason=reason, count=0, bytes=0, unknown_sizes=0, examples=())
        name = str(path).encode(errors="replace").decode()  # a file name may contain bytes that are not text
        self._rows[reason] = LeftOut(
            reason=reason,
            count=before.count + 1,
            bytes=before.bytes + (size or 0),
            unknown_sizes=before.unknown_sizes + (size is None),
            examples=(*before.examples, name)[:_EXAMPLES],
        )

    def rows(self) -> tuple[LeftOut, ...]:
        """One row a reason, the largest first."""
        return tuple(sorted(self._rows.values(), key=lambda row: (-row.bytes, -row.count, row.reason)))
