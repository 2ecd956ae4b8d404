"""Sessions that die or hang beside the one that is measured: nothing is blamed for it, and no time is lost over it."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from faulty import Fault, Faults, FaultyStudy, is_reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.errors import AutotuneError, BadInput, NothingFeasible
from autotune.executors.base import SessionRequest
from autotune.measure.lab import Lab
from autotune.search.calibrate import calibrate
from autotune.simulation.study import MEMORY
from autotune.space.document import parse_document
from autotune.study.events import TrialRepeated
from autotune.study.store import Study
from autotune.trial.types import (
    Completed,
    Failed,
    FailedKind,
    InfeasibleKind,
    Pruned,
    Stage,
    TrialRecord,
    TrialSpec,
)

PASSING = [FailedKind.CRASH, FailedKind.HUNG, FailedKind.KILLED]
NONE: Faults = lambda request, number: None  # noqa: E731


def once(which: Callable[[SessionRequest], bool], fault: Fault) -> Faults:
    """The first session of that kind has the fault; the others have none."""
    used = itertools.count()
    return lambda request, _: fault if which(request) and next(used) == 0 else None


def always(which: Callable[[SessionRequest], bool], fault: Fault) -> Faults:
    """Every session of that kind has it."""
    return lambda request, _: fault if which(request) else None


def is_candidate(request: SessionRequest) -> bool:
    return not is_reference(request)


def lab_of(study: FaultyStudy, opened: Study) -> Lab:
    return study.lab(opened, optuna.storages.InMemoryStorage())


def order(lab: Lab, label: str = "candidate", block: int = 0, **knobs: object) -> TrialSpec:
    config = lab.space.baseline.with_values(knobs)  # type: ignore[arg-type]
    tokens = lab.space.workload.horizon_tokens
    return lab.study.order(
        stage=Stage.EXPLORE_SYSTEM, label=label, config=config, seed=0, horizon_tokens=tokens, block=block
    )


def trial(study: FaultyStudy, *, complete: bool = False) -> TrialRecord:
    with study.open() as opened:
        lab = lab_of(study, opened)
        return lab.trial(order(lab, attention="sdpa"), rounds=12, complete=complete)


def repeated(study: FaultyStudy) -> list[TrialRepeated]:
    return [event.what for event in study.events if isinstance(event.what, TrialRepeated)]


# -- the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("after", [3, 4, 9])  # the first three are its warm-up
@pytest.mark.parametrize("kind", [*PASSING, InfeasibleKind.OUT_OF_MEMORY, None])
def test_a_trial_whose_reference_ends_is_measured_again_beside_a_new_one(
    tmp_path: Path, kind: FailedKind | None, after: int, complete: bool
) -> None:
    study = FaultyStudy(folder=tmp_path / "study", text=short_space())
    study.faults = once(is_reference, Fault(after=after, kind=kind))
    record = trial(study, complete=complete)
    assert isinstance(record.outcome, Completed)
    assert len(record.reference_slices) == 12
    (again,) = repeated(study)
    assert "the baseline beside it ended" in again.reason


def test_a_hung_reference_costs_seconds_and_not_the_search(tmp_path: Path) -> None:
    sound = FaultyStudy(folder=tmp_path / "sound", text=short_space(), budget_seconds=60.0)
    trial(sound)
    study = FaultyStudy(folder=tmp_path / "study", text=short_space(), budget_seconds=60.0)
    study.faults = once(is_reference, Fault(after=6))
    assert isinstance(trial(study).outcome, Completed)
    assert study.clock() - sound.clock() < 30.0


def test_a_reference_that_never_answers_leaves_time_for_another(tmp_path: Path) -> None:
    study = FaultyStudy(folder=tmp_path / "study", text=short_space(), budget_seconds=60.0)
    study.faults = once(is_reference, Fault(after=0))
    assert isinstance(trial(study).outcome, Completed)
    assert study.clock() < 60.0


@pytest.mark.parametrize("kind", [*PASSING, None])
def test_a_trial_beside_which_every_reference_ends_is_not_completed(tmp_path: Path, kind: FailedKind | None) -> None:
    study = FaultyStudy(folder=tmp_path / "study", faults=always(is_reference, Fault(after=5, kind=kind)))
    record = trial(study)
    assert isinstance(record.outcome, Failed)
    assert record.outcome.kind is (kind or FailedKind.HUNG)
    assert "the session beside it ended" in record.outcome.message
    assert len(repeated(study)) == 1


def test_a_baseline_that_dies_for_ever_ends_the_search_and_nothing_is_recorded(tmp_path: Path) -> None:
    fault = Fault(after=-1, kind=FailedKind.KILLED)
    study = FaultyStudy(folder=tmp_path / "study", faults=always(is_reference, fault))
    with pytest.raises(NothingFeasible, match="the baseline must train on this machine; got killed: injected"):
        trial(study)
    with study.open() as opened:
        assert not opened.records


# -- the candidate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [-1, 0, 4])
@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_confirmed_before_it_is_blamed_on_a_configuration(
    tmp_path: Path, kind: FailedKind, after: int
) -> None:
    study = FaultyStudy(folder=tmp_path / "once", faults=once(is_candidate, Fault(after=after, kind=kind)))
    assert isinstance(trial(study).outcome, Completed)
    (again,) = repeated(study)
    assert "may pass (injected)" in again.reason
    study = FaultyStudy(folder=tmp_path / "always", faults=always(is_candidate, Fault(after=after, kind=kind)))
    record = trial(study)
    assert record.outcome == Failed(kind=kind, message="injected")
    assert len(repeated(study)) == 1


@pytest.mark.parametrize("kind", [InfeasibleKind.OUT_OF_MEMORY, InfeasibleKind.COMPILE, InfeasibleKind.DIVERGED])
def test_what_the_session_itself_gives_as_its_reason_is_believed(tmp_path: Path, kind: InfeasibleKind) -> None:
    study = FaultyStudy(folder=tmp_path / "study", faults=once(is_candidate, Fault(after=-1, kind=kind)))
    record = trial(study)
    assert not isinstance(record.outcome, Completed)
    assert not repeated(study)


def test_a_proven_session_that_stops_answering_hangs_and_is_tried_again(tmp_path: Path) -> None:
    study = FaultyStudy(folder=tmp_path / "study", faults=once(is_candidate, Fault(after=4)))
    assert isinstance(trial(study).outcome, Completed)
    assert len(repeated(study)) == 1


def test_without_time_to_confirm_it_nothing_is_called_failed(tmp_path: Path) -> None:
    study = FaultyStudy(folder=tmp_path / "study", text=short_space(), budget_seconds=12.0)
    study.faults = always(is_candidate, Fault(after=4))
    record = trial(study)
    assert isinstance(record.outcome, Pruned)
    assert record.outcome.reason.startswith("out of time")


# -- a block -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("after", [-1, 0, 5])
def test_a_block_in_which_a_member_ends_is_measured_again_as_a_whole(
    tmp_path: Path, who: int, after: int, complete: bool
) -> None:
    fault = Fault(after=after, kind=FailedKind.KILLED)
    study = FaultyStudy(folder=tmp_path / "study", text=short_space())
    study.faults = lambda _, number: fault if number == who else None
    records = block(study, complete=complete)
    assert [type(r.outcome) for r in records] == [Completed] * 3
    assert all(len(r.reference_slices) >= 12 for r in records[1:])
    assert {what.number for what in repeated(study)} >= {records[who].spec.number}


def test_members_beside_whom_the_first_ends_twice_are_not_completed(tmp_path: Path) -> None:
    study = FaultyStudy(folder=tmp_path / "study", text=short_space())
    study.faults = lambda _, number: Fault(after=-1, kind=FailedKind.CRASH) if number % 3 == 0 else None
    records = block(study, complete=False)
    assert [type(r.outcome) for r in records] == [Failed] * 3


def block(study: FaultyStudy, *, complete: bool) -> tuple[TrialRecord, ...]:
    with study.open() as opened:
        lab = lab_of(study, opened)
        members = [order(lab, "first"), order(lab, "second", attention="sdpa"), order(lab, "third", micro_batch=16)]
        return lab.block(members, complete=complete, rounds=16)


# -- calibration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dying", [1, 4, 6, 30])
def test_a_calibration_whose_sessions_are_killed_for_a_while_goes_on_then_or_in_the_next_sitting(
    tmp_path: Path, dying: int
) -> None:
    fault = Fault(after=-1, kind=FailedKind.KILLED)
    study = FaultyStudy(folder=tmp_path / "study")
    study.faults = lambda request, number: fault if number < dying and is_candidate(request) else None
    if dying == 30:  # longer than a sitting tries
        with pytest.raises(NothingFeasible, match="must be trainable here; got injected"):
            study.sit()
        with study.open() as opened:
            mark = opened.stage(Stage.CALIBRATE)
            assert mark is not None
            assert not mark.finished
        study.faults = NONE
    study.sit()
    with study.open() as opened:
        assert opened.is_finished
        good = [r for r in opened.of_stage(Stage.CALIBRATE) if isinstance(r.outcome, Completed)]
    assert len(good) == 5


def test_a_budget_that_is_spent_before_the_baseline_is_no_fault_of_the_baseline(tmp_path: Path) -> None:
    study = FaultyStudy(folder=tmp_path / "study", budget_seconds=40.0)
    study.faults = always(is_reference, Fault(after=0))
    for _ in range(2):
        with pytest.raises(BadInput, match=r"a budget must leave time.*of 40 s went by.*resume study --budget 2m"):
            study.sit()
    study.faults = NONE
    with study.open() as opened:
        document = parse_document(study.text, name="s", source="s", folder=Path())
        opened.revise(document, corpus="stdlib", budget_seconds=2_500.0)
    assert study.sit().trials


# -- anything ----------------------------------------------------------------------------------------

KINDS = st.sampled_from([*PASSING, InfeasibleKind.OUT_OF_MEMORY, InfeasibleKind.TOO_SLOW, None])
FAULTS = st.dictionaries(
    st.integers(0, 14),
    st.builds(lambda after, kind: Fault(after=after, kind=kind), st.integers(0, 14), KINDS),
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(faults=FAULTS, budget_seconds=st.sampled_from([30.0, 120.0, 600.0]))
def test_whatever_dies_or_hangs_no_record_lies_and_no_wait_outlasts_the_budget(
    faults: dict[int, Fault], budget_seconds: float
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        study = FaultyStudy(folder=Path(folder) / "study", text=short_space(), budget_seconds=budget_seconds)
        study.faults = lambda _, number: faults.get(number)
        with study.open() as opened:
            lab = lab_of(study, opened)
            with contextlib.suppress(AutotuneError):
                calibrate(lab)
            records = opened.records
        assert study.clock() <= budget_seconds * 1.05 + 20.0
    for record in records:
        assert record.slices or not isinstance(record.outcome, Completed)
        if isinstance(record.outcome, Failed):
            assert record.spec.number in {what.number for what in repeated(study)}


def short_space() -> str:
    """The scripted space with trials of a few seconds."""
    return FaultyStudy.text.replace("horizon_tokens = 800_000", "horizon_tokens = 60_000")
