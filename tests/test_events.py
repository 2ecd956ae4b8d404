"""Every event is told by the real search, on simulated machines that give it a reason to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar, get_args

import pytest
from scripted_study import SPACE, ScriptedStudy

from autotune.analysis.recommendation import Verdict
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.simulation.world import Slowdown
from autotune.study.events import (
    Event,
    Happening,
    IncumbentFound,
    MachineBusy,
    NextTrialNotWorthIt,
    RaceWon,
    SittingFinished,
    SittingStarted,
    StageFinished,
    StageNotWorthIt,
    StageStarted,
    StudyMended,
    TextRead,
    TrialFinished,
    TrialRepeated,
    TrialStarted,
)
from autotune.study.fold import Progress, fold
from autotune.trial.types import Stage

QUIET = LognormalNoise(moment=0.05, own=0.01, process=0.005)
T = TypeVar("T")
Told = list[Happening]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Sixty times slower for six seconds of every thirty: no fault of what is measured then."""

    quiet: LognormalNoise = field(default_factory=lambda: QUIET)

    def slowdown(self, seed: int, process: int) -> Slowdown:
        usual = self.quiet.slowdown(seed, process)
        return lambda at: usual(at) * (60.0 if at % 30.0 < 6.0 else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstyWorld(ExampleWorld):
    bursts: Bursts = field(default_factory=Bursts)

    def slowdown(self, seed: int, process: int) -> Slowdown:
        return self.bursts.slowdown(seed, process)


@dataclass(frozen=True, kw_only=True)
class Case:
    world: ExampleWorld = field(default_factory=lambda: ExampleWorld(noise=QUIET))
    plan_tokens: int = 80_000_000
    budget_seconds: float = 2_500.0


CASES = {
    "usual": Case(plan_tokens=800_000_000),
    "bursts": Case(world=BurstyWorld(), plan_tokens=800_000_000),
    "a plan that cannot pay": Case(plan_tokens=300_000),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Told]:
    """What the searches of `CASES` tell."""
    happenings = {}
    for name, case in CASES.items():
        text = SPACE.replace("tokens = 80_000_000", f"tokens = {case.plan_tokens}")
        study = ScriptedStudy(
            folder=tmp_path_factory.mktemp("study") / "s",
            text=text,
            world=case.world,
            budget_seconds=case.budget_seconds,
        )
        study.sit()
        happenings[name] = [event.what for event in study.events]
    return happenings


def of(kind: type[T], happenings: Told) -> list[T]:
    return [what for what in happenings if isinstance(what, kind)]


def test_a_usual_search_tells_its_stages_trials_incumbents_race_and_verdict(told: Mapping[str, Told]) -> None:
    usual = told["usual"]
    assert len(of(StageStarted, usual)) == len(of(StageFinished, usual)) == 6
    assert {t.number for t in of(TrialStarted, usual)} == {t.number for t in of(TrialFinished, usual)}
    best = of(IncumbentFound, usual)
    assert best
    assert all(b.speedup > 1.0 and b.changes for b in best)
    (won,) = of(RaceWon, usual)
    assert won.changes
    (stopped, *_) = of(NextTrialNotWorthIt, usual)
    assert stopped.expected_saving < stopped.trial_cost
    assert stopped.currency == "USD"
    (finished,) = of(SittingFinished, usual)
    assert Verdict(finished.verdict) in (Verdict.CLAIMED, Verdict.EXPECTED, Verdict.RACE)


def test_the_best_so_far_shows_the_speed_up_that_is_believed_of_what_was_measured(told: Mapping[str, Told]) -> None:
    usual = told["usual"]
    ratios = {t.number: t.throughput_ratio for t in of(TrialFinished, usual)}
    for best in of(IncumbentFound, usual):
        if best.stage is Stage.EXPLORE_SYSTEM:
            assert best.speedup == pytest.approx(ratios[best.number], rel=0.05), "one trial may be luck"
    progress = Progress()
    for what in usual:
        progress = fold(progress, Event(elapsed_seconds=1.0, what=what))
    assert progress.best is not None
    assert progress.best.speedup == max(b.speedup for b in of(IncumbentFound, usual))


def test_a_burst_of_the_machine_repeats_the_trial(told: Mapping[str, Told]) -> None:
    repeated = of(TrialRepeated, told["bursts"])
    assert repeated
    finished = {t.number: t.outcome for t in of(TrialFinished, told["bursts"])}
    assert any(finished[r.number] == "completed" for r in repeated)


def test_a_plan_that_cannot_pay_stops_the_stage(told: Mapping[str, Told]) -> None:
    (first, *_) = of(StageNotWorthIt, told["a plan that cannot pay"])
    assert first.hoped_seconds < first.cost_seconds


def test_every_kind_of_event_was_told(told: Mapping[str, Told]) -> None:
    seen = {type(what) for happenings in told.values() for what in happenings}
    told_by_the_driver = {MachineBusy, SittingStarted, StudyMended, TextRead}
    assert seen | told_by_the_driver == set(get_args(Happening)), "test_api.py and test_identity.py have them"
