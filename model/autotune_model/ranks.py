"""The other processes of a session that several share: started, told what to do and watched by rank 0.

```
driver <-> rank 0 --commands--> rank r     the driver's own, passed on; a pipe each way for each rank,
           rank 0 <---events--- rank r     of which rank 0 heeds failures and the end only
```
All are in the process group of rank 0. A rank dies when the pipe of its commands closes; where one fails or
dies, rank 0 says so in its own events and kills the group, from a thread: its main thread may be waiting for
that rank in a collective operation for ever. No torch here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from autotune_model.protocol import FailureReport, parse_message, send

_ECHO_SECONDS = 2.0


class Ranks:
    """Ranks 1 and up of a session, and the right to report its failure, which only one can have."""

    def __init__(self, events: IO[str]) -> None:
        """Starts none yet; `events` goes to the driver."""
        self._events = events
        self._commands: list[IO[str]] = []
        self._is_over = threading.Lock()

    def start(self, session_path: Path, world_size: int, port: int) -> None:
        """Start all of them; they will look for rank 0 at `port`."""
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

    def tell(self, name: str, body: Mapping[str, Any]) -> None:
        """Pass a command on; whoever cannot be told is dead, which is noticed elsewhere."""
        for commands in self._commands:
            with suppress(BrokenPipeError):
                send(commands, name, body)

    def end(self) -> bool:
        """Whether the caller may say how the session ends: the first one to ask."""
        return self._is_over.acquire(blocking=False)

    def fail(self, report: FailureReport) -> None:
        """Report a failure of rank 0, unless another rank's was the cause: then never return."""
        if self._commands:
            let_the_cause_speak(report)
        if not self.end():
            threading.Event().wait()  # for the end of the group, which is near
        send(self._events, "failure", report)

    def _watch(self, rank: int, process: subprocess.Popen[bytes], events_fd: int) -> None:
        """Wait for a rank to fail or die; then report it, if the session is not over, and end the group."""
        report = None
        with os.fdopen(events_fd, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith('{"failure"') and line.endswith("\n"):
                    _, body = parse_message(line)
                    report = FailureReport(kind=body["kind"], message=f"rank {rank}: {body['message']}")
        report = report or _death(rank, process.wait())
        if self.end():
            send(self._events, "failure", report)
            os.killpg(0, signal.SIGKILL)


def let_the_cause_speak(report: FailureReport) -> None:
    """Wait a little before a crash is reported, for it may be the echo of another rank's end."""
    if report["kind"] == "crash":
        time.sleep(_ECHO_SECONDS)


def fail_as_rank(events: IO[str], report: FailureReport) -> NoReturn:
    """Tell rank 0 of the failure of this rank, and leave."""
    let_the_cause_speak(report)
    send(events, "failure", report)
    sys.stderr.flush()
    os._exit(1)


def _death(rank: int, status: int) -> FailureReport:
    """How a rank ended that did not say why; `status` is its exit code, or a signal as a negative number."""
    if status == -signal.SIGKILL:
        return FailureReport(
            kind="oom",
            message=f"rank {rank} was killed by SIGKILL, most likely by the kernel's out-of-memory killer: "
            "use a smaller micro_batch or fewer processes",
        )
    how = f"died of signal {-status}" if status < 0 else f"left with exit code {status}"
    return FailureReport(kind="crash", message=f"rank {rank} {how} before the session was over: see the log")
