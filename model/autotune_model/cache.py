"""Files of a cache that several processes share: private, complete or absent, and never waited for.

Whoever builds something builds it in a folder of its own with a random name, then renames it into place: the first
one wins. So nobody holds a lock that others wait for. A builder locks its own unfinished folder, which tells the next
one whether it is still alive: what nobody locks is swept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

_UNFINISHED = ".unfinished"
_STALE_SECONDS = 60.0
"""Between making an unfinished file and locking it, no builder takes that long."""


class CacheProblem(OSError):
    """The cache cannot be written: no room, or no access."""


def private_folder(folder: Path) -> Path:
    """The folder, made if it is not there, for this user alone, and swept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if stat.S_IMODE(state.st_mode) & 0o077 and state.st_uid == os.geteuid():
        folder.chmod(0o700)  # an earlier version made it for all
    _sweep(folder)
    return folder


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Build a folder: yields an empty one to fill, which becomes `target` with all its files on disk.

    If another process was quicker, its folder stays; a damaged one must be removed before (`remove`).
    """
    unfinished = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_UNFINISHED, dir=private_folder(target.parent))
    )
    lock = os.open(unfinished, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: its leftovers stay until they are old
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield unfinished
        for path in unfinished.iterdir():
            _sync(path)
        os.fsync(lock)
        try:
            unfinished.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _sync(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)


def write(target: Path, text: str) -> None:
    """Write a file for this user alone, atomically."""
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=_UNFINISHED, dir=private_folder(target.parent), text=True
    )
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
        _sync(target.parent)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def private_file(path: Path) -> Iterator[int]:
    """A new file, for this user alone, as a descriptor to write to."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a damaged file or folder. It gets another name first: nobody sees half of it."""
    with contextlib.suppress(FileNotFoundError):
        aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_UNFINISHED}")
        path.rename(aside)
        _delete(aside)


def _sweep(folder: Path) -> None:
    """Delete what a builder left that was killed."""
    now = datetime.now(UTC).timestamp()  # the clock of files
    for path in folder.glob(f".*{_UNFINISHED}"):
        with contextlib.suppress(OSError):  # gone by now, or alive
            if now - path.stat().st_mtime < _STALE_SECONDS:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(path)
            finally:
                os.close(descriptor)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
