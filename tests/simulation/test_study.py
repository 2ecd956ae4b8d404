"""Simulated studies: the real pipeline, the same each time, and nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from scripted_study import SPACE

from autotune.errors import NothingFeasible
from autotune.simulation.example import ExampleWorld
from autotune.simulation.study import SimulatedStudy, simulate
from autotune.simulation.world import Slowdown
from autotune.simulation.worlds import draw_world
from autotune.study.reading import read_records
from autotune.trial.types import Infeasible, InfeasibleKind, Stage, TrialRecord

BUDGET_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedWorld(ExampleWorld):
    """Notes what lies in `folder` whenever a session is opened."""

    folder: Path
    seen: list[Path] = field(default_factory=list)

    def slowdown(self, seed: int, process: int) -> Slowdown:
        self.seen.extend(self.folder.iterdir())
        return ExampleWorld.slowdown(self, seed, process)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenWorld(WatchedWorld):
    """No session gets through its first pass."""

    def obstacle(self, config: object) -> Infeasible:
        return Infeasible(kind=InfeasibleKind.OUT_OF_MEMORY, message="no memory at all")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where simulated studies are kept while they last; work is done elsewhere."""
    kept, work = tmp_path / "kept", tmp_path / "work"
    kept.mkdir()
    work.mkdir()
    monkeypatch.setattr("autotune.simulation.study.MEMORY", str(kept))
    monkeypatch.chdir(work)
    return kept


def undated(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records but for the time of day."""
    return [replace(r, started_at="", finished_at="") for r in records]


def test_a_simulation_leaves_nothing_behind(folder: Path) -> None:
    world = WatchedWorld(folder=folder)
    simulate(SPACE, world, budget_seconds=60.0, seed=0)
    assert len(set(world.seen)) == 1, "it was kept there while it lasted"
    assert not list(folder.iterdir())
    assert not list(Path.cwd().iterdir())


def test_a_simulation_that_fails_leaves_nothing_behind_either(folder: Path) -> None:
    world = BrokenWorld(folder=folder)
    with pytest.raises(NothingFeasible, match="no memory at all"):
        simulate(SPACE, world, budget_seconds=60.0, seed=0)
    assert world.seen
    assert not list(folder.iterdir())


def test_the_same_seed_gives_the_same_study_and_another_seed_another(folder: Path) -> None:
    once, again, other = (
        simulate(SPACE, draw_world(1), budget_seconds=BUDGET_SECONDS, seed=seed) for seed in (1, 1, 2)
    )
    assert once[0] == again[0]
    assert undated(once[1]) == undated(again[1])
    assert undated(once[1]) != undated(other[1])
    assert {r.spec.stage for r in once[1]} >= {Stage.CALIBRATE, Stage.EXPLORE_SYSTEM, Stage.CONFIRM}


def test_a_study_in_memory_recommends_what_the_same_on_disk_does(folder: Path, tmp_path: Path) -> None:
    in_memory, records = simulate(SPACE, draw_world(1), budget_seconds=BUDGET_SECONDS, seed=1)
    on_disk = SimulatedStudy(
        folder=tmp_path / "study", text=SPACE, world=draw_world(1), budget_seconds=BUDGET_SECONDS, seed=1
    )
    assert on_disk.sit() == in_memory
    assert (on_disk.folder / "study.db").exists()
    assert undated(read_records(on_disk.folder)) == undated(records)
