"""The real pipeline on a simulated machine: everything as in a search, but for processes and time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from autotune.analysis.recommendation import Recommendation
from autotune.measure.lab import Lab
from autotune.search import run_search
from autotune.search.propose import database
from autotune.simulation.executor import MACHINE, ScriptedExecutor, SimulatedClock
from autotune.simulation.workload import simulated_gpt
from autotune.simulation.world import ScriptedWorld
from autotune.study.events import Event, Listener
from autotune.study.store import FORMAT, Study, StudyInfo
from autotune.trial.types import TrialRecord
from autotune.workload.machine import Machine
from autotune.workload.space import Read

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it
"""Where studies that nobody reads again are kept: their files are synced a thousand times."""


@dataclass
class SimulatedStudy:
    """A study on a simulated machine; `sit` runs it, again and again if need be. `text` is a search space in TOML."""

    folder: Path
    text: str
    world: ScriptedWorld
    budget_seconds: float
    machine: Machine = MACHINE
    read: Read = simulated_gpt
    seed: int = 0
    events: list[Event] = field(default_factory=list)

    def open(self) -> Study:
        """The study, made where there is none."""
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
        """A bench on the simulated machine; its clock starts anew, as a process's does."""
        clock = SimulatedClock()
        return Lab(
            study=study,
            executor=ScriptedExecutor(self.world, clock, seed=self.seed, machine=self.machine),
            machine=self.machine,
            storage=storage,
            clock=clock,
            listeners=[lambda event: self.events.append(event), *listeners],
            seed=self.seed,
        )

    def sit(self, listeners: Sequence[Listener] = ()) -> Recommendation:
        """One sitting of the search, to its end or until a listener raises."""
        with self.open() as study, database(study.database) as storage:
            return run_search(self.lab(study, storage, listeners))


def simulate(
    text: str, world: ScriptedWorld, *, budget_seconds: float, seed: int
) -> tuple[Recommendation, tuple[TrialRecord, ...]]:
    """A whole search that leaves nothing behind: its recommendation and its records."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        simulated = SimulatedStudy(
            folder=Path(folder) / "study", text=text, world=world, budget_seconds=budget_seconds, seed=seed
        )
        with simulated.open() as study:
            lab = simulated.lab(study, optuna.storages.InMemoryStorage())  # an SQLite file would take most of the time
            return run_search(lab), study.records
