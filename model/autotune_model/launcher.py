"""The launcher (Linux): a process that has imported everything and forks workers on request.

Importing torch takes seconds, a fork a few milliseconds. The launcher computes nothing with torch:
neither libgomp's threads nor a CUDA context survive a fork.

Its messages are `Fork` and `Notice` in `autotune_model.protocol`.
"""

from __future__ import annotations

import gc
import itertools
import os
import selectors
import signal
import socket
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from autotune_model import worker
from autotune_model.lifeline import end_with_forker, end_with_parent
from autotune_model.protocol import Exited, Forked, Launcher, Notice, Phase, PhaseName, decode_fork, encode, send

_MESSAGE_BYTES = 65_536
_DESCRIPTORS = 3  # commands, events, log


def serve(control: socket.socket) -> None:
    """Fork a worker for each request, and report its exit, until the driver closes its end of `control`.

    Then all that is left of the workers is killed, with what they started, whatever state they are in.
    """
    # From here on the end of `control` says that the driver is gone. The signal only wakes a launcher that is stopped:
    # killed, it could not end the groups of its workers.
    end_with_parent(control.fileno(), by=signal.SIGCONT)
    gc.collect()
    gc.freeze()  # otherwise a child's collector would touch, and so copy, every page of the imports
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    workers: set[int] = set()
    try:
        _serve(control, selector, workers)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the driver is gone, in the middle of a message
    finally:
        for pid in workers:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def _serve(control: socket.socket, selector: selectors.BaseSelector, workers: set[int]) -> None:
    """The loop of `serve`; `workers` are those that live."""
    _tell(control, Launcher(ready={}))
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                selector.unregister(key.fd)
                workers.discard(key.data)
                _report_exit(control, pid_fd=key.fd, pid=key.data)
                continue
            # The kernel never merges a message that carries descriptors with the next: this is one whole request.
            message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, _DESCRIPTORS)
            if not message:
                return
            pid = _fork(Path(decode_fork(message).session), *descriptors)
            workers.add(pid)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, data=pid)
            _tell(control, Forked(pid=pid))


def _fork(session_path: Path, commands_fd: int, events_fd: int, log_fd: int) -> int:
    """Start a worker that holds these descriptors and no others; returns its process id."""
    started, launcher = time.perf_counter(), os.getpid()
    with warnings.catch_warnings():
        # Python 3.12+ warns about threads; they are OpenBLAS's, which handles forks itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _become_worker(launcher, session_path, commands_fd, events_fd, log_fd, started)
    for descriptor in (commands_fd, events_fd, log_fd):
        os.close(descriptor)
    return pid


def _become_worker(
    launcher: int, session_path: Path, commands_fd: int, events_fd: int, log_fd: int, started: float
) -> NoReturn:
    try:
        os.setsid()
        end_with_forker(launcher)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        _close_all_but(0, 1, 2, commands_fd, events_fd)
        events = os.fdopen(events_fd, "w", encoding="utf-8")
        send(events, Phase(name=PhaseName.STARTED))
        worker.serve(session_path, commands_fd, events, started)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # never return to the launcher's loop


def _close_all_but(*kept: int) -> None:
    """Close all other descriptors: the launcher's and those of workers forked earlier."""
    for below, above in itertools.pairwise([*sorted(kept), os.sysconf("SC_OPEN_MAX")]):
        os.closerange(below + 1, above)


def _report_exit(control: socket.socket, pid_fd: int, pid: int) -> None:
    os.close(pid_fd)
    _, status = os.waitpid(pid, 0)
    _tell(control, Exited(pid=pid, status=status))


def _tell(control: socket.socket, notice: Notice) -> None:
    control.sendall(encode(notice).encode())
