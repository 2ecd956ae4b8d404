"""The commands that measure: `search`, `resume`, `doctor`, `techniques`.

Their imports wait until the arguments are known to be valid, so that mistakes are reported at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autotune.cli.names import find_space, find_study
from autotune.cli.options import (
    BaselineLog,
    Budget,
    ExecutorName,
    Json,
    Root,
    SpaceName,
    StudyName,
    seconds_of,
    settings,
)
from autotune.errors import BadInput, ExitCode
from autotune.printable import printable, printable_lines
from autotune.study.listing import read_report

if TYPE_CHECKING:
    from autotune.api import Finished

_DATA_HELP = "Text to train on instead of the space's own: a file, a folder, a glob, a .jsonl file, or stdlib."


def search(
    context: typer.Context,
    space: SpaceName,
    data: Annotated[str, typer.Option(help=_DATA_HELP, metavar="TEXT", show_default=False)] = "",
    study: Annotated[
        str, typer.Option(help="Name of the study (default: that of the space).", metavar="NAME", show_default=False)
    ] = "",
    budget: Budget = "",
    baseline_log: BaselineLog = None,
    executor: ExecutorName = "local",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show what would be searched, run nothing.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> ExitCode:
    """Search a space for the configuration with the best return on investment.

    If a study of that name was interrupted, it continues where it stopped.
    """
    at = settings(context, root, as_json)
    path, seconds = find_space(space), seconds_of(budget)

    from autotune import api
    from autotune.cli.live import progress_for

    if dry_run:
        preview = api.dry_run(
            path,
            data=data,
            study=study,
            budget_seconds=seconds,
            root=at.root,
            executor=executor,
            as_json=at.as_json,
        )
        print(printable_lines(preview))
        return ExitCode.DONE
    with progress_for(sys.stderr) as progress:
        finished = api.search(
            path,
            data=data,
            study=study,
            budget_seconds=seconds,
            root=at.root,
            executor=executor,
            listeners=(progress,),
            baseline_log=baseline_log or "",
        )
    return _show(finished, as_json=at.as_json)


def resume(
    context: typer.Context,
    study: StudyName,
    budget: Budget = "",
    fork: Annotated[
        str,
        typer.Option(
            help="Start a new study of this name, which tries the best trials of STUDY first.",
            metavar="NEW",
            show_default=False,
        ),
    ] = "",
    space: Annotated[
        Path | None,
        typer.Option(
            help="Space file of the fork (default: the one in the folder of STUDY).", metavar="PATH", show_default=False
        ),
    ] = None,
    baseline_log: BaselineLog = None,
    executor: ExecutorName = "local",
    root: Root = None,
    as_json: Json = False,
) -> ExitCode:
    """Continue an interrupted study, or give a finished one a larger budget."""
    at = settings(context, root, as_json)
    if space and not fork:
        raise BadInput("--space is for a fork; got it without --fork: add --fork NEW")
    find_study(study, at.root)
    seconds = seconds_of(budget)

    from autotune import api
    from autotune.cli.live import progress_for

    with progress_for(sys.stderr) as progress:
        finished = api.resume(
            study,
            fork=fork,
            space_path=space or "",
            budget_seconds=seconds,
            root=at.root,
            executor=executor,
            listeners=(progress,),
            baseline_log=baseline_log or "",
        )
    return _show(finished, as_json=at.as_json)


def look(
    context: typer.Context,
    study: StudyName,
    log: Annotated[
        Path, typer.Argument(help="Log of run 1: CSV, JSON lines, or what the trainer printed.", metavar="LOG")
    ],
    baseline_log: BaselineLog = None,
    root: Root = None,
    as_json: Json = False,
) -> ExitCode:
    """Decide after the first run of the plan: keep what it tried for the other runs, or go back."""
    at = settings(context, root, as_json)
    find_study(study, at.root)

    from autotune import api
    from autotune.cli.printers import print_look

    found = api.look(study, log, baseline_log=baseline_log or "", root=at.root)
    if at.as_json:
        _print_json(found)
    else:
        print_look(found, Console())
    return ExitCode.DONE


def doctor(
    context: typer.Context,
    space: SpaceName = "techniques",
    executor: ExecutorName = "local",
    root: Root = None,
    as_json: Json = False,
) -> ExitCode:
    """Examine this machine, and say which values of a space it cannot run or cannot gain from."""
    at = settings(context, root, as_json)
    path = find_space(space)

    from autotune import api
    from autotune.cli.printers import print_examination

    found = api.doctor(path, root=at.root, executor=executor)
    if at.as_json:
        _print_json(found)
    else:
        print_examination(found.machine, found.pruned, found.storage, Console())
    return ExitCode.ENVIRONMENT if found.storage else ExitCode.DONE


def techniques(
    context: typer.Context,
    space: SpaceName = "power_of_two",
    restarts: Annotated[int, typer.Option(help="Fresh processes of every pair, at least 2.", metavar="N")] = 4,
    executor: ExecutorName = "local",
    as_json: Json = False,
) -> ExitCode:
    """Measure whether sizes that are powers of two pay on this machine."""
    if restarts < 2:
        raise BadInput(f"--restarts must be at least 2 for an interval; got {restarts}: use 4")
    path = find_space(space)

    from autotune import api
    from autotune.cli.printers import print_alignment

    found = api.alignment(
        path,
        restarts=restarts,
        executor=executor,
        tell=lambda words: print(printable(words), file=sys.stderr, flush=True),
    )
    if settings(context, as_json=as_json).as_json:
        _print_json(found)
    else:
        print_alignment(found, Console())
    return ExitCode.DONE


def _show(finished: Finished, *, as_json: bool) -> ExitCode:
    from autotune import api
    from autotune.cli.printers import print_recommendation

    if as_json:
        print(printable_lines(read_report(finished.folder, "report.json") or ""), end="")
    else:
        print_recommendation(api.view_of(finished), Console())
    return ExitCode.DONE


def _print_json(found: object) -> None:
    import json

    from autotune.trial.codec import to_json

    print(json.dumps(to_json(found), indent=2))
