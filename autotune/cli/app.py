"""The application: its commands in groups, with examples, and the options allowed before a command."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.options import JSON_HELP, OUTPUT, ROOT_HELP, Settings
from autotune.cli.read import knobs, report, studies
from autotune.cli.run import doctor, look, resume, search, techniques
from autotune.errors import ExitCode
from autotune.study.listing import DEFAULT_ROOT

NAME = "autotune"

app = typer.Typer(
    name=NAME,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # an uncaught exception is a bug: bug reports need the plain traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {metadata.version(NAME)}")
        raise typer.Exit


@app.callback(
    help="Find the training configuration with the best return on investment, and prove it.",
    epilog="Start with: `autotune search quickstart`",
)
def _before_the_command(
    context: typer.Context,
    root: Annotated[Path, typer.Option(help=ROOT_HELP, show_default=False, rich_help_panel=OUTPUT)] = DEFAULT_ROOT,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP, rich_help_panel=OUTPUT)] = False,
    version: Annotated[  # noqa: ARG001 - its callback prints
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    context.obj = Settings(root=root, as_json=as_json)


def _command(run: Callable[..., ExitCode], group: str, *examples: str) -> None:
    lines = "\n\n".join(f"`autotune {example}`" for example in examples)
    app.command(rich_help_panel=group, epilog=f"Examples:\n\n{lines}")(run)


_command(
    search,
    "Search",
    "search quickstart",
    "search my_space.toml --dry-run",
    "search my_space.toml --data corpus.txt --study mine --budget 20m",
)
_command(
    resume,
    "Search",
    "resume mine",
    "resume mine --budget 40m",
    "resume mine --fork mine-2 --space my_space.toml",
)
_command(look, "Results", "look mine run1.csv", "look mine run1.csv --baseline-log baseline.csv")
_command(report, "Results", "report mine", "report mine --json")
_command(studies, "Results", "studies", "studies --root /data/reports --json")
_command(knobs, "Before a search", "knobs", "knobs learning_rate")
_command(doctor, "Before a search", "doctor", "doctor my_space.toml --json")
_command(techniques, "Before a search", "techniques", "techniques power_of_two --restarts 8")
