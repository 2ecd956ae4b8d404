"""The errors that a user can see, each with its documented exit code.

Each message states rule, value and remedy in one line.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the `autotune` command returns to the shell."""

    DONE = 0
    BAD_INPUT = 2
    NOTHING_FEASIBLE = 3
    STUDY_BUSY = 4
    STORE_DAMAGED = 5
    ENVIRONMENT = 6
    BUG = 70  # EX_SOFTWARE: none of our errors, with the traceback in a file
    INTERRUPTED = 75  # EX_TEMPFAIL: resumable


class AutotuneError(Exception):
    """Base of all errors that are shown to the user in one line."""

    exit_code = ExitCode.BAD_INPUT


class BadInput(AutotuneError):
    """A file, option or value from the user cannot be used."""


class NothingFeasible(AutotuneError):
    """Not even the baseline can be trained on this machine."""

    exit_code = ExitCode.NOTHING_FEASIBLE


class StudyBusy(AutotuneError):
    """Another process has the study open."""

    exit_code = ExitCode.STUDY_BUSY


class StoreDamaged(AutotuneError):
    """A file of the study cannot be read."""

    exit_code = ExitCode.STORE_DAMAGED


class EnvironmentProblem(AutotuneError):
    """The installation or the machine lacks something required."""

    exit_code = ExitCode.ENVIRONMENT


class Interrupted(AutotuneError):
    """The search was interrupted; `autotune resume` continues it."""

    exit_code = ExitCode.INTERRUPTED
