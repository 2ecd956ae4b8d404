"""The built-in GPT in simulated time, for tests that search through the API."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from small_space import SPACE

from autotune.executors.base import SessionRequest
from autotune.executors.load import Load
from autotune.simulation.example import ExampleWorld
from autotune.simulation.executor import MACHINE, ScriptedExecutor, ScriptedSession, SimulatedClock
from autotune.simulation.workload import simulated_gpt
from autotune.space.document import parse_document
from autotune.study.events import Event, TrialFinished
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine

TINY = SPACE.replace(
    "tokens = 400_000", "tokens = 1_000"
)  # a plan that no search can pay for: it ends after two trials


class SimulatedMachine(ScriptedExecutor):
    """Runs orders of the built-in GPT in simulated time, and counts how often it was examined."""

    def __init__(self, machine: Machine = MACHINE, *, load: Load | None = None) -> None:
        super().__init__(ExampleWorld(), SimulatedClock(), machine=machine, load=load)
        self.examined = 0
        self._gpt = simulated_gpt(parse_document(SPACE, name="s", source="s", folder=Path()))

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
        self.examined += 1
        return super().examine(order, limit_seconds=limit_seconds)

    def open(self, request: SessionRequest) -> ScriptedSession:
        order = self._gpt.order(request.configuration, seed=request.seed, horizon_tokens=request.horizon_tokens)
        return super().open(replace(request, order=order))


def stop_after_a_trial(event: Event) -> None:
    """Ctrl-C, when there is something to go on from."""
    if isinstance(event.what, TrialFinished):
        raise KeyboardInterrupt
