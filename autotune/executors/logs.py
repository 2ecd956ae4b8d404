"""Keeps the log of a worker small, whatever the worker writes: its start and its end stay, the middle goes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LARGEST_BYTES = 8 << 20
_START_BYTES = 4 << 20
_END_BYTES = 1 << 20


def cap(path: Path, *, largest: int = LARGEST_BYTES, start: int = _START_BYTES, end: int = _END_BYTES) -> None:
    """Cut the middle out of the file at `path` if it is larger than `largest` bytes.

    Its writers must append: they go on at the new end. What they write in this very moment may be cut, too.
    """
    with suppress(FileNotFoundError):
        if path.stat().st_size <= largest:
            return
        with path.open("r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            tail = os.pread(file.fileno(), end, size - end)
            file.truncate(start)
            os.lseek(file.fileno(), 0, os.SEEK_END)
            left_out = f"\n[... {size - start - end} bytes left out: a log may have {largest} ...]\n"
            file.write(left_out.encode() + tail)
