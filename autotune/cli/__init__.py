"""The `autotune` command: parses, calls, prints. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from autotune.cli.app import NAME, app
from autotune.errors import AutotuneError, ExitCode
from autotune.printable import printable

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # each ends a search resumably
_DEAF_SECONDS = 10.0  # after an interrupt, in which what runs is ended in good order


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is one of `autotune.errors.ExitCode`."""
    if f"_{NAME.upper()}_COMPLETE" in os.environ:  # the shell asks for completions
        app(prog_name=NAME)
    before = {number: handler for number in _INTERRUPTS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    interrupt = _Interrupt()
    for number in before:  # `nohup` has one ignored, and it stays so
        signal.signal(number, interrupt)
    try:
        return _main(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:  # one more, while the first was being told
        return ExitCode.INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if arguments is not None else signal.SIG_IGN)  # or else the process ends


def _main(arguments: list[str]) -> int:
    for size in ("COLUMNS", "LINES"):
        if not os.environ.get(size, "1").strip("0").isdecimal():  # a terminal of no size would show nothing
            del os.environ[size]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has not all of Unicode shows the rest escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # closed by whoever started this
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
    except MemoryError:
        return _refuse("autotune needs more memory than there is: free some, and resume", ExitCode.ENVIRONMENT)
    except Exception as error:  # a bug: whoever meets it gets one line, and whoever mends it the traceback
        return _refuse(_bug(error), ExitCode.BUG)


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
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more; the exit code says it, too
            print(f"{NAME}: {printable(problem)}", file=sys.stderr, flush=True)
    return code


def _bug(error: Exception) -> str:
    """What went wrong and where, and the file with the traceback."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error}"[:300]
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{NAME}-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(text)
        where = f"its traceback is in {file.name}"
    except OSError as problem:
        where = f"its traceback could not be kept ({problem.strerror})"
    return f"this is a bug ({what}, {Path(last.filename).name}:{last.lineno}); {where}: please report it with that file"


def _usage(error: typer.TyperException) -> str:
    """A mistake in the command line, and where to find the usage."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    path = context.command_path if context else NAME
    return f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See `{path} --help`."


class _Interrupt:
    """Handles a signal as Ctrl-C. More of them within seconds change nothing: ending in good order takes a moment."""

    def __init__(self) -> None:
        self._heard_at = float("-inf")

    def __call__(self, _signal: int, _frame: object) -> None:
        now = time.monotonic()
        if now - self._heard_at >= _DEAF_SECONDS:
            self._heard_at = now
            raise KeyboardInterrupt
