"""Text that cannot control a terminal, for every printer and every error line."""

from __future__ import annotations


def printable(text: object) -> str:
    """`text` on one line, its control characters written out (`\\u001b` for ESC).

    Names, paths, keys and messages come from users, workers and strangers' studies. Controls are what Unicode calls so,
    line ends and those that change the direction of writing among them. Different texts stay different.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def printable_lines(text: str) -> str:
    """`text` with its line ends and tabs, and all other control characters written out as JSON would."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
