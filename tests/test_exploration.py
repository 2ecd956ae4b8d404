"""What exploration saw of single knobs, in a world whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from scripted_study import SPACE, ScriptedStudy

from autotune.analysis.case import Case, Circumstances
from autotune.analysis.caveat import Overflow
from autotune.analysis.evidence import Calibration, calibration_of
from autotune.analysis.exploration import explored_effect
from autotune.analysis.recommendation import TechniqueVerdict
from autotune.quantity import Interval, Unknown
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.simulation.executor import MACHINE, ScriptedSession
from autotune.space.configuration import Configuration
from autotune.study.reading import read_records
from autotune.trial.types import Slice

WORLD = ExampleWorld(noise=LognormalNoise(moment=0.02, own=0.005, process=0.005))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """What a whole search of the example's space leaves."""
    scripted = ScriptedStudy(folder=tmp_path_factory.mktemp("scripted") / "study", world=WORLD)
    scripted.sit()
    with scripted.open() as study:
        space = study.space
    records = read_records(scripted.folder)
    calibration = calibration_of(records)
    assert isinstance(calibration, Calibration)
    facts = Circumstances(
        expert=space.baseline,
        expert_anywhere=space.baseline,
        search_seconds=2_500.0,
        seconds_by_stage={},
        stage_ends={},
        corpus=MACHINE.corpus,
        environment={},
        peak_flops={},
    )
    return Case(space=space, records=records, calibration=calibration, facts=facts)


@pytest.mark.parametrize("name", ["attention", "optimizer_kernel", "micro_batch"])
def test_the_speed_of_one_knob_is_that_of_the_world(case: Case, name: str) -> None:
    seen = explored_effect(case, name)
    assert seen
    assert isinstance(seen.speed, Interval)
    truths = []
    for record in case.records:
        config = record.spec.config
        twin = config.with_values({name: case.baseline[name]})
        if config[name] == seen.config[name]:
            truths.append(math.log(WORLD.tokens_per_second(config) / WORLD.tokens_per_second(twin)))
    assert seen.speed.low < seen.speed.estimate < seen.speed.high
    assert min(abs(seen.speed.estimate - truth) for truth in truths) < 0.05


def test_learning_knobs_have_a_quality_and_no_claim_on_the_plan(case: Case) -> None:
    seen = explored_effect(case, "learning_rate")
    assert seen
    assert isinstance(seen.quality, Interval)
    assert seen.quality.low < seen.quality.high


def test_a_knob_that_was_never_turned_has_no_effect(case: Case) -> None:
    assert explored_effect(case, "checkpointing") is None
    assert explored_effect(replace(case, records=()), "attention") is None


def test_the_table_shows_what_was_explored_and_prices_it(tmp_path: Path) -> None:
    result = ScriptedStudy(folder=tmp_path / "study", world=WORLD).sit()
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

    def tokens_per_second(self, config: Configuration) -> float:
        return super().tokens_per_second(config) * (1.5 if config["parallelism"] == "ddp" else 1.0)


def test_what_depends_on_each_other_is_explored_and_left_out_together(tmp_path: Path) -> None:
    text = SPACE.replace("[knobs]", '[knobs]\nparallelism = ["none", "ddp", "pipeline"]\nworld_size = [1, 2]')
    world = SharingWorld(noise=LognormalNoise(moment=0.02, own=0.005, process=0.005))
    result = ScriptedStudy(folder=tmp_path / "study", text=text, world=world).sit()
    rows = {t.name: t for t in result.techniques}
    for name in ("parallelism", "world_size"):
        assert rows[name].verdict is TechniqueVerdict.ADOPT
        effect = rows[name].speed_effect
        assert isinstance(effect, Interval)
        assert effect.low * 0.99 < 1.5 < effect.high * 1.01
        assert "parallelism=ddp, world_size=2 together" in rows[name].reason
    tried = {r.spec.config["parallelism"] for r in read_records(tmp_path / "study")}
    assert tried == {"none", "ddp", "pipeline"}


@dataclass(frozen=True)
class FastInFp16(ExampleWorld):
    """Half precision is not emulated here."""

    def tokens_per_second(self, config: Configuration) -> float:
        return super().tokens_per_second(config) * (45.0 if config["dtype"] == "fp16_autocast" else 1.0)


def test_a_study_counts_the_updates_that_overflow_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = ScriptedSession.advance

    def overflowing(session: ScriptedSession, steps: int, round: int = -1) -> Slice:
        lost = 1 if session._request.configuration["dtype"] == "fp16_autocast" else 0
        return replace(advance(session, steps, round), skipped_steps=lost)

    monkeypatch.setattr(ScriptedSession, "advance", overflowing)
    result = ScriptedStudy(folder=tmp_path / "study", world=FastInFp16(), budget_seconds=900.0).sit()
    (caveat,) = (c for c in result.caveats if isinstance(c, Overflow))
    slices = [
        s for r in read_records(tmp_path / "study") if r.spec.config["dtype"] == "fp16_autocast" for s in r.slices
    ]
    assert slices
    assert caveat == Overflow(skipped=len(slices), steps=sum(len(s.losses) for s in slices))
