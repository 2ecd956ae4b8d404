"""Sessions on this machine: one worker process each, watched for progress and always cleaned up.

    driver --commands--> worker     a pipe each way, JSON lines (autotune_model/protocol.py);
    driver <---events--- worker     stdout and stderr of the worker go to the log of the session

On Linux a launcher process imports torch once and forks the workers; elsewhere each worker is started
separately. Either way a worker leads its own process session: Ctrl-C does not reach it, and everything
it started can be killed at once. Workers inherit the environment of this process, unchanged.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Literal, NoReturn, Self

from autotune.errors import EnvironmentProblem
from autotune.executors import logs
from autotune.executors.base import OutOfTime, Patience, SessionEnded, SessionRequest
from autotune.executors.cgroups import oom_kills
from autotune.executors.examine import examine_here
from autotune.executors.load import Load, LoadMeter
from autotune.executors.process import (
    LauncherProcess,
    LineReader,
    SpawnedWorker,
    WorkerProcess,
    kill_group,
    last_line,
    signal_name,
)
from autotune.trial.codec import Malformed, encode_command, parse_event
from autotune.trial.types import Evaluation, FailedKind, Fingerprint, GradientNoise, InfeasibleKind, Ready, Slice
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine
from autotune_model.protocol import (
    Advance,
    Close,
    Command,
    Evaluate,
    Event,
    Failure,
    MeasureFingerprint,
    MeasureGradientNoise,
    Phase,
    PhaseName,
    tag,
)

_CLOSE_SECONDS = 2.0  # for a worker to exit by itself
_DEATHS = frozenset({FailedKind.CRASH, FailedKind.HUNG, FailedKind.KILLED, InfeasibleKind.COMPILE})
"""How a session may end if one of its processes is killed: itself, another rank, a compiler, the launcher."""
_REAP_SECONDS = 10.0  # for the kernel to clean up a large process that was killed


class LocalExecutor:
    """Runs sessions on this machine. One may step at a time: two would disturb each other's timing.

    `launch` is how workers start: `fork` from one launcher (the default on Linux), or `spawn` each separately.
    """

    def __init__(self, *, launch: Literal["fork", "spawn"] | None = None) -> None:
        """Starts nothing yet: the launcher starts with the first session, so its imports disturb no measurement."""
        self._forks = (launch or ("fork" if sys.platform == "linux" else "spawn")) == "fork"
        self._launcher: LauncherProcess | None = None
        self._meter = LoadMeter()
        self._sessions: set[LocalSession] = set()

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def load(self) -> Load:
        """See `Executor.load`."""
        return self._meter.read()

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
        """See `Executor.examine`."""
        return examine_here(order, limit_seconds=limit_seconds)

    def open(self, request: SessionRequest) -> LocalSession:
        """See `Executor.open`.

        Raises:
            SessionEnded: the worker did not become ready; its process is gone.
            EnvironmentProblem: the worker program cannot start.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:  # read before it is ready
            json.dump(request.order.payload, file)
            file.flush()
            session = self._start(request, file.name)
            try:
                session.await_ready()
            except BaseException:
                session.close()
                raise
        return session

    def renew(self) -> None:
        """Fork later sessions from a new launcher; the old one stays until its last session closes."""
        if self._launcher is not None:
            self._launcher.retire()
            self._launcher = None

    def close(self) -> None:
        """End all sessions and launchers. Safe to call twice."""
        for session in tuple(self._sessions):
            session.close()
        self.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self, request: SessionRequest, session_path: str) -> LocalSession:
        """A session whose worker has just been started; if starting fails, nothing is left open."""
        request.log_path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as theirs, ExitStack() as ours:
            commands, commands_end = os.pipe()  # pipes are close-on-exec
            theirs.callback(os.close, commands)
            ours.callback(os.close, commands_end)
            events_end, events = os.pipe()
            theirs.callback(os.close, events)
            ours.callback(os.close, events_end)
            log = theirs.enter_context(request.log_path.open("ab")).fileno()
            log_start = os.fstat(log).st_size
            process: WorkerProcess
            if self._forks:
                process = self._ready_launcher(request).fork(session_path, (commands, events, log))
            else:
                process = SpawnedWorker(request.order, session_path, commands, events, log)
            ours.pop_all()
        return LocalSession(request, process, commands_end, events_end, log_start, self._sessions)

    def _ready_launcher(self, request: SessionRequest) -> LauncherProcess:
        """A launcher for the order's program and environment: the current one if it matches, else a new one."""
        order = request.order
        if self._launcher is not None and (self._launcher.is_gone or not self._launcher.serves(order)):
            self.renew()
        if self._launcher is None:
            self._launcher = LauncherProcess(order, request.left_seconds)
        return self._launcher


class LocalSession:
    """A live worker process. Made by `LocalExecutor.open`."""

    def __init__(
        self,
        request: SessionRequest,
        process: WorkerProcess,
        commands: int,
        events: int,
        log_start: int,
        siblings: set[LocalSession],
    ) -> None:
        """Takes over the process and our ends of its pipes; stays in `siblings` until closed."""
        self._request = request
        self._process = process
        self._commands = commands
        self._events = LineReader(events)
        self._log_start = log_start
        self._siblings = siblings
        self._ready: Ready | None = None
        self._has_spoken = False
        self._is_proven = False
        self._is_closed = False
        self._oom_kills = oom_kills() or 0
        siblings.add(self)

    @property
    def ready(self) -> Ready:
        """What the worker reported when it became ready."""
        assert self._ready is not None, "open() returns ready sessions only"  # noqa: S101 - for the type checker
        return self._ready

    def await_ready(self) -> None:
        """Wait for data and model, then for the first pass; each has its own timeout."""
        patience = self._request.patience
        late: InfeasibleKind | FailedKind = FailedKind.HUNG
        what, seconds = "build its model", patience.setup_seconds
        deadline = time.monotonic() + seconds
        while self._ready is None:
            match self._hear(deadline, late, f"{what} within {seconds:g} s"):
                case Ready() as ready:
                    self._ready = ready
                case Phase(name=PhaseName.BUILT):
                    late = InfeasibleKind.TOO_SLOW
                    what, seconds = "finish a first forward and backward pass", self._request.first_pass_seconds
                    deadline = time.monotonic() + seconds
                case Phase():
                    pass
                case event:
                    self._end_out_of_turn(event)

    def advance(self, steps: int, round: int = -1) -> Slice:
        """See `Session.advance`."""
        seconds = self._request.advance_seconds(steps, is_proven=self._is_proven)
        answer = self._ask(Advance(steps=steps, round=round), seconds, f"train {steps} steps within {seconds:g} s")
        self._is_proven = True
        return answer if isinstance(answer, Slice) else self._end_out_of_turn(answer)

    def evaluate(self) -> Evaluation:
        """See `Session.evaluate`."""
        seconds = self._request.evaluate_seconds()
        answer = self._ask(Evaluate(), seconds, f"evaluate within {seconds:g} s")
        return answer if isinstance(answer, Evaluation) else self._end_out_of_turn(answer)

    def fingerprint(self) -> Fingerprint:
        """See `Session.fingerprint`."""
        seconds = self._request.fingerprint_seconds()
        answer = self._ask(MeasureFingerprint(), seconds, f"take its fingerprint within {seconds:g} s")
        return answer if isinstance(answer, Fingerprint) else self._end_out_of_turn(answer)

    def gradient_noise(self, batches: int) -> GradientNoise:
        """See `Session.gradient_noise`."""
        seconds = self._request.gradient_noise_seconds(batches)
        duty = f"measure the noise of {batches} batches within {seconds:g} s"
        answer = self._ask(MeasureGradientNoise(batches=batches), seconds, duty)
        return answer if isinstance(answer, GradientNoise) else self._end_out_of_turn(answer)

    def expect(self, patience: Patience) -> None:
        """See `Session.expect`."""
        self._request = replace(self._request, patience=patience)

    def close(self) -> None:
        """See `Session.close`."""
        self._shut(_CLOSE_SECONDS)

    def _ask(self, command: Command, seconds: float, duty: str) -> Event:
        if self._is_closed:
            raise SessionEnded(FailedKind.CRASH, "this session has ended: open another one")
        logs.cap(self._request.log_path)
        with suppress(BrokenPipeError):  # dead; `_hear` finds out how it died
            os.write(self._commands, encode_command(command))
        late = FailedKind.HUNG if self._is_proven else InfeasibleKind.TOO_SLOW
        return self._hear(time.monotonic() + seconds, late, duty)

    def _hear(self, deadline: float, late: InfeasibleKind | FailedKind, duty: str) -> Event:
        """The next event. A failure ends the session; so does a missed deadline, with kind `late` and naming `duty`."""
        try:
            line = self._events.line(deadline, self._watch)
        except TimeoutError:
            self._end(late, f"timed out: the worker must {duty}; it was stopped")
        if not line:
            self._end_dead()
        try:
            event = parse_event(line) if line.endswith(b"\n") else None
        except Malformed as problem:
            self._end(FailedKind.CRASH, f"the worker broke the protocol ({problem}): see {self._request.log_path}")
        if event is None:
            self._end(FailedKind.CRASH, f"the worker died in the middle of a line, {line[:80]!r} ({self._last_line()})")
        self._has_spoken = True
        if isinstance(event, Failure):
            self._end(event.kind, event.message)
        return event

    def _watch(self) -> None:
        """During a long wait: keep the log small, and give up when the driver has no more time."""
        logs.cap(self._request.log_path)
        if self._request.left_seconds() <= 0.0:
            self._shut(0.0)
            raise OutOfTime

    def _end_dead(self) -> NoReturn:
        """The worker closed its end of the pipe: report how it died."""
        code = self._process.exit_code(_CLOSE_SECONDS)
        said = self._last_line()
        if code == -signal.SIGKILL:  # not by us: we never read from a worker that we killed
            self._end(FailedKind.KILLED, "the worker was killed by SIGKILL")
        if code is None:
            self._end(FailedKind.CRASH, f"the worker closed its event pipe without a reason ({said})")
        if code < 0:
            self._end(FailedKind.CRASH, f"the worker was killed by {signal_name(-code)} ({said})")
        if code > 0 and not self._has_spoken:
            self._shut(0.0)
            raise EnvironmentProblem(
                f"a worker must be able to start; got exit code {code} ({said}): "
                "check that torch and autotune are installed together"
            )
        self._end(FailedKind.CRASH, f"the worker ended with exit code {code} ({said})")

    def _end_out_of_turn(self, event: Event) -> NoReturn:
        name = tag(type(event))
        self._end(FailedKind.CRASH, f"the worker gave an unexpected answer, {name}: it was stopped")

    def _end(self, kind: InfeasibleKind | FailedKind, message: str) -> NoReturn:
        """End the session. If the kernel has killed a process for lack of memory since it began, that is why."""
        self._shut(0.0)
        if kind in _DEATHS and (oom_kills() or 0) > self._oom_kills:
            raise SessionEnded(
                InfeasibleKind.OUT_OF_MEMORY,
                f"{message}, and the kernel killed a process for lack of memory: use a smaller batch or free memory",
                may_pass=True,  # others may have taken the memory
            )
        raise SessionEnded(kind, message)

    def _shut(self, grace_seconds: float) -> None:
        """Ask the worker to exit, wait `grace_seconds`, then kill its process group: it may have started others."""
        if self._is_closed:
            return
        self._is_closed = True
        self._siblings.discard(self)
        with suppress(BrokenPipeError):
            os.write(self._commands, encode_command(Close()))
        self._process.exit_code(grace_seconds)
        kill_group(self._process.pid)
        os.close(self._commands)
        self._events.close()
        self._process.exit_code(_REAP_SECONDS)
        self._process.release()
        logs.cap(self._request.log_path)

    def _last_line(self) -> str:
        try:
            with self._request.log_path.open("rb") as log:
                return last_line(log.fileno(), self._log_start)
        except OSError as error:
            return f"its log cannot be read: {error.strerror}"
