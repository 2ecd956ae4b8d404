"""What exploration saw of single knobs, in a world whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from autotune_model.config import TrainingConfig
from scripted_study import SPACE, ScriptedStudy

from autotune.analysis.evidence import Calibration, calibration_of
from autotune.analysis.exploration import explored_effect
from autotune.analysis.recommendation import CaveatKind, TechniqueVerdict
from autotune.quantity import Interval, Unknown
from autotune.simulation.executor import ExampleWorld, LognormalNoise, ScriptedSession
from autotune.study.store import read_records
from autotune.trial.types import Slice, TrialRecord

WORLD = ExampleWorld(noise=LognormalNoise(moment=0.02, own=0.005, process=0.005))
BASELINE = TrainingConfig(micro_batch=8, global_batch=16)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[TrialRecord, ...], Calibration]:
    scripted = ScriptedStudy(tmp_path_factory.mktemp("scripted") / "study", world=WORLD)
    scripted.sit()
    records = read_records(scripted.folder)
    calibration = calibration_of(records)
    assert isinstance(calibration, Calibration)
    return records, calibration


@pytest.mark.parametrize("name", ["attention", "optimizer_kernel", "micro_batch"])
def test_the_speed_of_one_knob_is_that_of_the_world(
    study: tuple[tuple[TrialRecord, ...], Calibration], name: str
) -> None:
    seen = explored_effect(*study, BASELINE, name)
    assert seen
    assert isinstance(seen.speed, Interval)
    truths = []
    for record in study[0]:
        twin = record.spec.config.with_knobs({name: getattr(BASELINE, name)})
        if getattr(record.spec.config, name) == getattr(seen.config, name):
            truths.append(math.log(WORLD.tokens_per_second(record.spec.config) / WORLD.tokens_per_second(twin)))
    assert seen.speed.low < seen.speed.estimate < seen.speed.high
    assert min(abs(seen.speed.estimate - truth) for truth in truths) < 0.05


def test_learning_knobs_have_a_quality_and_no_claim_on_the_plan(
    study: tuple[tuple[TrialRecord, ...], Calibration],
) -> None:
    seen = explored_effect(*study, BASELINE, "learning_rate")
    assert seen
    assert isinstance(seen.quality, Interval)
    assert seen.quality.low < seen.quality.high


def test_a_knob_that_was_never_turned_has_no_effect(study: tuple[tuple[TrialRecord, ...], Calibration]) -> None:
    assert explored_effect(*study, BASELINE, "checkpointing") is None
    assert explored_effect((), study[1], BASELINE, "attention") is None


def test_the_table_shows_what_was_explored_and_prices_it(tmp_path: Path) -> None:
    result = ScriptedStudy(tmp_path / "study", world=WORLD, budget_seconds=900.0).sit()
    explored = [t for t in result.techniques if t.verdict is TechniqueVerdict.EXPLORED]
    assert explored
    for technique in explored:
        assert isinstance(technique.speed_effect, Interval)
        assert technique.value != technique.baseline_value
        carried = technique.knob_class != "learning"
        assert isinstance(technique.saving, Interval if carried else Unknown)


@dataclass(frozen=True)
class SharingWorld(ExampleWorld):
    """Two processes are half as fast again as one."""

    def tokens_per_second(self, config: TrainingConfig) -> float:
        return super().tokens_per_second(config) * (1.5 if config.parallelism == "ddp" else 1.0)


def test_what_depends_on_each_other_is_explored_and_left_out_together(tmp_path: Path) -> None:
    text = SPACE.replace("[knobs]", '[knobs]\nparallelism = ["none", "ddp", "pipeline"]\nworld_size = [1, 2]')
    world = SharingWorld(noise=LognormalNoise(moment=0.02, own=0.005, process=0.005))
    result = ScriptedStudy(tmp_path / "study", text=text, world=world).sit()
    rows = {t.name: t for t in result.techniques}
    for name in ("parallelism", "world_size"):
        assert rows[name].verdict is TechniqueVerdict.ADOPT
        assert isinstance(rows[name].speed_effect, Interval)
        assert rows[name].speed_effect.low < 1.5 < rows[name].speed_effect.high
        assert "parallelism=ddp, world_size=2 together" in rows[name].reason
    tried = {r.spec.config.parallelism for r in read_records(tmp_path / "study")}
    assert tried == {"none", "ddp", "pipeline"}


@dataclass(frozen=True)
class FastInFp16(ExampleWorld):
    """Half precision is not emulated here."""

    def tokens_per_second(self, config: TrainingConfig) -> float:
        return super().tokens_per_second(config) * (45.0 if config.dtype == "fp16_autocast" else 1.0)


def test_a_study_counts_the_updates_that_overflow_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = ScriptedSession.advance

    def overflowing(session: ScriptedSession, steps: int, round: int = -1) -> Slice:
        lost = 1 if session._config.training.dtype == "fp16_autocast" else 0
        return replace(advance(session, steps, round), skipped_steps=lost)

    monkeypatch.setattr(ScriptedSession, "advance", overflowing)
    result = ScriptedStudy(tmp_path / "study", world=FastInFp16(), budget_seconds=900.0).sit()
    (caveat,) = (c for c in result.caveats if c.kind is CaveatKind.OVERFLOW)
    slices = [s for r in read_records(tmp_path / "study") if r.spec.config.dtype == "fp16_autocast" for s in r.slices]
    assert caveat.details == {"skipped": len(slices), "steps": sum(len(s.losses) for s in slices)}
