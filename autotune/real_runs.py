"""The look from a study and logs: what run 1 of the plan decides for the other runs (docs/method.md, 9.5)."""

from __future__ import annotations

import time
from pathlib import Path

from autotune.analysis.decision import Expected, RaceInRun
from autotune.analysis.look import Looked, RunEnd, compared
from autotune.api import running_executor
from autotune.errors import BadInput
from autotune.executors.base import Executor
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.search.calibrate import calibrate
from autotune.search.propose import database
from autotune.search.recommend import whole_case
from autotune.study.listing import DEFAULT_ROOT
from autotune.study.runlog import RunLog, log_of_run
from autotune.study.store import Study, check_name


def look(
    study: str,
    log: Path | str,
    *,
    baseline_log: Path | str = "",
    root: Path | str = DEFAULT_ROOT,
    executor: str | Executor = "local",
) -> Looked:
    """What run 1 of the plan, with the configuration to try, decides for the other runs.

    `log` is that run's. It is compared with the baseline's run: `baseline_log`, or the log given to the search.

    Raises:
        autotune.errors.AutotuneError: its subclasses; BadInput if a log cannot be used, or there is nothing to decide.
    """
    with Study.open(Path(root) / check_name(study)) as opened:
        machine, space = opened.machine, opened.space
        if machine is None or not opened.is_finished:
            raise BadInput(
                f"a look needs a finished study; {study!r} is not finished: `autotune resume {study}` continues it"
            )
        with running_executor(executor) as running, database(opened.database) as storage:
            lab = Lab(
                study=opened, executor=running, machine=machine, storage=storage, clock=time.monotonic, listeners=()
            )
            case = whole_case(lab, calibrate(lab))
        if not isinstance(case.decision, Expected | RaceInRun):
            raise BadInput(
                f"a look decides about what is expected; {study!r} expects nothing: `autotune report {study}` says why"
            )
        points = case.calibration.points
        baseline = opened.baseline_log
        if baseline_log:
            baseline = log_of_run(Path(baseline_log), space.baseline, space, machine, points)
        if baseline is None:
            raise BadInput("a look compares two runs; got no log of the baseline's: add --baseline-log FILE")
        tried = log_of_run(Path(log), case.decision.config, space, machine, points)
    if tried.is_held_out != baseline.is_held_out:
        raise BadInput("two logs must have the same loss; got held-out and training loss: log the held-out loss")
    found = compared(case, _end_of(tried), _end_of(baseline))
    if isinstance(found, Unknown):
        raise BadInput(found.reason)
    return found


def _end_of(log: RunLog) -> RunEnd:
    return RunEnd(tokens=log.points[-1].tokens, loss=log.points[-1].loss)
