"""A study's folder, opened once: everything in it is reached through its descriptor.

A study may come from a stranger, or be copied, linked and half deleted by its owner. So nothing leads out of it:
links are not followed, a file is read only if it is a regular file, and what is written is a new file that takes the
old one's place. A reader, or a crash at any moment, finds the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.errors import EnvironmentProblem, StoreDamaged

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe that nobody writes to must not wait
_MOST_BYTES = 2**28  # of one file: far above any result, and below what a driver can hold
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp")  # the number was a process's before it was random
_NO_FILE_OF_ITS_OWN = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR}  # a link, a folder, a pipe or socket


class Unreadable(ValueError):
    """What is there under a file's name is no file that could be read; the text says what it is."""


class Folder:
    """An open folder. `path` is for messages, and for programs that can only open paths."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Takes over `descriptor`; use `Folder.open`."""
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder at `path`, whose last component may not be a link.

        Raises:
            FileNotFoundError: there is nothing.
            StoreDamaged: it is a link or no folder.
            EnvironmentProblem: it cannot be opened.
        """
        return cls(path, _opened(path))

    @classmethod
    def make(cls, path: Path) -> Self:
        """Open the folder at `path`, made with its parents if needed. Raises as `open`."""
        with contextlib.suppress(FileExistsError), _told(path):  # a link to nothing, which `open` refuses
            path.mkdir(parents=True, exist_ok=True)
        return cls.open(path)

    def child(self, name: str, *, make: bool = False) -> Folder:
        """Open the folder `name` in it, made if wanted. Raises as `open`."""
        path = self.path / name
        if make:
            with contextlib.suppress(FileExistsError), _told(path):
                os.mkdir(name, dir_fd=self.descriptor)
        return Folder(path, _opened(path, name, self.descriptor))

    def names(self) -> list[str]:
        """The names of all that is in it, sorted."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 - pathlib lists no descriptors

    def has(self, name: str) -> bool:
        """Whether anything has that name."""
        return self._status(name) is not None

    def is_own_file(self, name: str) -> bool:
        """Whether it is a regular file that no other name leads to."""
        status = self._status(name)
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink == 1

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none.

        Raises:
            Unreadable: it is no regular file, or too large.
            EnvironmentProblem: the system refuses to read it.
        """
        path = self.path / name
        with _told(path, "readable"):
            try:
                descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=self.descriptor)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in _NO_FILE_OF_ITS_OWN:
                    raise Unreadable("it is no regular file") from None
                raise
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise Unreadable("it is no regular file")
                if status.st_size > _MOST_BYTES:
                    raise Unreadable(f"it has {status.st_size:,} bytes")
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    return file.read()
            finally:
                os.close(descriptor)

    def write(self, name: str, text: str) -> None:
        """Write a file atomically and durably: one sync of the file and one of the folder.

        Raises:
            EnvironmentProblem: the system refuses, for example because the disk is full; the old file is still there.
        """
        temporary = f".{name}.{secrets.token_hex(8)}.tmp"
        with _told(self.path / name):
            try:
                self._create(temporary, text.encode("utf-8", "replace"))
                self._rename(temporary, name)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=self.descriptor)
                raise
            os.fsync(self.descriptor)  # the rename itself must reach the disk

    def append(self, name: str) -> int:
        """A descriptor for appending to a file, which is made if needed; the caller closes it.

        What has that name and is no regular file, or is known by another name as well, is set aside first.

        Raises:
            EnvironmentProblem: the system refuses.
        """
        with _told(self.path / name):
            while True:
                try:
                    descriptor = os.open(
                        name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FILE, 0o666, dir_fd=self.descriptor
                    )
                except OSError as error:
                    if error.errno not in _NO_FILE_OF_ITS_OWN:
                        raise
                else:
                    status = os.fstat(descriptor)
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                        return descriptor
                    os.close(descriptor)
                self.set_aside(name)

    def set_aside(self, name: str) -> str:
        """Rename what has that name, whatever it is. Returns the new name.

        Raises:
            EnvironmentProblem: the system refuses.
        """
        aside = f"{name}.damaged-{secrets.token_hex(4)}"
        with _told(self.path / name):
            os.rename(name, aside, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        return aside

    def remove(self, name: str) -> None:
        """Remove a file if it is there; a folder of that name is set aside.

        Raises:
            EnvironmentProblem: the system refuses.
        """
        with _told(self.path / name), contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self.descriptor)
            except (IsADirectoryError, PermissionError):
                self.set_aside(name)

    def sweep(self) -> None:
        """Remove the temporary files that a killed process left. Only the owner of the study may."""
        for name in self.names():
            if _TEMPORARY.fullmatch(name):
                with contextlib.suppress(OSError):  # a folder of that name, or a disk that cannot be written to
                    os.unlink(name, dir_fd=self.descriptor)

    def close(self) -> None:
        """Close it. Safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _status(self, name: str) -> os.stat_result | None:
        with _told(self.path / name, "readable"), contextlib.suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        return None

    def _create(self, name: str, content: bytes) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=self.descriptor)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _rename(self, old: str, new: str) -> None:
        try:
            os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except IsADirectoryError:  # a folder stands where the file belongs
            self.set_aside(new)
            os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`: one call may write less. Raises OSError."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _opened(path: Path, name: str = "", within: int | None = None) -> int:
    with _told(path, "readable"):
        try:
            return os.open(name or path, _FOLDER, dir_fd=within)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _NO_FILE_OF_ITS_OWN:
                raise StoreDamaged(
                    f"a study and its parts are folders of their own; {path} is a link or no folder: "
                    "move it here, or name its folder with --root"
                ) from None
            raise


@contextlib.contextmanager
def _told(path: Path, what: str = "writable") -> Iterator[None]:
    """Turns what the system refuses into an error with the place, the reason and the remedy."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, IsADirectoryError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space, and resume the study: nothing is lost"
        else:
            remedy = "mend that, and resume the study"
        raise EnvironmentProblem(f"a study must be {what}; got {error.strerror} at {path}: {remedy}") from None
