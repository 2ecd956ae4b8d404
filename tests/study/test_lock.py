"""Who owns a study: whoever has locked its folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from autotune.errors import EnvironmentProblem, ExitCode, StudyBusy
from autotune.study import lock as module
from autotune.study.folder import Folder
from autotune.study.lock import lock


def test_deleting_the_lock_file_lets_nobody_in(tmp_path: Path) -> None:
    with Folder.open(tmp_path) as mine, Folder.open(tmp_path) as other:
        owned = lock(mine)
        (tmp_path / "lock").unlink()
        with pytest.raises(StudyBusy, match="is owned by process unknown: wait for it or stop it"):
            lock(other)
        (tmp_path / "lock").write_text("\x1b[2J\n")
        with pytest.raises(StudyBusy, match="is owned by process unknown"):
            lock(other)
        os.close(owned)
    with Folder.open(tmp_path) as other:
        os.close(lock(other))


def test_a_folder_of_a_version_that_locked_the_file_alone_is_busy_too(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a+") as theirs, Folder.open(tmp_path) as mine:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        theirs.write("4711\n")
        theirs.flush()
        with pytest.raises(StudyBusy, match="is owned by process 4711"):
            lock(mine)


def refusing(number: int, *, only_folders: bool = False) -> Callable[[int, int], None]:
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if only_folders and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return real(descriptor, how)
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.EINTR])
def test_a_file_system_that_cannot_lock_is_not_called_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(module.fcntl, "flock", refusing(number))
    with Folder.open(tmp_path) as folder, pytest.raises(EnvironmentProblem) as refused:
        lock(folder)
    assert os.strerror(number) in str(refused.value)
    assert refused.value.exit_code == ExitCode.ENVIRONMENT


def test_where_folders_cannot_be_locked_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.fcntl, "flock", refusing(errno.EBADF, only_folders=True))
    with Folder.open(tmp_path) as mine, Folder.open(tmp_path) as other:
        owned = lock(mine)
        with pytest.raises(StudyBusy, match=f"is owned by process {os.getpid()}"):
            lock(other)
        os.close(owned)
        os.close(lock(other))


def test_a_full_disk_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Folder.open(tmp_path) as folder:
        with monkeypatch.context() as broken:
            broken.setattr(module, "write_all", full)
            os.close(lock(folder))  # who owns it is not known then, but it is owned
        with monkeypatch.context() as broken:
            broken.setattr(Folder, "append", full)
            with pytest.raises(OSError, match="No space"):
                lock(folder)
    with Folder.open(tmp_path) as folder:
        os.close(lock(folder))
