"""The memory limits of the control groups that this process is in (Linux), and what the kernel killed for lack of it.

A container sees the memory of its host; its own limit, and how often that was hit, is in the files of its groups.
Every group on the path limits all below it. Pure functions of the files below `root`; without files there is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_NO_LIMIT = 1 << 60  # version 1 writes the largest multiple of a page for "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The names of the files of one version of control groups."""

    limits: tuple[str, ...]
    usage: str
    cache: str  # the key in memory.stat of what the kernel would give back before it kills
    kills: str


_V1 = _Files(
    limits=("memory.limit_in_bytes",),
    usage="memory.usage_in_bytes",
    cache="total_inactive_file",
    kills="memory.oom_control",
)
_V2 = _Files(limits=("memory.max", "memory.high"), usage="memory.current", cache="inactive_file", kills="memory.events")


def free_bytes(root: Path = _ROOT) -> int | None:
    """What this process may still take before one of its groups is at its limit; None without a limit."""
    return min((free for folder, files in _groups(root) if (free := _free_in(folder, files)) is not None), default=None)


def oom_kills(root: Path = _ROOT) -> int | None:
    """How many processes the kernel has killed for lack of memory, in the groups of this process; None if unknown.

    Without a group that counts, it is the number on the whole machine.
    """
    for folder, files in _groups(root):  # the innermost first: it counts kills for whatever limit
        if (count := _number(folder / files.kills, "oom_kill")) is not None:
            return count
    return _number(root / "proc/vmstat", "oom_kill")


def _groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """The folders of all groups on the paths of this process, innermost first."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) < 3:
            continue
        _, controllers, path = parts
        if not controllers:
            mounts, files = ["sys/fs/cgroup", "sys/fs/cgroup/unified"], _V2
        elif "memory" in controllers.split(","):
            mounts, files = ["sys/fs/cgroup/memory"], _V1
        else:
            continue
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            for part in (inner, *inner.parents) if inner.parts else (inner,):
                if ".." not in part.parts and (folder := root / mount / part).is_dir():
                    yield folder, files


def _free_in(folder: Path, files: _Files) -> int | None:
    limits = [limit for name in files.limits if (limit := _integer(_text(folder / name))) is not None]
    limit = min((limit for limit in limits if limit < _NO_LIMIT), default=None)
    if limit is None:
        return None
    used = _integer(_text(folder / files.usage)) or 0
    given_back = _number(folder / "memory.stat", files.cache) or 0
    return max(0, limit - max(0, used - given_back))


def _number(path: Path, key: str) -> int | None:
    """The number after `key` in a file of a key and a number a line."""
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return _integer(value)
    return None


def _integer(text: str) -> int | None:
    """The number; None for "max", for nothing, and for anything else."""
    return int(text) if (text := text.strip()).isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):  # not there, not ours to read, or of a group that is gone
        return path.read_text(encoding="utf-8")
    return ""
