"""A trial in a process of its own: its answer, its death, its standstill, and the end of whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autotune_model.attempts import attempt


def _saying(body: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-S", "-c", f"import os, signal, sys\n{body}")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('print(\'{"reason": ""}\')', ""),
        (
            "print('chatter')\nprint('{\"reason\": \"no ' + ' '.join(sys.argv[1:]) + '\"}')",
            "no attempt flex --device cpu",
        ),
        ("print('{\"reason\": \"no\"}', flush=True)\nprint('late chatter', file=sys.stderr)\nos.abort()", "no"),
        ("print('last words', flush=True)\nos.kill(os.getpid(), 11)", "trying it died of signal 11 (last words)"),
        ("sys.exit(3)", "trying it left with exit code 3 (without a message)"),
        ("pass", "trying it left with exit code 0 (without a message)"),
    ],
)
def test_whatever_becomes_of_the_process_is_an_answer(body: str, reason: str) -> None:
    assert attempt("flex", "cpu", command=_saying(body)) == reason


def test_a_standstill_is_a_reason_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    """The compiler that hangs is a child of the process; it holds a pipe open as long as it lives."""
    path = tmp_path / "alive"
    os.mkfifo(path)
    alive = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    hang = f"alive = open({str(path)!r}, 'w')\nos.fork()\nsignal.pause()"
    reason = attempt("compile", "cpu", command=_saying(hang), patience_seconds=1.0)
    assert reason == "trying it did not end within 1 s"
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b""
    os.close(alive)


def test_it_ends_with_whoever_started_it() -> None:
    body = "from autotune_model.attempts import end_with_starter\nend_with_starter()\nprint(flush=True)\nsignal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"import signal\n{body}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdin
    process.stdout.readline()
    process.stdin.close()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
