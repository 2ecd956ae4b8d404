"""Worker processes: starting, reading from and killing them. Knows pipes and signals, not training."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

from autotune.errors import EnvironmentProblem
from autotune.executors.base import OutOfTime, SessionEnded
from autotune.trial.codec import Malformed, encode_fork, parse_notice
from autotune.trial.types import FailedKind
from autotune.workload.base import WorkerOrder
from autotune_model.protocol import Exited, Forked, Launcher, Notice

_LAUNCHER_SECONDS = 120.0  # importing torch: 4 s, from a cold network disk a minute
_LEAVE_SECONDS = 2.0  # for a launcher to exit by itself
_FORK_SECONDS = 30.0  # a fork takes milliseconds, unless the machine is swapping
_LONGEST_LINE = 2**24  # bytes; far above any message, so a longer line is a runaway process
_WATCH_SECONDS = 2.0  # between looks at the time and the log during a long wait; most waits are shorter


def _nothing() -> None: ...


class LineReader:
    """Reads lines from a pipe or socket, each with a deadline. Closing it closes the descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Takes over `descriptor`."""
        self._descriptor = descriptor
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._buffer = b""

    def line(self, deadline: float, watch: Callable[[], None] = _nothing) -> bytes:
        """The next line with its newline. At the end of the stream, the rest without one, possibly empty.

        A long wait calls `watch` every two seconds, which may raise.

        Raises:
            TimeoutError: no whole line by `deadline`, in seconds of the monotonic clock.
        """
        while b"\n" not in self._buffer and len(self._buffer) < _LONGEST_LINE:
            if not self._selector.select(min(_WATCH_SECONDS, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    raise TimeoutError
                watch()
                continue
            try:
                chunk = os.read(self._descriptor, 65_536)
            except ConnectionResetError:  # the peer died before it read everything that we sent
                chunk = b""
            if not chunk:
                break
            self._buffer += chunk
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return line + newline

    def close(self) -> None:
        """Close the descriptor."""
        self._selector.close()
        os.close(self._descriptor)


class WorkerProcess(Protocol):
    """A running worker, the leader of its own process group."""

    @property
    def pid(self) -> int: ...

    def exit_code(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None if it is still running after `seconds`, as far as known."""
        ...

    def release(self) -> None:
        """Forget the process; nothing may be asked about it afterwards."""
        ...


class SpawnedWorker:
    """A worker started separately, which imports torch itself."""

    def __init__(self, order: WorkerOrder, session_path: str, commands: int, events: int, log: int) -> None:
        """Start it; it inherits the descriptors, which the caller still has to close."""
        duty = ["worker", "--session", session_path, "--commands", str(commands), "--events", str(events)]
        self._process = _start(order, duty, log=log, descriptors=(commands, events))

    @property
    def pid(self) -> int:
        """Also its process group id."""
        return self._process.pid

    def exit_code(self, seconds: float) -> int | None:
        """See `WorkerProcess.exit_code`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def release(self) -> None:
        """Nothing to forget."""


def _start(
    order: WorkerOrder, duty: Sequence[str], *, log: int, descriptors: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """Start the program of `order` with arguments `duty`, as the leader of its own session.

    Raises:
        EnvironmentProblem: the program cannot be started.
    """
    try:
        return subprocess.Popen(
            [*order.program, *duty],
            env=os.environ | order.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"a trial's program must start; got {error}: check that it is installed here, and executable"
        ) from None


class ForkedWorker:
    """A worker forked by a launcher. Only the launcher, its parent, knows how it ended."""

    def __init__(self, launcher: LauncherProcess, pid: int) -> None:
        """Made by `LauncherProcess.fork`."""
        self._launcher = launcher
        self._pid = pid

    @property
    def pid(self) -> int:
        """Also its process group id."""
        return self._pid

    def exit_code(self, seconds: float) -> int | None:
        """See `WorkerProcess.exit_code`."""
        return self._launcher.exit_code(self._pid, seconds)

    def release(self) -> None:
        """Let the launcher forget it."""
        self._launcher.forget(self._pid)


class LauncherProcess:
    """A process that has imported torch once and forks workers from that image."""

    def __init__(self, order: WorkerOrder, left_seconds: Callable[[], float]) -> None:
        """Start the order's program and wait until it is ready to fork, at most as long as there is time left.

        Raises:
            EnvironmentProblem: it cannot start, for example because torch is missing.
            SessionEnded: somebody killed it, or no time was left.
        """
        self._left_seconds = left_seconds
        self._program = order.program
        self._environment = dict(order.environment)
        self._workers = 0
        self._is_retired = False
        self._is_distrusted = False
        self._exit_codes: dict[int, int] = {}
        with ExitStack() as opened:
            ours, theirs = map(opened.enter_context, socket.socketpair())
            self._log = opened.enter_context(tempfile.TemporaryFile())
            control = theirs.fileno()
            duty = ["launcher", "--control", str(control)]
            self._process = _start(order, duty, log=self._log.fileno(), descriptors=(control,))
            theirs.close()
            opened.pop_all()  # from here on `_end` closes them
        self._control = ours
        self._reader = LineReader(os.dup(ours.fileno()))
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise

    @property
    def is_gone(self) -> bool:
        """Whether it has died."""
        return self._process.poll() is not None

    def serves(self, order: WorkerOrder) -> bool:
        """Whether it runs the program of `order` in the same environment."""
        return (self._program, self._environment) == (order.program, dict(order.environment))

    def fork(self, session_path: str, descriptors: tuple[int, int, int]) -> ForkedWorker:
        """Fork a worker that uses `descriptors`: commands to read, events to write, and its log.

        Raises:
            SessionEnded: the launcher died or hangs, or no time is left.
        """
        try:
            socket.send_fds(self._control, [encode_fork(session_path)], descriptors)
            deadline = time.monotonic() + _FORK_SECONDS
            while not isinstance(notice := self._hear(deadline, self._watch), Forked):
                if notice is None:
                    raise BrokenPipeError
        except OutOfTime:
            self._process.kill()
            raise
        except OSError as error:  # includes TimeoutError
            self._process.kill()
            hangs = isinstance(error, TimeoutError)
            raise SessionEnded(
                FailedKind.HUNG if hangs else FailedKind.CRASH,
                f"the launcher must fork a worker within {_FORK_SECONDS:g} s; "
                f"it {'did not' if hangs else 'died'} ({last_line(self._log.fileno())}): run the trial again",
            ) from None
        self._workers += 1
        return ForkedWorker(self, notice.pid)

    def exit_code(self, pid: int, seconds: float) -> int | None:
        """The exit code of its worker `pid`, or None if the launcher does not report it within `seconds`."""
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):
            while pid not in self._exit_codes and self._hear(deadline) is not None:
                pass
        return self._exit_codes.get(pid)

    def forget(self, pid: int) -> None:
        """Drop worker `pid`. A retired launcher ends with its last worker."""
        self._exit_codes.pop(pid, None)
        self._workers -= 1
        self._end_if_idle()

    def retire(self) -> None:
        """End as soon as the last worker is gone."""
        self._is_retired = True
        self._end_if_idle()

    def _await_ready(self) -> None:
        try:
            is_ready = isinstance(self._hear(time.monotonic() + _LAUNCHER_SECONDS, self._watch), Launcher)
        except TimeoutError:
            is_ready = False
        if not is_ready:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_SECONDS)  # it may still be writing its error to the log
            if self._process.poll() == -signal.SIGKILL and not self._is_distrusted:
                raise SessionEnded(FailedKind.KILLED, "the launcher was killed by SIGKILL while it started")
            raise EnvironmentProblem(
                f"`{' '.join(self._program)} launcher` must start within {_LAUNCHER_SECONDS:g} s; "
                f"got exit code {self._process.poll()} ({last_line(self._log.fileno())}): "
                "check that torch and autotune are installed together"
            )

    def _hear(self, deadline: float, watch: Callable[[], None] = _nothing) -> Notice | None:
        """The next notice, exit codes recorded; None once the launcher is gone.

        Raises:
            TimeoutError: no notice by `deadline`.
        """
        line = self._reader.line(deadline, watch)
        if not line:
            return None
        try:
            notice = parse_notice(line)
            if isinstance(notice, Exited):
                self._exit_codes[notice.pid] = os.waitstatus_to_exitcode(notice.status)
        except (Malformed, ValueError):
            self._is_distrusted = True  # its messages cannot be read any more: it ends, and its workers with it
            self._process.kill()
            return None
        return notice

    def _watch(self) -> None:
        if self._left_seconds() <= 0.0:
            raise OutOfTime

    def _end_if_idle(self) -> None:
        if self._is_retired and self._workers == 0:
            self._end()

    def _end(self) -> None:
        self._reader.close()
        self._control.close()  # this asks it to exit
        try:
            self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(self._process.pid)
            self._process.wait()
        self._log.close()


def kill_group(pid: int) -> None:
    """Kill all processes of the group that `pid` leads."""
    with suppress(ProcessLookupError, PermissionError):  # already gone; macOS raises the latter for zombies
        os.killpg(pid, signal.SIGKILL)


def last_line(log: int, start: int = 0) -> str:
    """The last non-empty line of the open file `log` after byte `start`."""
    size = os.fstat(log).st_size
    begin = max(start if start <= size else 0, size - 4_096)  # a log that was too large was cut
    lines = os.pread(log, 4_096, begin).decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "nothing in its log")


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have numbers only
        return f"signal {number}"
