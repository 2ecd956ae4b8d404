"""A child ends with its parent, whatever it does at that moment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel ends the children of the dead")

_PARENT = """
import os, subprocess, sys
lifeline, ours = os.pipe()
child = subprocess.Popen([sys.executable, "-P", "-c", sys.argv[1], str(lifeline)], pass_fds=(lifeline,))
child.wait()
"""
_CHILD = """
import ctypes, os, signal, sys
from autotune_model.lifeline import end_with_parent
end_with_parent(int(sys.argv[1]))
print("ready", flush=True)
"""


@pytest.mark.parametrize(
    "state",
    [
        "signal.pause()",
        "ctypes.PyDLL(None).pause()",  # in native code, with the interpreter's lock held
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGHUP)]\nwhile True: pass",
    ],
)
def test_a_child_ends_with_its_parent_in_whatever_state_it_is(state: str) -> None:
    command = [sys.executable, "-P", "-c", _PARENT, _CHILD + state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        assert parent.stdout.read() == b"", "ends when nobody is left to write"


def test_a_child_whose_parent_is_gone_already_does_not_begin() -> None:
    lifeline, ours = os.pipe()
    os.close(ours)
    command = [sys.executable, "-P", "-c", _CHILD, str(lifeline)]
    done = subprocess.run(command, pass_fds=(lifeline,), stdout=subprocess.PIPE, check=False)
    os.close(lifeline)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_lifeline_that_is_no_pipe_ends_nothing() -> None:
    script = f"{_CHILD}sys.exit(7)"
    for stdin in (subprocess.DEVNULL, subprocess.PIPE):
        with subprocess.Popen([sys.executable, "-P", "-c", script, "0"], stdin=stdin, stdout=subprocess.PIPE) as child:
            assert child.wait() == 7


def test_a_forks_parent_that_is_another_ends_it() -> None:
    script = "from autotune_model.lifeline import end_with_forker\nend_with_forker(1 << 21)\nraise SystemExit(7)"
    assert subprocess.run([sys.executable, "-P", "-c", script], check=False).returncode == 1
