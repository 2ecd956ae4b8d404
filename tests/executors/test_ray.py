"""Sessions on a cluster: the common promises, what only a cluster can do wrong, and where on it sessions go."""

import json
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autotune.errors import BadInput, EnvironmentProblem
from autotune.executors import ray as ray_module
from autotune.executors.base import Executor, SessionEnded
from autotune.executors.ray import RayExecutor
from autotune.trial.types import FailedKind
from autotune.workload.base import WorkerOrder

from .contract import ExecutorContract
from .examples import dies, request


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayExecutor]:
    """A cluster of this machine, started once: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray leaves one in the home folder
        with RayExecutor() as started:
            yield started


@pytest.fixture
def executor(cluster: RayExecutor) -> Iterator[RayExecutor]:
    """Joins the cluster that runs, and leaves it running."""
    with RayExecutor() as joined:
        yield joined
    assert cluster.slots == 1


class TestSessionsOnACluster(ExecutorContract):
    @pytest.fixture
    def executor(self, executor: RayExecutor) -> Executor:
        return executor


def test_a_dead_actor_ends_its_session_and_its_worker(executor: RayExecutor, tmp_path: Path) -> None:
    session = executor.open(request(tmp_path))
    worker = psutil.Process(int(session.ready.environment["pid"]))
    worker.parent().kill()
    with pytest.raises(SessionEnded, match="run the trial again") as ended:
        session.advance(1)
    assert ended.value.kind is FailedKind.CRASH
    assert dies(worker.pid)


def test_a_node_without_torch_is_a_problem_of_the_environment(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"on a node.*No module named 'torch'"):
        executor.open(request(tmp_path, mood="exit=1:at_start"))


def test_a_request_arrives_on_a_node_as_it_was_sent(tmp_path: Path) -> None:
    asked = request(tmp_path, seed=3, learning_rate=2e-3, tied_head=True)
    asked = replace(asked, order=replace(asked.order, environment={"ADDED": "yes"}))
    plain = json.loads(json.dumps(ray_module._plain(asked)))
    assert ray_module._request(plain) == asked


@pytest.mark.parametrize(("kind", "error"), [("invalid", BadInput), ("crash", EnvironmentProblem)])
def test_what_a_node_cannot_examine_is_told_here(executor: RayExecutor, kind: str, error: type[Exception]) -> None:
    words = "corpus must hold text; got nothing: name a file"
    program = (sys.executable, "-c", f"""print('{{"failure": {{"kind": "{kind}", "message": "{words}"}}}}')""")
    with pytest.raises(error, match=words):
        executor.examine(WorkerOrder(program=program, payload={}))


def test_a_missing_ray_is_a_problem_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentProblem, match="pip install"):
        RayExecutor()


def _executor_over(nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> RayExecutor:
    cluster = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes, remote=lambda **_: lambda kind: kind)
    monkeypatch.setattr(ray_module, "_import_ray", lambda **_: cluster)
    return RayExecutor("somewhere")


def _node(name: str, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "Resources": resources}


def test_accelerators_are_the_slots_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [_node("head", CPU=8.0), _node("a", CPU=8.0, GPU=2.0), _node("b", CPU=8.0, GPU=1.0)]
    assert _executor_over(nodes, monkeypatch).slots == 3
    assert _executor_over([_node("a", CPU=2.0), _node("b", CPU=2.0), _node("c")], monkeypatch).slots == 2


def test_what_one_thread_opens_shares_a_device_and_other_threads_have_others(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [_node("a", CPU=8.0, GPU=2.0), _node("b", CPU=8.0, GPU=1.0)]
    executor = _executor_over(nodes, monkeypatch)
    places = [executor._place()]
    nodes.insert(0, _node("new", CPU=8.0, GPU=1.0))
    places.append(executor._place())
    other = threading.Thread(target=lambda: places.append(executor._place()))
    other.start()
    other.join()
    assert places[0] == places[1] == ("a", "0")
    assert places[2] != places[0]


def test_a_thread_moves_on_when_its_node_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [_node("a", CPU=2.0), _node("b", CPU=2.0)]
    executor = _executor_over(nodes, monkeypatch)
    assert executor._place() == ("a", "")
    nodes[0]["Alive"] = False
    assert executor._place() == ("b", "")
    nodes[1]["Alive"] = False
    with pytest.raises(EnvironmentProblem, match="needs a node"):
        executor._place()
