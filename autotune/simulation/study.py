"""The real pipeline on a simulated machine: a real search, except that processes and time are simulated."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from autotune.analysis.recommendation import Recommendation
from autotune.measure.lab import Lab
from autotune.search import run_search
from autotune.search.database import Dashboard
from autotune.simulation.executor import MACHINE, ScriptedExecutor, SimulatedClock
from autotune.simulation.workload import simulated_gpt
from autotune.simulation.world import ScriptedWorld
from autotune.study.events import Event, Listener
from autotune.study.store import FORMAT, Study, StudyInfo
from autotune.trial.types import TrialRecord
from autotune.workload.machine import Machine
from autotune.workload.space import Read

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it
"""Folder for temporary studies, in memory if possible: their files are synced a thousand times."""


@dataclass
class SimulatedStudy:
    """A study on a simulated machine. `sit` runs one sitting and may be called again. `text` is a space in TOML.

    `said` is what was wrong with the database.
    """

    folder: Path
    text: str
    world: ScriptedWorld
    budget_seconds: float
    machine: Machine = MACHINE
    read: Read = simulated_gpt
    seed: int = 0
    events: list[Event] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def open(self) -> Study:
        """Open the study, or create it if there is none."""
        if (self.folder / "study.json").exists():
            return Study.open(self.folder, self.read)
        info = StudyInfo(
            format=FORMAT,
            created_at="2026-01-01T00:00:00+00:00",
            space_name="simulated",
            corpus="stdlib",
            corpus_as_written="",
            budget_seconds=self.budget_seconds,
            identity={},
        )
        return Study.create(self.folder, info, self.text, self.read)

    def lab(self, study: Study, storage: optuna.storages.BaseStorage, listeners: Sequence[Listener] = ()) -> Lab:
        """A lab on the simulated machine; its clock starts at 0, as in a new process."""
        clock = SimulatedClock()
        return Lab(
            study=study,
            executor=self.executor(clock),
            machine=self.machine,
            storage=storage,
            clock=clock,
            listeners=[lambda event: self.events.append(event), *listeners],
            seed=self.seed,
            pause=clock.advance,
        )

    def executor(self, clock: SimulatedClock) -> ScriptedExecutor:
        """The simulated machine, whose work takes the time of `clock`."""
        return ScriptedExecutor(self.world, clock, seed=self.seed, machine=self.machine)

    def sit(self, listeners: Sequence[Listener] = ()) -> Recommendation:
        """Run one sitting of the search, to its end or until a listener raises."""
        with self.open() as study, Dashboard(study, self.said.append) as dashboard:
            return run_search(self.lab(study, optuna.storages.InMemoryStorage(), (dashboard, *listeners)))


def simulate(
    text: str, world: ScriptedWorld, *, budget_seconds: float, seed: int
) -> tuple[Recommendation, tuple[TrialRecord, ...]]:
    """Run a whole search in a temporary folder; returns its recommendation and records."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        simulated = SimulatedStudy(
            folder=Path(folder) / "study", text=text, world=world, budget_seconds=budget_seconds, seed=seed
        )
        with simulated.open() as study:
            lab = simulated.lab(study, optuna.storages.InMemoryStorage())  # an SQLite file would take most of the time
            return run_search(lab), study.records
