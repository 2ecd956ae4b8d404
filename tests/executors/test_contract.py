"""The executors of this machine and the scripted one keep the promises of all executors. The cluster's: test_ray.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import BadInput
from autotune.executors import EXECUTORS, open_executor
from autotune.executors.base import Executor, SessionRequest
from autotune.executors.local import LocalExecutor
from autotune.simulation.example import ExampleWorld
from autotune.simulation.executor import MACHINE, ScriptedExecutor, SimulatedClock
from autotune.workload.base import WorkerOrder

from .contract import ExecutorContract
from .examples import scripted_request


class TestForkedWorkers(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with LocalExecutor(launch="fork") as local:
            yield local


class TestSpawnedWorkers(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with LocalExecutor(launch="spawn") as local:
            yield local


class TestScriptedSessions(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with ScriptedExecutor(ExampleWorld(), SimulatedClock()) as scripted:
            yield scripted

    def request(self, folder: Path, **changes: Any) -> SessionRequest:
        return scripted_request(folder, **changes)

    def examination(self) -> WorkerOrder:
        return WorkerOrder(program=(), payload={})

    def test_the_machine_is_the_one_it_was_given(self, executor: Executor) -> None:
        assert executor.examine(self.examination()) == MACHINE


def test_an_executor_is_opened_by_its_name() -> None:
    executor = open_executor("local")
    assert isinstance(executor, LocalExecutor)
    executor.close()
    assert EXECUTORS == ("local", "ray")


def test_there_are_no_other_executors() -> None:
    with pytest.raises(BadInput, match=r"one of local, ray; got 'slurm': use local"):
        open_executor("slurm")
