"""What events add up to."""

from __future__ import annotations

import copy
import math
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_study import ScriptedStudy

from autotune.study.events import (
    Event,
    Happening,
    IncumbentFound,
    SittingFinished,
    SittingStarted,
    StageFinished,
    StageStarted,
    TrialFinished,
    TrialStarted,
)
from autotune.study.fold import Progress, fold
from autotune.trial.types import Stage, StageEnd

SECONDS = st.floats(min_value=0.0, max_value=1e9)
EVENTS = st.lists(
    st.builds(Event, elapsed_seconds=SECONDS, what=st.one_of(*(st.from_type(kind) for kind in get_args(Happening))))
)


def folded(events: list[Event]) -> list[Progress]:
    """The progress before the first event and after each."""
    steps = [Progress()]
    for event in events:
        steps.append(fold(steps[-1], event))
    return steps


def started(number: int, stage: Stage = Stage.RACE, changes: dict[str, str] | None = None) -> TrialStarted:
    return TrialStarted(stage=stage, number=number, label="finalist", changes=changes or {})


def finished(number: int, stage: Stage = Stage.RACE) -> TrialFinished:
    return TrialFinished(
        stage=stage, number=number, label="finalist", outcome="completed", reason="", throughput_ratio=1.1, loss=None
    )


def found(number: int, speedup: float) -> IncumbentFound:
    return IncumbentFound(stage=Stage.EXPLORE_SYSTEM, number=number, label="proposal", speedup=speedup, changes={})


def after(*happenings: Happening) -> Progress:
    return folded([Event(elapsed_seconds=float(i), what=what) for i, what in enumerate(happenings)])[-1]


@given(EVENTS)
def test_events_in_any_order_add_up(events: list[Event]) -> None:
    steps = folded(events)
    for before, now in pairwise(steps):
        assert now.elapsed_seconds >= before.elapsed_seconds
        numbers = [trial.number for trial in now.running]
        assert len(numbers) == len(set(numbers))
        assert len(now.last) <= 4
    for event, now in zip(events, steps[1:], strict=True):
        match event.what:
            case TrialFinished(number=number):
                assert number not in [trial.number for trial in now.running]
                assert now.last[-1].trial is event.what
            case StageFinished(stage=stage, spent_seconds=spent):
                assert now.stage is not stage
                assert now.spent_seconds[stage] is spent
            case _:
                pass


@given(EVENTS)
def test_the_best_is_the_best_of_all_stages(events: list[Event]) -> None:
    speedups = [e.what.speedup for e in events if isinstance(e.what, IncumbentFound) and not math.isnan(e.what.speedup)]
    best = reduce(fold, events, Progress()).best
    if best is None or not math.isnan(best.speedup):
        assert (best and best.speedup) == max(speedups, default=None)


@given(EVENTS, st.from_type(Event))
def test_folding_leaves_what_was_as_it_was(events: list[Event], last: Event) -> None:
    progress = reduce(fold, events, Progress())
    before = copy.deepcopy(progress)
    fold(progress, last)
    assert repr(progress) == repr(before)  # by text, for NaN is not equal to itself


def test_trials_of_a_block_run_side_by_side() -> None:
    progress = after(started(1), started(2, changes={"dtype": "fp32"}), finished(2))
    assert [trial.number for trial in progress.running] == [1]
    assert [(ended.trial.number, ended.changes) for ended in progress.last] == [(2, {"dtype": "fp32"})]


def test_a_finished_trial_whose_start_was_not_seen_has_no_known_changes() -> None:
    assert after(finished(2)).last[0].changes is None


def test_a_worse_trial_of_a_later_stage_is_not_the_best() -> None:
    best = after(found(3, 1.3), found(9, 1.2)).best
    assert best is not None
    assert best.number == 3


def test_a_new_sitting_runs_nothing_yet_and_keeps_what_was_found() -> None:
    sitting = SittingStarted(study="s", budget_seconds=60.0, spent_seconds=3.0, resumed=True)
    stage = StageStarted(stage=Stage.RACE, allotted_seconds=10.0)
    progress = after(stage, started(1), finished(1), found(1, 1.2), started(2), sitting)
    assert (progress.study, progress.budget_seconds) == ("s", 60.0)
    assert (progress.stage, progress.running) == (None, ())
    assert progress.best
    assert progress.last


def test_a_stage_is_in_progress_from_its_start_to_its_end() -> None:
    stage = StageStarted(stage=Stage.RACE, allotted_seconds=10.0)
    end = StageFinished(stage=Stage.RACE, spent_seconds=7.0, reason=StageEnd.DONE)
    progress = after(found(1, 1.2), stage, started(1))
    assert (progress.stage, progress.stage_started_seconds, progress.allotted_seconds) == (Stage.RACE, 1.0, 10.0)
    over = fold(progress, Event(elapsed_seconds=8.0, what=end))
    assert (over.stage, over.spent_seconds, over.running) == (None, {Stage.RACE: 7.0}, ())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ScriptedStudy:
    scripted = ScriptedStudy(folder=Path(tmp_path_factory.mktemp("study")) / "s", budget_seconds=400.0)
    scripted.sit()
    return scripted


def test_a_search_adds_up_to_its_end(study: ScriptedStudy) -> None:
    progress = reduce(fold, study.events, Progress())
    assert set(progress.spent_seconds) == set(Stage)
    assert (progress.stage, progress.running) == (None, ())
    assert progress.best
    assert progress.best.speedup > 1.0
    assert all(ended.changes is not None for ended in progress.last)
    assert progress.verdict == next(e.what.verdict for e in study.events if isinstance(e.what, SittingFinished))


def test_a_search_announces_every_trial_that_it_finishes(study: ScriptedStudy) -> None:
    numbers = [e.what.number for e in study.events if isinstance(e.what, TrialStarted)]
    assert numbers == list(range(len(numbers)))
    assert sorted(e.what.number for e in study.events if isinstance(e.what, TrialFinished)) == numbers
