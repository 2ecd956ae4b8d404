"""Sessions on a cluster: the common promises, what only a cluster can do wrong, and where on it sessions go."""

import secrets
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autotune.errors import EnvironmentProblem
from autotune.executors import ray as ray_module
from autotune.executors.base import SessionEnded
from autotune.executors.local import LocalExecutor
from autotune.executors.ray import RayExecutor
from autotune.trial.types import FailedKind

from .examples import dies, request, stand_in
from .test_contract import (  # noqa: F401 - run here over the executor below
    test_a_closed_session_takes_no_orders,
    test_a_session_measures_its_gradient_noise_at_any_time,
    test_a_session_shows_what_it_computes_before_it_trains,
    test_a_session_trains_and_evaluates,
    test_an_infeasible_session_does_not_open_and_harms_no_other,
    test_at_least_one_session_may_step,
)


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    """A cluster of this machine, started once: it takes seconds."""
    inner = partial(LocalExecutor, command=stand_in(), launch="spawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray leaves one in the home folder
        with RayExecutor(inner=inner) as cluster:
            yield cluster


def test_a_dead_actor_ends_its_session_and_its_worker(executor: RayExecutor, tmp_path: Path) -> None:
    session = executor.open(request(tmp_path))
    worker = psutil.Process(int(session.ready.environment["pid"]))
    worker.parent().kill()
    with pytest.raises(SessionEnded, match="run the trial again") as ended:
        session.advance(1)
    assert ended.value.kind is FailedKind.CRASH
    assert dies(worker.pid)


def test_a_node_without_torch_is_a_problem_of_the_environment(executor: RayExecutor, tmp_path: Path) -> None:
    inner = partial(LocalExecutor, command=stand_in("exit=1:at_start"), launch="spawn")
    with (
        RayExecutor(inner=inner) as broken,  # joins the cluster that runs, and leaves it running
        pytest.raises(EnvironmentProblem, match=r"on a node.*No module named 'torch'"),
    ):
        broken.open(request(tmp_path))
    assert executor.slots == 1


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
