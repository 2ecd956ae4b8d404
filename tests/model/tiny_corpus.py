"""The made-up text that the tests train on."""

from __future__ import annotations

import random

_WORDS = ("the", "model", "learns", "slowly", "but", "token", "by", "token", "it", "gets", "there")


def made_up_documents(count: int = 24, words: int = 120) -> list[str]:
    """Different documents of the same few words, the same every time."""
    source = random.Random(0)
    return [" ".join(source.choice(_WORDS) for _ in range(words)) + ".\n" for _ in range(count)]
