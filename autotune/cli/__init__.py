"""The `autotune` command: parses, calls, prints. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

from rich.console import Console

from autotune import api
from autotune.cli.terminal import print_alignment, print_examination, print_knobs, print_recommendation, progress_for
from autotune.errors import AutotuneError, BadInput, ExitCode, StoreDamaged
from autotune.search.preview import preview
from autotune.space.load import load_space, parse_duration
from autotune.space.shipped import shipped_spaces
from autotune.study.store import check_name, studies


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is one of `autotune.errors.ExitCode`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)  # `kill` ends a search as Ctrl-C does: resumable
    try:
        code = int(options.run(options))
        sys.stdout.flush()  # here, where a reader that has gone away can be told from a broken disk
        return code
    except AutotuneError as error:
        print(f"autotune: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("autotune: interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return int(ExitCode.DONE)
    except OSError as error:
        print(f"autotune: files must be readable and writable; got {error}: see --root and free space", file=sys.stderr)
        return int(ExitCode.ENVIRONMENT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autotune", description="Find the training configuration with the best return on investment, and prove it."
    )
    parser.add_argument("--version", action="version", version=f"autotune {metadata.version('autotune')}")
    parser.add_argument("--root", type=Path, default=api.DEFAULT_ROOT, help="folder of all studies (default: reports)")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    search = commands.add_parser("search", help="search a space, or go on with its study")
    search.add_argument("space", type=Path, help="search space, a TOML file")
    search.add_argument("--data", default="", help="corpus: a text file, folder, glob or .jsonl, or stdlib")
    search.add_argument("--study", default="", help="name of the study (default: the space's)")
    search.add_argument("--budget", default="", help="cap on everything together: 90s, 20m, 1h30m")
    search.add_argument("--dry-run", action="store_true", help="say what would be searched and run nothing")
    search.add_argument("--json", action="store_true", help="print report.json on stdout")
    search.set_defaults(run=_search)

    resume = commands.add_parser("resume", help="go on with a study that was interrupted")
    resume.add_argument("study")
    resume.add_argument("--fork", default="", metavar="NEW", help="start a new study from its space and best trials")
    resume.add_argument("--budget", default="", help="budget of the fork: 90s, 20m, 1h30m")
    resume.add_argument("--json", action="store_true", help="print report.json on stdout")
    resume.set_defaults(run=_resume)

    report = commands.add_parser("report", help="print the recommendation of a study")
    report.add_argument("study")
    report.add_argument("--json", action="store_true", help="print report.json instead of Markdown")
    report.set_defaults(run=_report)

    listing = commands.add_parser("studies", help="list all studies")
    listing.set_defaults(run=_studies)

    knobs = commands.add_parser("knobs", help="list the knobs a space can turn")
    knobs.set_defaults(run=_knobs)
    doctor = commands.add_parser("doctor", help="examine this machine, and what of a space it cannot run")
    doctor.add_argument(
        "space", type=Path, nargs="?", default=shipped_spaces()["techniques"], help="(default: techniques.toml)"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON on stdout")
    doctor.set_defaults(run=_doctor)

    techniques = commands.add_parser("techniques", help="measure whether powers of two pay on this machine")
    techniques.add_argument(
        "space",
        type=Path,
        nargs="?",
        default=shipped_spaces()["power_of_two"],
        help="(default: power_of_two.toml)",
    )
    techniques.add_argument("--restarts", type=int, default=4, help="fresh processes of every pair, at least 2")
    techniques.add_argument("--json", action="store_true", help="print the findings as JSON on stdout")
    techniques.set_defaults(run=_techniques)
    return parser


def _search(options: argparse.Namespace) -> ExitCode:
    budget = parse_duration(options.budget) if options.budget else 0.0
    if options.dry_run:
        space = api.with_overrides(load_space(options.space), data=options.data, budget_seconds=budget)
        print(preview(space, as_json=options.json))
        return ExitCode.DONE
    with progress_for(sys.stderr) as progress:
        finished = api.search(
            options.space,
            data=options.data,
            study=options.study,
            budget_seconds=budget,
            root=options.root,
            listeners=(progress,),
        )
    return _show(finished, as_json=options.json)


def _resume(options: argparse.Namespace) -> ExitCode:
    with progress_for(sys.stderr) as progress:
        finished = api.resume(
            options.study,
            fork=options.fork,
            budget_seconds=parse_duration(options.budget) if options.budget else 0.0,
            root=options.root,
            listeners=(progress,),
        )
    return _show(finished, as_json=options.json)


def _report(options: argparse.Namespace) -> ExitCode:
    path = options.root / check_name(options.study) / ("report.json" if options.json else "report.md")
    if not path.exists():
        raise BadInput(
            f"a finished study has a report; got {options.study!r} without one: `autotune resume {options.study}`"
        )
    print(path.read_text(encoding="utf-8"), end="")
    return ExitCode.DONE


def _studies(options: argparse.Namespace) -> ExitCode:
    for folder, info in studies(options.root):
        if info is None:
            print(f"{folder.name:24} damaged")
            continue
        report = folder / "report.json"
        state = _verdict(report, info.name) if report.exists() else "unfinished"
        made = datetime.fromisoformat(info.created_at).strftime("%Y-%m-%d %H:%M")
        print(f"{info.name:24} {state:14} {made}  {info.space_name}")
    return ExitCode.DONE


def _verdict(report: Path, study: str) -> str:
    try:
        return str(json.loads(report.read_bytes())["verdict"])
    except (ValueError, KeyError, TypeError):
        raise StoreDamaged(
            f"report.json is JSON with a verdict; {report} is not: `autotune resume {study}` writes it anew"
        ) from None


def _knobs(_: argparse.Namespace) -> ExitCode:
    print_knobs(Console())
    return ExitCode.DONE


def _doctor(options: argparse.Namespace) -> ExitCode:
    found = api.doctor(options.space, root=options.root)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        machine = found.machine
        print_examination(machine.environment, machine.peak_flops, found.pruned, found.storage, Console())
    return ExitCode.ENVIRONMENT if found.storage else ExitCode.DONE


def _techniques(options: argparse.Namespace) -> ExitCode:
    if options.restarts < 2:
        raise BadInput(f"--restarts must be at least 2 for an interval; got {options.restarts}: use 4")
    found = api.alignment(
        options.space, restarts=options.restarts, tell=lambda words: print(words, file=sys.stderr, flush=True)
    )
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        print_alignment(found, Console())
    return ExitCode.DONE


def _show(finished: api.Finished, *, as_json: bool) -> ExitCode:
    if as_json:
        print((finished.folder / "report.json").read_text(encoding="utf-8"), end="")
    else:
        print_recommendation(api.view_of(finished), Console())
    return ExitCode.DONE


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
