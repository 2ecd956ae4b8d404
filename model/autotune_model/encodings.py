"""How text from users is encoded: one rule for corpora, space files and logs. Uses only the standard library."""

from __future__ import annotations

import codecs

_MARKS = (  # those of UTF-32 first: that of UTF-16 begins one of them
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(start: bytes) -> str:
    """The encoding that the byte order mark at the start of a text names; empty if there is none: it is UTF-8 then."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), "")


def decoded(text: bytes) -> str:
    """A whole text, without its byte order mark.

    Raises:
        UnicodeError: it is neither UTF-8 nor what its byte order mark says.
    """
    return text.decode(marked_encoding(text) or "utf-8")
