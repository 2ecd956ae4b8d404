from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_client import Client, DirectWorkers, ForkedWorkers

from autotune.trial.codec import parse_event
from autotune_model.config import SessionConfig
from autotune_model.failures import failure_report
from autotune_model.protocol import (
    Advance,
    Close,
    Evaluate,
    Evaluation,
    Failure,
    Fingerprint,
    GradientNoise,
    MeasureFingerprint,
    MeasureGradientNoise,
    Ready,
    Slice,
    encode,
)

MakeSession = Callable[..., SessionConfig]
Workers = DirectWorkers | ForkedWorkers

needs_launcher = pytest.mark.skipif(sys.platform != "linux", reason="the launcher forks, which is for Linux only")


@pytest.fixture(scope="module")
def direct() -> Iterator[DirectWorkers]:
    workers = DirectWorkers()
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def forked() -> Iterator[ForkedWorkers]:
    workers = ForkedWorkers()
    yield workers
    workers.close()


@pytest.fixture(params=["direct", pytest.param("forked", marks=needs_launcher)])
def workers(request: pytest.FixtureRequest) -> Workers:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def has_ended(pid: int, within_seconds: float = 30.0) -> bool:
    """Whether the process, which need not be a child, ends in time. Its output closes a moment before it does."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within_seconds)[0])
    finally:
        os.close(process)


def test_session_from_start_to_close(workers: Workers, make_session: MakeSession, tmp_path: Path) -> None:
    session = make_session(micro_batch=4, global_batch=8)
    client = Client(tmp_path, session, workers.start)
    ready = client.receive(Ready)
    assert client.phases == ["started", "built"]
    assert ready.setup_seconds > 0.0
    assert ready.compile_seconds == 0.0
    assert ready.tokens_per_step == session.tokens_per_step
    assert ready.horizon_steps == session.horizon_steps
    assert ready.environment["device"] == "cpu"
    assert ready.environment["energy_meter"], "what it is, or why there is none"
    assert os.getpgid(client.pid) == client.pid
    client.send(MeasureFingerprint())
    fingerprint = client.receive(Fingerprint)
    assert {len(numbers) for numbers in dataclasses.astuple(fingerprint)} == {256}
    client.send(Advance(steps=3, round=5))
    first = client.receive(Slice)
    assert (first.round, len(first.losses)) == (5, 3)
    client.send(Evaluate())
    assert client.receive(Evaluation).tokens_seen == 3 * session.tokens_per_step
    client.send(MeasureGradientNoise(batches=2))
    noise = client.receive(GradientNoise)
    assert (noise.tokens_seen, noise.batch) == (3 * session.tokens_per_step, 16)
    client.send(Advance(steps=1, round=-1))
    assert client.receive(Slice).losses[0] < first.losses[0]
    client.send(Close())
    client.wait_until_gone()
    client.hang_up()
    assert workers.exit_status(client.pid) == 0


def test_worker_dies_at_once_when_the_driver_is_gone(
    workers: Workers, make_session: MakeSession, tmp_path: Path
) -> None:
    client = Client(tmp_path, make_session(), workers.start)
    client.receive(Ready)
    client.send(Advance(steps=1_000_000, round=-1))
    client.hang_up()
    client.wait_until_gone()
    assert workers.exit_status(client.pid) == -signal.SIGKILL


def test_what_the_worker_started_dies_with_it() -> None:
    script = (
        "import os, subprocess, sys, threading, queue\n"
        "from autotune_model.worker import _read_commands\n"
        "os.setsid()\n"
        "subprocess.Popen(['sleep', '600'])\n"
        "print('started', flush=True)\n"
        "_read_commands(0, queue.SimpleQueue())\n"
    )
    command = [sys.executable, "-P", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.stdin.close()
        assert process.stdout.read() == b""  # ends when `sleep`, too, has let go of it
        assert process.wait() == -signal.SIGKILL


@needs_launcher
def test_divergence_is_reported_and_logged(forked: ForkedWorkers, make_session: MakeSession, tmp_path: Path) -> None:
    session = make_session(learning_rate=10.0, clip_norm=0.0, warmup_fraction=0.0, schedule="constant")
    client = Client(tmp_path, session, forked.start)
    client.receive(Ready)
    client.send(Advance(steps=20, round=0))
    failure = client.receive(Failure)
    client.wait_until_gone()
    client.hang_up()
    assert failure.kind == "diverged"
    assert "lower learning_rate" in failure.message
    assert "Traceback" in client.log.read_text()
    assert forked.exit_status(client.pid) == 1


@needs_launcher
def test_a_fingerprint_asked_for_too_late_ends_the_session(
    forked: ForkedWorkers, make_session: MakeSession, tmp_path: Path
) -> None:
    client = Client(tmp_path, make_session(), forked.start)
    client.receive(Ready)
    client.send(Advance(steps=1, round=0))
    client.receive(Slice)
    client.send(MeasureFingerprint())
    failure = client.receive(Failure)
    client.wait_until_gone()
    client.hang_up()
    assert failure.kind == "crash"
    assert "ask earlier" in failure.message
    assert forked.exit_status(client.pid) == 1


@needs_launcher
@pytest.mark.parametrize("line", ['{"advance": {"steps": 1}}', '{"train": {}}', "advance"])
def test_a_command_that_nobody_knows_ends_the_session_with_a_reason(
    forked: ForkedWorkers, make_session: MakeSession, tmp_path: Path, line: str
) -> None:
    client = Client(tmp_path, make_session(), forked.start)
    client.receive(Ready)
    client.commands.write(line + "\n")
    client.commands.flush()
    failure = client.receive(Failure)
    client.wait_until_gone()
    client.hang_up()
    assert failure.kind == "crash"
    assert "a message must be one of advance, evaluate" in failure.message
    assert forked.exit_status(client.pid) == 1


@needs_launcher
@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"micro_batch": 4096, "global_batch": 4096}, "one global batch"),
        ({"attention": "cudnn"}, "No viable backend"),  # as flash and cudnn say of fp32 on a GPU
    ],
)
def test_session_that_cannot_be_is_invalid(
    forked: ForkedWorkers, make_session: MakeSession, tmp_path: Path, knobs: dict[str, Any], words: str
) -> None:
    client = Client(tmp_path, make_session(**knobs), forked.start)
    failure = client.receive(Failure)
    client.wait_until_gone()
    client.hang_up()
    assert failure.kind == "invalid"
    assert words in failure.message
    assert "\n" not in failure.message
    assert forked.exit_status(client.pid) == 1


@needs_launcher
def test_forked_workers_train_alike_and_hold_nothing_of_each_other(
    forked: ForkedWorkers, make_session: MakeSession, tmp_path: Path
) -> None:
    clients = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        clients.append(Client(tmp_path / name, make_session(), forked.start))
    first, second = clients
    losses = []
    for client in clients:
        client.receive(Ready)
        client.send(Advance(steps=2, round=0))
        losses.append(client.receive(Slice).losses)
    assert losses[0] == losses[1]
    first.hang_up()
    first.wait_until_gone()
    assert forked.exit_status(first.pid) == -signal.SIGKILL
    second.send(Evaluate())
    second.receive(Evaluation)
    second.send(Close())
    second.wait_until_gone()
    second.hang_up()
    assert forked.exit_status(second.pid) == 0


@needs_launcher
@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("end", ["hangs up", "is killed"])
def test_workers_end_with_their_launcher_in_whatever_state_they_are(
    make_session: MakeSession, tmp_path: Path, end: str, is_stopped: bool
) -> None:
    launcher = ForkedWorkers()
    client = Client(tmp_path, make_session(), launcher.start)
    client.receive(Ready)
    if is_stopped:
        os.kill(client.pid, signal.SIGSTOP)
    if end == "is killed":
        launcher.process.kill()
    launcher.close()
    client.wait_until_gone()
    client.hang_up()


@needs_launcher
def test_a_stopped_launcher_still_ends_its_workers_with_the_driver(make_session: MakeSession, tmp_path: Path) -> None:
    """The driver is a process of its own, killed without a chance to clean up."""
    (tmp_path / "session.json").write_text(json.dumps(make_session().to_mapping()))
    driver = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from worker_client import ForkedWorkers
launcher = ForkedWorkers()
(commands, _), (events, told), log = os.pipe(), os.pipe(), os.open(sys.argv[2] + "/log", os.O_CREAT | os.O_WRONLY)
worker = launcher.start(Path(sys.argv[2]) / "session.json", commands, told, log)
os.read(events, 1)  # it runs
for pid in (worker, launcher.process.pid):
    os.kill(pid, signal.SIGSTOP)
print(worker, launcher.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    arguments = [sys.executable, "-P", "-c", driver, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)  # to the end of its output: of all
    assert done.returncode == -signal.SIGKILL
    for pid in map(int, done.stdout.split()):
        assert has_ended(pid)


def test_imports_of_the_launcher_leave_cuda_alone() -> None:
    script = (
        "import torch\n"
        "def touched(*arguments): raise AssertionError('a fork would inherit a broken CUDA')\n"
        "for name in ('is_available', 'device_count', 'init', '_lazy_init'): setattr(torch.cuda, name, touched)\n"
        "import autotune_model.launcher\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "oom"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "oom"),
        (RuntimeError("shape mismatch\nand much more"), "crash"),
        (OSError("disk full"), "crash"),
        (RuntimeError("No available kernel.  Aborting execution."), "invalid"),
        (OSError("cannot read 'caf\udce9'"), "crash"),  # the name of a file in another encoding
    ],
)
def test_kinds_of_failure(error: Exception, kind: str) -> None:
    report = failure_report(error)
    assert report.kind == kind
    assert "\n" not in report.message
    assert parse_event(encode(report).encode()) == report


def test_kinds_of_failure_that_torch_raises() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46)
    assert failure_report(caught.value).kind == "oom"

    def uncompilable(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x

    with pytest.raises(torch._dynamo.exc.TorchDynamoException) as uncompiled:
        torch.compile(uncompilable, backend="eager", fullgraph=True)(torch.ones(1))
    assert failure_report(uncompiled.value).kind == "compile"
