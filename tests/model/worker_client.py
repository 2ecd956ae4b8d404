"""A plain driver of `python -P -m autotune_model`, for the tests of the process boundary."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from autotune.trial.codec import parse_event
from autotune_model.config import SessionConfig
from autotune_model.protocol import Command, Fork, Phase, PhaseName, encode, send

MODEL = (sys.executable, "-P", "-m", "autotune_model")

E = TypeVar("E")

Start = Callable[[Path, int, int, int], int]
"""Session file and descriptors of commands, events and log to the worker's process id."""


class Client:
    """The driver's side of one worker."""

    def __init__(self, folder: Path, config: SessionConfig, start: Start) -> None:
        session = folder / "session.json"
        session.write_text(json.dumps(config.to_mapping()))
        self.log = folder / "log.txt"
        commands_read, commands_write = os.pipe()
        events_read, events_write = os.pipe()
        with self.log.open("w") as log:
            self.pid = start(session, commands_read, events_write, log.fileno())
        os.close(commands_read)
        os.close(events_write)
        self.commands = os.fdopen(commands_write, "w")
        self.events = os.fdopen(events_read)
        self.phases: list[PhaseName] = []

    def send(self, command: Command) -> None:
        send(self.commands, command)

    def receive(self, expected: type[E]) -> E:
        """The next event that is no sign of progress."""
        for line in self.events:
            event = parse_event(line.encode())
            if isinstance(event, Phase):
                self.phases.append(event.name)
                continue
            assert isinstance(event, expected), f"{event}\n{self.log.read_text()}"
            return event
        raise AssertionError(f"no {expected.__name__}: the worker is gone\n{self.log.read_text()}")

    def hang_up(self) -> None:
        """Close the pipe of commands, as the end of the driver's process would."""
        self.commands.close()

    def wait_until_gone(self) -> None:
        """Read to the end of the events, which comes when no process can write any more."""
        self.events.read()
        self.events.close()


class DirectWorkers:
    """Starts each worker as a fresh interpreter."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, session: Path, commands_fd: int, events_fd: int, log_fd: int) -> int:
        command = [*MODEL, "worker", "--session", str(session)]
        command += ["--commands", str(commands_fd), "--events", str(events_fd)]
        process = subprocess.Popen(
            command, pass_fds=(commands_fd, events_fd), stdout=log_fd, stderr=log_fd, start_new_session=True
        )
        self.processes.append(process)
        return process.pid

    def exit_status(self, pid: int) -> int:
        """The exit code, or the signal that ended it as a negative number."""
        return next(process for process in self.processes if process.pid == pid).wait(timeout=60)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


class ForkedWorkers:
    """Has a launcher fork each worker."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*MODEL, "launcher", "--control", str(theirs.fileno())], pass_fds=(theirs.fileno(),)
            )
        self.lines = self.control.makefile()
        assert self.receive() == {"launcher": {"ready": {}}}

    def receive(self) -> dict[str, Any]:
        return json.loads(self.lines.readline())  # type: ignore[no-any-return]

    def start(self, session: Path, commands_fd: int, events_fd: int, log_fd: int) -> int:
        order = encode(Fork(session=str(session)))
        socket.send_fds(self.control, [order.encode()], [commands_fd, events_fd, log_fd])
        return self.receive()["forked"]["pid"]  # type: ignore[no-any-return]

    def exit_status(self, pid: int) -> int:
        exited = self.receive()["exited"]
        assert exited["pid"] == pid
        return os.waitstatus_to_exitcode(exited["status"])

    def close(self) -> None:
        self.lines.close()
        self.control.close()
        self.process.wait(timeout=60)
