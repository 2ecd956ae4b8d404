"""Options shared by several commands, and their values when given before the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.names import spaces_like, studies_like
from autotune.errors import BadInput
from autotune.executors import EXECUTORS
from autotune.space.document import parse_duration
from autotune.space.keys import did_you_mean
from autotune.study.listing import DEFAULT_ROOT

ROOT_HELP = f"Folder of all studies (default: {DEFAULT_ROOT})."
JSON_HELP = "Print JSON on stdout."
OUTPUT = "Input and output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options allowed both before and after the command."""

    root: Path
    as_json: bool


def settings(context: typer.Context, root: Path | None = None, as_json: bool = False) -> Settings:
    """The settings of a command: options after it override those before it."""
    before = context.find_object(Settings)
    root_before, json_before = (before.root, before.as_json) if before else (DEFAULT_ROOT, False)
    return Settings(root=root or root_before, as_json=as_json or json_before)


def seconds_of(budget: str) -> float:
    """The seconds of `--budget`; 0 if it is not given.

    Raises:
        BadInput: it is not a duration.
    """
    return parse_duration(budget) if budget else 0.0


def _known_executor(name: str) -> str:
    if name not in EXECUTORS:
        raise BadInput(f"--executor is one of {', '.join(EXECUTORS)}; got {name!r}: {did_you_mean(name, EXECUTORS)}")
    return name


def _complete_study(context: typer.Context, incomplete: str) -> list[str]:
    before = context.parent.params if context.parent else {}  # no command has run yet to store settings
    return studies_like(incomplete, context.params.get("root") or before.get("root") or DEFAULT_ROOT)


Root = Annotated[Path | None, typer.Option("--root", help=ROOT_HELP, show_default=False, rich_help_panel=OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help=JSON_HELP, rich_help_panel=OUTPUT)]
SpaceName = Annotated[
    str,
    typer.Argument(help="A TOML file, or the name of a shipped space.", metavar="SPACE", autocompletion=spaces_like),
]
StudyName = Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY", autocompletion=_complete_study)]
Budget = Annotated[
    str,
    typer.Option(help="Hard cap on the whole search: 90s, 20m, 1h30m.", metavar="DURATION", show_default=False),
]
BaselineLog = Annotated[
    Path | None,
    typer.Option(
        "--baseline-log",
        help="Log of a run of the plan with the baseline: CSV, JSON lines, or what the trainer printed.",
        metavar="FILE",
        show_default=False,
    ),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        help="Where trials run.",
        metavar="|".join(EXECUTORS),
        callback=_known_executor,
        autocompletion=lambda: list(EXECUTORS),
    ),
]
