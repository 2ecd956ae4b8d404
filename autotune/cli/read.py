"""The commands that only read: `report`, `studies`, `knobs`. They must be fast, so they import nothing heavy."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console

from autotune.cli.names import find_knob, find_study
from autotune.cli.options import Json, Root, StudyName, settings
from autotune.errors import BadInput, ExitCode, StoreDamaged
from autotune.printable import printable, printable_lines
from autotune.study.listing import read_report
from autotune.study.listing import studies as list_studies
from autotune.workload.builtin import KNOBS


def report(context: typer.Context, study: StudyName, root: Root = None, as_json: Json = False) -> ExitCode:
    """Print the report of a finished study, as Markdown or as JSON."""
    at = settings(context, root, as_json)
    folder = at.root / find_study(study, at.root)
    try:
        if _name_in(read_report(folder, "report.json")) not in ("", study):  # copied or renamed since
            from autotune import api

            api.report_again(study, root=at.root)
        text = read_report(folder, "report.json" if at.as_json else "report.md")
    except ValueError as error:
        raise StoreDamaged(f"a report must be as it was written; {folder} has another one: {error}") from None
    if text is None:
        raise BadInput(
            f"a finished study has a report; {study!r} is not finished: `autotune resume {study}` continues it"
        )
    print(printable_lines(text), end="")
    return ExitCode.DONE


def _name_in(report: str | None) -> str:
    """The study's name in the JSON of its report; empty if it has none."""
    found = json.loads(report) if report else {}
    name = found.get("study", "") if isinstance(found, dict) else ""
    return name if isinstance(name, str) else ""


def studies(context: typer.Context, root: Root = None, as_json: Json = False) -> ExitCode:
    """List all studies: name, state or verdict, when it was started (UTC), space."""
    at = settings(context, root, as_json)
    found = list_studies(at.root)
    if at.as_json:
        print(json.dumps([dataclasses.asdict(study) for study in found], indent=2))
    else:
        for study in found:
            started = study.created_at[:16].replace("T", " ")
            about = study.reason or f"{started:16}  {study.space}"
            print(printable(f"{study.name:24} {study.state:15} {about}".rstrip()))
    return ExitCode.DONE


def knobs(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Show this knob only.",
            metavar="KNOB",
            show_default=False,
            autocompletion=lambda incomplete: [n for n in KNOBS if n.startswith(incomplete)],
        ),
    ] = "",
    as_json: Json = False,
) -> ExitCode:
    """List the knobs that a space can search, with their values."""
    from autotune.cli.printers import print_knobs

    shown = {name: find_knob(name, KNOBS)} if name else KNOBS
    if settings(context, as_json=as_json).as_json:
        print(json.dumps([dataclasses.asdict(knob) for knob in shown.values()], indent=2))
    else:
        print_knobs(shown, Console())
    return ExitCode.DONE
