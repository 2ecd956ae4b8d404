"""Digests of files, and JSON that carries its own: what is read back is what was written. Standard library only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_READ_BYTES = 1 << 20


def whole(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled(path: Path, *, blocks: int, block_bytes: int) -> str:
    """SHA-256 of the size of a file and of so many of its blocks, evenly spread, first and last included.

    A file of no more than that many bytes is read whole.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        digest.update(str(size).encode())
        if size <= blocks * block_bytes:
            starts, length = list(range(0, size, _READ_BYTES)), _READ_BYTES
        else:
            starts, length = [(size - block_bytes) * number // (blocks - 1) for number in range(blocks)], block_bytes
        for start in starts:
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()


def sealed(value: Any) -> str:
    """`value` as JSON with its digest."""
    return json.dumps({"sha256": _digest(value), "value": value})


def unsealed(text: str) -> Any:
    """The value in what `sealed` wrote.

    Raises:
        ValueError, KeyError, TypeError: the text is torn, foreign or changed.
    """
    outer = json.loads(text)
    if outer["sha256"] != _digest(outer["value"]):
        raise ValueError("the content is not what was written")
    return outer["value"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
