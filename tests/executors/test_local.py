"""What can go wrong with a worker, how each ends, and that nothing is left behind."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil
import pytest

from autotune.errors import EnvironmentProblem
from autotune.executors import process
from autotune.executors.base import OutOfTime, Patience, SessionEnded, SessionRequest
from autotune.executors.local import LocalExecutor
from autotune.trial.types import FailedKind, InfeasibleKind
from autotune.workload.base import WorkerOrder

from .examples import PATIENT, dies, request

HASTY = Patience(setup_seconds=0.4, pass_seconds=0.4, step_seconds=0.1, least_seconds=0.1)


def _descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = _descriptors()
    yield
    assert psutil.Process().children(recursive=True) == []
    assert _descriptors() == before


@pytest.fixture(params=["fork", "spawn"])
def launch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _ending(executor: LocalExecutor, asked: SessionRequest) -> SessionEnded:
    """How a session ends that is asked for everything once."""
    try:
        session = executor.open(asked)
        session.fingerprint()
        session.advance(1)
        session.gradient_noise(1)
        session.evaluate()
    except SessionEnded as ended:
        return ended
    raise AssertionError("the session did all it was asked")


@pytest.mark.parametrize(
    ("mood", "kind", "words"),
    [
        ("signal=SIGKILL:in_advance", FailedKind.KILLED, "killed by SIGKILL"),
        ("signal=SIGKILL:in_pass", FailedKind.KILLED, "killed by SIGKILL"),
        ("failure=killed:in_advance", FailedKind.KILLED, "it is killed"),
        ("signal=SIGSEGV:in_advance", FailedKind.CRASH, r"SIGSEGV \(last words\)"),
        ("signal=SIGTERM:in_evaluate", FailedKind.CRASH, "SIGTERM"),
        ("exit=3:in_setup", FailedKind.CRASH, r"exit code 3 \(ModuleNotFoundError"),
        ("exit=0:in_advance", FailedKind.CRASH, "exit code 0"),
        ("failure=oom:in_pass", InfeasibleKind.OUT_OF_MEMORY, "it is oom"),
        ("failure=compile:in_pass", InfeasibleKind.COMPILE, "it is compile"),
        ("failure=invalid:in_setup", InfeasibleKind.INVALID, "it is invalid"),
        ("failure=diverged:in_advance", InfeasibleKind.DIVERGED, "it is diverged"),
        ("failure=crash:in_evaluate", FailedKind.CRASH, "it is crash"),
        ("failure=oom:in_gradient_noise", InfeasibleKind.OUT_OF_MEMORY, "it is oom"),
        ("failure=diverged:in_fingerprint", InfeasibleKind.DIVERGED, "it is diverged"),
        ("failure=tired:in_evaluate", FailedKind.CRASH, "'tired'"),
        (r"write=hello\n:in_advance", FailedKind.CRASH, "hello"),
        (r"write=\xff\n:in_advance", FailedKind.CRASH, "protocol"),
        (r"write=[1]\n:in_setup", FailedKind.CRASH, "protocol"),
        ("torn:in_advance", FailedKind.CRASH, "in the middle of a line"),
    ],
)
def test_every_end_has_its_kind_and_reason(launch: str, tmp_path: Path, mood: str, kind: object, words: str) -> None:
    with LocalExecutor(launch=launch) as executor:
        ended = _ending(executor, request(tmp_path, mood=mood))
    assert ended.kind is kind
    assert ended.message == str(ended)
    with pytest.raises(SessionEnded, match=words):
        raise ended


@pytest.mark.parametrize(
    "mood",
    [
        "signal=SIGKILL:in_advance",
        "signal=SIGABRT:in_advance",
        "failure=killed:in_pass",
        "failure=compile:in_pass",
        "failure=crash:in_advance",
        "torn:in_advance",
    ],
)
def test_a_death_is_for_lack_of_memory_only_if_the_kernel_says_so(
    launch: str, tmp_path: Path, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of a session it kills: its worker, another rank, a compiler."""
    counts = iter([3, 4])
    monkeypatch.setattr("autotune.executors.local.oom_kills", lambda: next(counts))
    with LocalExecutor(launch=launch) as executor:
        ended = _ending(executor, request(tmp_path, mood=mood))
    assert ended.kind is InfeasibleKind.OUT_OF_MEMORY
    assert "the kernel killed a process for lack of memory" in ended.message
    assert ended.may_pass, "others may have taken it"


@pytest.mark.parametrize(
    ("mood", "may_pass"),
    [
        ("signal=SIGKILL:in_advance", True),
        ("signal=SIGSEGV:in_advance", True),
        ("failure=oom:in_pass", False),
        ("failure=invalid:in_setup", False),
        ("failure=diverged:in_advance", False),
    ],
)
def test_what_ended_a_session_may_pass_or_not(launch: str, tmp_path: Path, mood: str, may_pass: bool) -> None:
    with LocalExecutor(launch=launch) as executor:
        assert _ending(executor, request(tmp_path, mood=mood)).may_pass is may_pass


@pytest.mark.parametrize("place", ["in_setup", "in_pass", "in_advance", "in_evaluate", "in_fingerprint"])
def test_no_wait_outlasts_the_time_that_is_left(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_WATCH_SECONDS", 0.01)
    left = itertools.chain([5.0, 1.0], itertools.repeat(-1.0))
    asked = replace(request(tmp_path, mood=f"hang:{place}"), left_seconds=lambda: next(left))
    with LocalExecutor(launch="spawn") as executor:
        ended = _ending(executor, asked)
        assert not _workers()
    assert isinstance(ended, OutOfTime)
    assert not ended.may_pass
    assert next(left) == -1.0, "it was asked while the session hung, and not only before"


def test_a_launcher_that_hangs_costs_no_more_than_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(process, "_LEAVE_SECONDS", 0.1)
    asked = replace(request(tmp_path), left_seconds=lambda: -1.0)
    hanging = replace(asked.order, program=(sys.executable, "-c", "import time; time.sleep(100)"))
    with LocalExecutor(launch="fork") as executor, pytest.raises(OutOfTime):
        executor.open(replace(asked, order=hanging))


def test_a_launcher_that_is_killed_while_it_starts_may_start_another_time(tmp_path: Path) -> None:
    asked = request(tmp_path)
    killed = replace(asked.order, program=(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with LocalExecutor(launch="fork") as executor, pytest.raises(SessionEnded, match="killed by SIGKILL") as ended:
        executor.open(replace(asked, order=killed))
    assert (ended.value.kind, ended.value.may_pass) == (FailedKind.KILLED, True)


def test_patience_can_be_told_anew(launch: str, tmp_path: Path) -> None:
    with LocalExecutor(launch=launch) as executor:
        session = executor.open(request(tmp_path, mood="hang:in_evaluate"))
        session.advance(1)
        session.expect(replace(HASTY, pass_seconds=0.01, step_seconds=0.01, least_seconds=0.01))
        with pytest.raises(SessionEnded, match="evaluate within") as ended:
            session.evaluate()
    assert ended.value.kind is FailedKind.HUNG


@pytest.mark.parametrize("mood", ["flood=9:in_advance", "flood_and_hang=20:in_advance"])
def test_the_log_of_a_worker_is_small_whatever_it_writes(
    tmp_path: Path, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_WATCH_SECONDS", 0.1)
    patience = replace(PATIENT, step_seconds=0.5)
    with LocalExecutor(launch="fork") as executor:
        session = executor.open(request(tmp_path, mood=mood, patience=patience))
        with suppress(SessionEnded):
            session.advance(1)
        session.close()
    assert (tmp_path / "log.txt").stat().st_size < 8 << 20
    assert "bytes left out" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("mood", "kind", "words"),
    [
        ("hang:in_setup", FailedKind.HUNG, "build its model within 0.4 s"),
        ("hang:in_pass", InfeasibleKind.TOO_SLOW, "pass within 0.4 s"),
        ("hang:in_advance", InfeasibleKind.TOO_SLOW, "train 1 steps within 0.1 s"),
        ("hang:in_evaluate", FailedKind.HUNG, "evaluate within"),  # it has answered before
        ("hang:in_gradient_noise", FailedKind.HUNG, "measure the noise of 1 batches within 1 s"),
    ],
)
def test_a_worker_without_progress_is_stopped(tmp_path: Path, mood: str, kind: object, words: str) -> None:
    with LocalExecutor(launch="fork") as executor:
        ended = _ending(executor, request(tmp_path, mood=mood, patience=HASTY))
        assert not _workers()
    assert ended.kind is kind
    assert words in ended.message


@pytest.mark.parametrize("place", ["in_advance", "in_evaluate", "in_fingerprint", "in_gradient_noise"])
def test_an_answer_to_another_question_is_a_crash(launch: str, tmp_path: Path, place: str) -> None:
    mood = r'write={"phase"\u003a{"name"\u003a"built"}}\n:' + place
    with LocalExecutor(launch=launch) as executor:
        ended = _ending(executor, request(tmp_path, mood=mood))
    assert (ended.kind, "unexpected answer, phase" in ended.message) == (FailedKind.CRASH, True)


def test_a_worker_that_closes_its_pipe_is_stopped(launch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.executors.local._CLOSE_SECONDS", 0.1)
    with LocalExecutor(launch=launch) as executor:
        ended = _ending(executor, request(tmp_path, mood="deaf:in_advance"))
        assert not _workers()
    assert (ended.kind, "event pipe" in ended.message) == (FailedKind.CRASH, True)


def test_a_worker_killed_while_idle_is_noticed_at_the_next_order(launch: str, tmp_path: Path) -> None:
    with LocalExecutor(launch=launch) as executor:
        session = executor.open(request(tmp_path))
        os.kill(int(session.ready.environment["pid"]), signal.SIGTERM)
        with pytest.raises(SessionEnded, match="SIGTERM"):
            session.advance(1)


def test_an_end_spares_the_other_sessions(launch: str, tmp_path: Path) -> None:
    with LocalExecutor(launch=launch) as executor:
        doomed, sound = executor.open(request(tmp_path)), executor.open(request(tmp_path))
        os.killpg(int(doomed.ready.environment["pid"]), signal.SIGKILL)
        with pytest.raises(SessionEnded, match="SIGKILL"):
            doomed.advance(1)
        assert sound.advance(2).tokens == 2_048


def test_what_a_worker_started_ends_with_it(launch: str, tmp_path: Path) -> None:
    with LocalExecutor(launch=launch) as executor:
        session = executor.open(request(tmp_path, mood="child:in_advance"))
        session.advance(1)
        child = psutil.Process(int((tmp_path / "log.txt").read_text()))
        assert child.is_running()
        session.close()
        assert dies(child.pid)


def test_a_worker_that_will_not_leave_is_ended(launch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.executors.local._CLOSE_SECONDS", 0.1)
    with LocalExecutor(launch=launch) as executor:
        executor.open(request(tmp_path, mood="hang:in_close")).close()
        assert not _workers()


def test_only_the_own_log_lines_are_quoted(launch: str, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("of an earlier session\n")
    with LocalExecutor(launch=launch) as executor:
        ended = _ending(executor, request(tmp_path, mood="torn:in_advance"))
    assert ended.message.endswith("(nothing in its log)")
    assert (tmp_path / "log.txt").read_text() == "of an earlier session\n"


def test_a_torch_that_is_missing_is_a_problem_of_the_environment(launch: str, tmp_path: Path) -> None:
    mood = "exit=1:launcher" if launch == "fork" else "exit=1:at_start"
    with (
        LocalExecutor(launch=launch) as executor,
        pytest.raises(EnvironmentProblem, match="No module named 'torch'"),
    ):
        executor.open(request(tmp_path, mood=mood))


def test_a_launcher_that_speaks_another_language_is_a_problem_of_the_environment(tmp_path: Path) -> None:
    with (
        LocalExecutor(launch="fork") as executor,
        pytest.raises(EnvironmentProblem, match="launcher"),
    ):
        executor.open(request(tmp_path, mood="garbage:launcher"))


def test_a_launcher_that_dies_over_a_fork_fails_that_trial_only(tmp_path: Path) -> None:
    with LocalExecutor(launch="fork") as executor:
        for _ in range(2):  # the second has a launcher of its own
            with pytest.raises(SessionEnded, match="died") as ended:
                executor.open(request(tmp_path, mood="die:fork"))
            assert ended.value.kind is FailedKind.CRASH


def test_a_launcher_that_dies_is_replaced_and_its_sessions_go_on(tmp_path: Path) -> None:
    with LocalExecutor(launch="fork") as executor:
        old = executor.open(request(tmp_path))
        (launcher,) = psutil.Process().children()
        launcher.kill()
        assert dies(launcher.pid)
        new = executor.open(request(tmp_path))
        assert old.advance(1).tokens == new.advance(1).tokens == 1_024


def test_a_hanging_launcher_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LAUNCHER_SECONDS", 0.2)
    monkeypatch.setattr(process, "_LEAVE_SECONDS", 0.1)
    asked = request(tmp_path)
    hanging = replace(asked.order, program=(sys.executable, "-c", "import time; time.sleep(100)"))
    with (
        LocalExecutor(launch="fork") as executor,
        pytest.raises(EnvironmentProblem, match=r"within 0\.2 s"),
    ):
        executor.open(replace(asked, order=hanging))


def test_renewing_forks_from_a_new_image_and_ends_the_old_one(tmp_path: Path) -> None:
    def launcher_of(session: object) -> int:
        return psutil.Process(int(session.ready.environment["pid"])).ppid()

    with LocalExecutor(launch="fork") as executor:
        one, twin = executor.open(request(tmp_path)), executor.open(request(tmp_path))
        executor.renew()
        fresh = executor.open(request(tmp_path))
        assert launcher_of(one) == launcher_of(twin) != launcher_of(fresh)
        assert len(psutil.Process().children()) == 2
        one.close()
        twin.close()
        assert [p.pid for p in psutil.Process().children()] == [launcher_of(fresh)]


def test_sessions_of_another_environment_are_forked_from_another_launcher(tmp_path: Path) -> None:
    plain = request(tmp_path)
    changed = replace(plain, order=replace(plain.order, environment={"ADDED": "yes"}))
    with LocalExecutor(launch="fork") as executor:
        pids = [int(executor.open(r).ready.environment["pid"]) for r in (plain, plain, changed, changed, plain)]
        one, twin, other, others_twin, third = (psutil.Process(pid).ppid() for pid in pids)
        assert one == twin
        assert other == others_twin
        assert len({one, other, third}) == 3, "the one at hand is another one: a launcher is started anew"


def test_the_environment_of_an_order_is_added_to_that_of_the_driver(launch: str, tmp_path: Path) -> None:
    asked = request(tmp_path)
    with LocalExecutor(launch=launch) as executor:
        session = executor.open(replace(asked, order=replace(asked.order, environment={"ADDED": "yes"})))
        found = psutil.Process(int(session.ready.environment["pid"])).environ()
    assert found["ADDED"] == "yes"
    assert found["PATH"] == os.environ["PATH"]


def test_workers_lead_a_session_of_their_own(launch: str, tmp_path: Path) -> None:
    with LocalExecutor(launch=launch) as executor:
        pid = int(executor.open(request(tmp_path)).ready.environment["pid"])
        assert os.getsid(pid) == os.getpgid(pid) == pid


def test_workers_leave_when_the_driver_is_killed(launch: str, tmp_path: Path) -> None:
    """The driver is a process of its own here, killed without a chance to clean up."""
    driver = """
import json, os, signal, sys
from pathlib import Path
from typing import Literal
from autotune.executors.local import LocalExecutor
from tests.executors.examples import request
executor = LocalExecutor(launch=sys.argv[1])
session = executor.open(request(Path(sys.argv[2])))
pid = int(session.ready.environment["pid"])
print(json.dumps([pid, os.getpid() if sys.argv[1] == "spawn" else executor._launcher._process.pid]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", driver, launch, str(tmp_path)], cwd=root, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in json.loads(done.stdout):
        assert dies(pid)


def _workers() -> list[psutil.Process]:
    """Workers and what they started, but no launcher."""
    return [
        p for p in psutil.Process().children(recursive=True) if "launcher" not in p.cmdline() or p.ppid() != os.getpid()
    ]


@pytest.mark.parametrize("launch", ["fork", "spawn"])
def test_a_program_that_is_not_there_is_told_in_one_line(tmp_path: Path, launch: Literal["fork", "spawn"]) -> None:
    missing = replace(request(tmp_path), order=WorkerOrder(program=("/no/such/program",), payload={}))
    with LocalExecutor(launch=launch) as executor:
        with pytest.raises(EnvironmentProblem, match=r"a trial's program must start; got .*No such file"):
            executor.open(missing)
        with pytest.raises(EnvironmentProblem, match=r"a trial's program must start; got .*No such file"):
            executor.examine(missing.order)
