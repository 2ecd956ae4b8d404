"""The `autotune` command: parses, calls, prints. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import typer

from autotune.cli.app import NAME, app
from autotune.errors import AutotuneError, ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is one of `autotune.errors.ExitCode`."""
    if f"_{NAME.upper()}_COMPLETE" in os.environ:  # the shell asks for completions
        app(prog_name=NAME)
    _interrupt_on_signals()
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()  # here, where a closed pipe can be told from a disk error
        return code
    except typer.TyperException as error:
        return _refuse(_usage(error), ExitCode.BAD_INPUT)
    except AutotuneError as error:
        return _refuse(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _refuse("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at exit
        return ExitCode.DONE
    except OSError as error:
        problem = f"files must be readable and writable; got {error}: see --root and free space"
        return _refuse(problem, ExitCode.ENVIRONMENT)


def _run(arguments: list[str]) -> int:
    """Run a command without `app()`, which would exit and swallow interrupts and closed pipes."""
    command = typer.main.get_command(app)
    try:
        with command.make_context(NAME, arguments) as context:
            return int(command.invoke(context))
    except typer.Exit as done:  # --help, --version
        return done.exit_code
    except SystemExit:  # raised by rich on a closed pipe, by typer after installing a completion
        return ExitCode.DONE


def _refuse(problem: str, code: ExitCode) -> int:
    print(f"{NAME}: {problem}", file=sys.stderr)
    return code


def _usage(error: typer.TyperException) -> str:
    """A mistake in the command line, and where to find the usage."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    path = context.command_path if context else NAME
    return f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See `{path} --help`."


def _interrupt_on_signals() -> None:
    """`kill`, a closed terminal and Ctrl-\\ end a search as Ctrl-C does: all is cleaned up, and it can be resumed."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has a closed terminal ignored
            signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
