"""The other processes of a multi-process session: started, controlled and watched by rank 0.

```
driver <-> rank 0 --commands--> rank r     rank 0 forwards the driver's commands, over a pipe to each rank
           rank 0 <---events--- rank r     and reads only failures and end of file
```
All are in the process group of rank 0. A rank dies when its command pipe closes. If a rank fails or dies,
rank 0 reports it in its own events and kills the group. A thread does this, because the main thread may wait forever
for that rank in a collective operation. No torch here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn

from autotune_model.protocol import Command, FailedKind, Failure, decode_failure, send

_ECHO_SECONDS = 2.0


class Ranks:
    """Ranks 1 and up of a session. Only one rank may report how the session ended."""

    def __init__(self, events: IO[str]) -> None:
        """Does not start any; `events` goes to the driver."""
        self._events = events
        self._commands: list[IO[str]] = []
        self._is_over = threading.Lock()

    def start(self, session_path: Path, world_size: int, port: int) -> None:
        """Start all of them; they connect to rank 0 at `port`."""
        for rank in range(1, world_size):
            commands_read, commands_write = os.pipe()
            events_read, events_write = os.pipe()
            command = [sys.executable, "-P", "-m", "autotune_model", "rank", "--session", str(session_path)]
            command += ["--commands", str(commands_read), "--events", str(events_write)]
            command += ["--rank", str(rank), "--port", str(port)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(commands_read, events_write))
            os.close(commands_read)
            os.close(events_write)
            self._commands.append(os.fdopen(commands_write, "w", encoding="utf-8"))
            threading.Thread(target=self._watch, args=(rank, process, events_read), daemon=True).start()

    def tell(self, command: Command) -> None:
        """Forward a command; a rank with a broken pipe is dead, which `_watch` detects."""
        for commands in self._commands:
            with suppress(BrokenPipeError):
                send(commands, command)

    def end(self) -> bool:
        """Whether the caller may report how the session ends: only the first caller."""
        return self._is_over.acquire(blocking=False)

    def fail(self, failure: Failure) -> None:
        """Report a failure of rank 0. Never returns if another rank's failure was the cause."""
        if self._commands:
            let_the_cause_speak(failure)
        if not self.end():
            threading.Event().wait()  # until the group is killed, very soon
        send(self._events, failure)

    def _watch(self, rank: int, process: subprocess.Popen[bytes], events_fd: int) -> None:
        """Wait for a rank to fail or die; then report it, if the session is not over, and end the group."""
        failure = None
        with os.fdopen(events_fd, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith('{"failure"') and line.endswith("\n"):
                    said = decode_failure(line)
                    failure = replace(said, message=f"rank {rank}: {said.message}")
        failure = failure or _death(rank, process.wait())
        if self.end():
            send(self._events, failure)
            os.killpg(0, signal.SIGKILL)


def let_the_cause_speak(failure: Failure) -> None:
    """Wait a little before reporting a crash: it may be caused by another rank's end."""
    if failure.kind is FailedKind.CRASH:
        time.sleep(_ECHO_SECONDS)


def fail_as_rank(events: IO[str], failure: Failure) -> NoReturn:
    """Report this rank's failure to rank 0, and exit."""
    let_the_cause_speak(failure)
    send(events, failure)
    sys.stderr.flush()
    os._exit(1)


def _death(rank: int, status: int) -> Failure:
    """The failure of a rank that gave no reason; `status` is its exit code, or a signal as a negative number."""
    if status == -signal.SIGKILL:
        return Failure(kind=FailedKind.KILLED, message=f"rank {rank} was killed by SIGKILL")
    how = f"died of signal {-status}" if status < 0 else f"left with exit code {status}"
    return Failure(kind=FailedKind.CRASH, message=f"rank {rank} {how} before the session was over: see the log")
