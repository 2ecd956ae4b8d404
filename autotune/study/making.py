"""What is needed to make a study in a folder that may hold the beginnings of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from autotune.errors import AutotuneError
from autotune.study.folder import Folder
from autotune.study.reading import RESULT, TRIALS, folder_name, trial_folders


def has_trials(files: Folder) -> bool:
    """Whether the study has acknowledged a trial, readable or not."""
    found = False
    for _, trial in trial_folders(files):
        if isinstance(trial, str):
            found = True
        else:
            with trial:
                found = found or any(name.startswith(RESULT) for name in trial.names())
    return found


def clear(files: Folder, names: Iterable[str]) -> None:
    """Remove these files, and the trials that were ordered and never acknowledged."""
    for name in names:
        files.remove(name)
    for number, trial in trial_folders(files):
        if isinstance(trial, Folder):
            with trial:
                for name in trial.names():
                    trial.remove(name)
            with files.child(TRIALS) as trials, contextlib.suppress(OSError):
                os.rmdir(folder_name(number), dir_fd=trials.descriptor)


def remove_new(files: Folder, names: Iterable[str]) -> None:
    """Remove these files of a study that could not be made whole, and its folder if nothing else is in it."""
    with contextlib.suppress(OSError, AutotuneError):  # what led here is told, and a leftover harms nobody
        for name in names:
            files.remove(name)
        os.rmdir(TRIALS, dir_fd=files.descriptor)
    with contextlib.suppress(OSError):
        files.path.rmdir()
