"""Ties the life of a process to that of its parent, whatever happens to either. No torch here.

A thread that waits for a pipe to close (`autotune_model.worker`) takes the whole process group along, but it needs the
interpreter's lock, and a process that runs. On Linux the kernel itself ends a child of a dead parent: also one that
holds the lock in native code, or is stopped. Elsewhere the thread has to do.

A parent, to the kernel, is the *thread* that started the child: it must live as long as the child should.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(lifeline: int, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process `by` when its parent ends; exit if that has happened already.

    `lifeline` is the end of a pipe or socket whose other end only the parent holds: it tells whether it is still there.
    """
    _set_signal(by)
    hung_up = select.poll()
    hung_up.register(lifeline, 0)  # of a hang-up poll tells unasked
    if any(events & select.POLLHUP for _, events in hung_up.poll(0)):
        os._exit(1)


def end_with_forker(parent: int) -> None:
    """The same for a fork, which knows its parent's process id."""
    _set_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _set_signal(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)  # cannot fail for a signal
