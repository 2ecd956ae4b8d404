"""Where sessions run. This is the only place that chooses an executor."""

from __future__ import annotations

from autotune.errors import BadInput
from autotune.executors.base import Executor

EXECUTORS = ("local", "ray")


def open_executor(name: str) -> Executor:
    """The executor of that name, ready to open sessions; the caller closes it.

    Raises:
        BadInput: no executor has that name.
        EnvironmentProblem: something it needs is not installed or does not answer.
    """
    match name:
        case "local":
            from autotune.executors.local import LocalExecutor

            return LocalExecutor()
        case "ray":
            from autotune.executors.ray import RayExecutor

            return RayExecutor()
        case _:
            raise BadInput(f"executor must be one of {', '.join(EXECUTORS)}; got {name!r}: use local for this machine")
