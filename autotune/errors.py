"""The family of errors a user can meet, each with its documented exit code.

A message gives rule, value and remedy in one line.
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
    INTERRUPTED = 75  # EX_TEMPFAIL: resumable


class AutotuneError(Exception):
    """Base of all errors that are told to the user in one line."""

    exit_code = ExitCode.BAD_INPUT


class BadInput(AutotuneError):
    """A file, an option or a value the user gave cannot be used."""


class NothingFeasible(AutotuneError):
    """Not even the baseline can be trained on this machine."""

    exit_code = ExitCode.NOTHING_FEASIBLE


class StudyBusy(AutotuneError):
    """Another driver owns the study."""

    exit_code = ExitCode.STUDY_BUSY


class StoreDamaged(AutotuneError):
    """A file of the study cannot be read back."""

    exit_code = ExitCode.STORE_DAMAGED


class EnvironmentProblem(AutotuneError):
    """The installation or the machine lacks something that is needed."""

    exit_code = ExitCode.ENVIRONMENT


class Interrupted(AutotuneError):
    """The search was interrupted; `autotune resume` takes it up again."""

    exit_code = ExitCode.INTERRUPTED
