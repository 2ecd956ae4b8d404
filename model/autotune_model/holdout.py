"""Holding text out: which passages are trained on, and which only evaluated. Pure.

A document is held out whole if it is small against what is to be held out. A larger one is cut at paragraph borders
into passages, and those held out are spread over it. So the held-out text has the asked share and is of the same
mixture as the rest, whether the corpus is one book, two, or a million pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from autotune_model.config import InvalidConfiguration

_WHOLE_SHARE = 4
"""A document of more than this part of the held-out text (a quarter) is cut, into passages a quarter its size."""
_WHOLE_BYTES = (64, 4 << 20)
"""The least and the largest size above which a document is cut. The latter bounds what is in memory at once."""
_TOLERANCE = 1.5
"""The held-out share is at most this factor above or below the asked one, or the corpus is refused."""


def largest_whole(text_bytes: int, fraction: float) -> int:
    """The size in bytes above which a document of a corpus is cut into passages."""
    low, high = _WHOLE_BYTES
    return min(high, max(low, int(fraction * text_bytes) // _WHOLE_SHARE))


def passages(parts: Iterable[bytes], whole: int) -> Iterator[bytes]:
    """The passages of a document given as UTF-8 in parts: one of at most `whole` bytes, or several of half of it.

    They depend on the text alone, not on how it is parted. Each ends at an empty line if there is one near, else at
    the end of a line, before a blank, or anywhere between two characters.
    """
    piece = whole // 4
    buffer = bytearray()
    limit = whole
    for part in parts:
        for start in range(0, len(part), whole):
            buffer += part[start : start + whole]
            while len(buffer) > limit:
                limit = 2 * piece
                end = _border(buffer, piece)
                yield bytes(buffer[:end])
                del buffer[:end]
    if buffer:
        yield bytes(buffer)


def _border(text: bytearray, piece: int) -> int:
    for border, kept in ((b"\n\n", 2), (b"\r\n\r\n", 4), (b"\n", 1), (b" ", 0)):
        at = text.find(border, piece, 2 * piece - kept)
        if at >= 0:
            return at + kept
    end = piece
    while text[end] & 0xC0 == 0x80:  # within a character
        end += 1
    return end


def digest_of(passage: bytes) -> bytes:
    """What identifies a passage: copies with other line ends, or other blanks around them, are the same."""
    return sha256(passage.replace(b"\r\n", b"\n").strip()).digest()


@dataclass(slots=True)
class Split:
    """Collects all passages of a corpus, then chooses those to hold out.

    Passages are known by their digests, so copies are on one side, and neither the order nor the names of files
    matter.
    """

    fraction: float
    _bytes: dict[bytes, int] = field(default_factory=dict)
    _cut: list[tuple[bytes, ...]] = field(default_factory=list)

    def add(self, document: Sequence[tuple[bytes, int]]) -> None:
        """Take in a document: the digest and the size in bytes of each of its passages."""
        for digest, size in document:
            self._bytes[digest] = self._bytes.get(digest, 0) + size
        if len(document) > 1:
            self._cut.append(tuple(digest for digest, _ in document))

    def held_out(self) -> frozenset[bytes]:
        """The digests to hold out.

        The passages form a line: those of documents that were cut, in the order of their text, then whole documents
        by size. Along it, a passage is held out if that brings the share so far nearer to the asked one. Neighbours
        have similar sizes, so that large and small ones have the same chance, and the last ones settle the share.
        A passage whose copies are too much to hold out is trained on, and does not count.

        Raises:
            InvalidConfiguration: the share cannot be near the asked one.
        """
        most = max(_WHOLE_BYTES[0], self.fraction * sum(self._bytes.values()) / _WHOLE_SHARE)
        whole = sorted(self._bytes, key=lambda digest: (-self._bytes[digest], digest))
        line = dict.fromkeys([digest for document in sorted(self._cut) for digest in document] + whole)
        held: set[bytes] = set()
        seen_bytes = held_bytes = 0
        for digest in line:
            size = self._bytes[digest]
            if size > most:
                continue
            seen_bytes += size
            if held_bytes + size / 2 < self.fraction * seen_bytes:
                held.add(digest)
                held_bytes += size
        share = held_bytes / max(1, seen_bytes)
        if not self.fraction / _TOLERANCE <= share <= self.fraction * _TOLERANCE:
            raise InvalidConfiguration(
                f"a corpus must have different passages to hold out {self.fraction:.0%} of it; got "
                f"{sum(self._bytes.values()):,} bytes in {len(line):,} passages, of which {share:.1%} can be held out: "
                "use more text"
            )
        return frozenset(held)
