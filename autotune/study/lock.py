"""One process at a time owns a study: it has locked the study's folder, and a file in it that names the process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from autotune.errors import EnvironmentProblem, StudyBusy
from autotune.study.folder import Folder, Unreadable, write_all

FILE = "lock"
_NO_LOCK_OF_FOLDERS = {errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}  # such as NFS


def lock(folder: Folder) -> int:
    """Own the study until the returned descriptor and the folder's are closed, or this process ends.

    The folder itself is locked, so deleting the file lets nobody in. On file systems that lock no folders (NFS), the
    file alone is. It is written after the folder was found to be a study.

    Raises:
        StudyBusy: another process owns it.
        EnvironmentProblem: the file system cannot lock.
    """
    try:
        _take(folder, folder.descriptor)
    except OSError as error:
        if error.errno not in _NO_LOCK_OF_FOLDERS:
            raise _refused(folder, error) from None
    file = folder.append(FILE)
    try:
        _take(folder, file)
        with contextlib.suppress(OSError):  # the owner's number is only for a message, and the disk may be full
            os.ftruncate(file, 0)
            write_all(file, f"{os.getpid()}\n".encode())
    except OSError as error:
        os.close(file)
        raise _refused(folder, error) from None
    except BaseException:
        os.close(file)
        raise
    return file


def _take(folder: Folder, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StudyBusy(
            f"only one process may own a study; {folder.path.name!r} is owned by process {_owner(folder)}: "
            "wait for it or stop it"
        ) from None


def _owner(folder: Folder) -> str:
    try:
        said = (folder.read(FILE) or b"").strip()
    except (Unreadable, EnvironmentProblem):
        said = b""
    return said.decode() if said.isdigit() else "unknown"


def _refused(folder: Folder, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"a study must be locked while it is searched; its file system cannot ({error.strerror}) at {folder.path}: "
        "keep studies on another one with --root"
    )
