"""No text that is printed can control a terminal."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from autotune.printable import printable, printable_lines

CONTROLS = [
    "\x1b[2J",
    "\x9b2J",
    "\x07",
    "\r",
    "\n",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u2028",
    "\u200f",
    "\U000e0001",
    "\ud800",
]


def test_what_would_control_a_terminal_is_written_out() -> None:
    assert printable("a\x1b[31mb\x9b\u202e\n") == "a\\u001b[31mb\\u009b\\u202e\\u000a"
    assert printable("Größe 日本 🙂 'x' \\") == "Größe 日本 🙂 'x' \\"


@given(st.text() | st.lists(st.sampled_from(CONTROLS)).map("".join))
def test_nothing_printable_is_changed_and_nothing_else_is_left(text: str) -> None:
    assert printable(text).isprintable()
    assert all(line.replace("\t", "").isprintable() for line in printable_lines(text).split("\n"))
    if text.isprintable():
        assert printable(text) == printable_lines(text) == text


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"))))
def test_json_means_the_same_afterwards(values: list[str]) -> None:
    assert json.loads(printable_lines(json.dumps(values, ensure_ascii=False))) == values
