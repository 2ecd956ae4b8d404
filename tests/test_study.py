"""A study on disk: what survives, who owns it, what damage looks like, how its time is shared out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_study import INFO, acknowledge, event, make, order, record_of
from small_space import SPACE

from autotune.errors import BadInput, EnvironmentProblem, ExitCode, StoreDamaged, StudyBusy
from autotune.study import store
from autotune.study.ledger import SHARES, Budget
from autotune.study.reading import read_records
from autotune.study.seal import sealed
from autotune.study.store import FORMAT, StageMark, Study, check_name, differences
from autotune.trial.types import (
    Infeasible,
    InfeasibleKind,
    Stage,
    StageEnd,
)

# -- making and naming -------------------------------------------------------------------------------


def test_a_new_study_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        made = study.space
    with Study.open(tmp_path / "mine") as study:
        assert replace(study.info, id="", space_sha256="", corpus_beside="") == INFO
        assert study.space == made
        assert study.space.name == "space"
        assert (study.space.workload.corpus, study.space.budget_seconds) == ("/data/text", 100.0)
        assert (study.folder / "space.toml").read_text() == SPACE


@pytest.mark.parametrize("name", ["", ".hidden", "-flag", "..", "a/b", "../up", "two words", "tab\t", "x" * 61, "a:b"])
def test_a_name_that_no_folder_should_have_is_none(name: str) -> None:
    with pytest.raises(BadInput, match=r"^a study's name is .*; got .*: try 'my-study'$"):
        check_name(name)


def test_a_study_in_a_folder_of_such_a_name_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got 'two words'"):
        make(tmp_path, name="two words")
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.text(max_size=70))
def test_a_legal_name_is_one_plain_folder(name: str) -> None:
    try:
        check_name(name)
    except BadInput:
        return
    assert Path(name).name == name
    assert len(os.fsencode(name)) <= 255


def test_a_space_that_cannot_be_searched_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no table 'wrong' here"):
        Study.create(tmp_path / "mine", INFO, SPACE + "\n[wrong]\n")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_taken_once_it_has_a_trial(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        acknowledge(study)
    with pytest.raises(BadInput, match="a new study needs a new name; got 'mine', which exists: choose another"):
        Study.create(tmp_path / "mine", replace(INFO, corpus="/other"), SPACE)
    with Study.open(tmp_path / "mine") as study:
        assert study.info.corpus == INFO.corpus


def test_only_a_study_can_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a study is a folder with study.json; got .*: see `autotune studies`"):
        Study.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- owning ------------------------------------------------------------------------------------------


def test_one_driver_owns_a_study_until_it_is_closed(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        with pytest.raises(StudyBusy, match=f"'mine' is owned by process {os.getpid()}: wait") as refused:
            Study.open(study.folder)
        assert refused.value.exit_code == ExitCode.STUDY_BUSY
        order(study)  # the refusal did the owner no harm
    with Study.open(tmp_path / "mine") as study:
        study.close()
        study.close()
    Study.open(tmp_path / "mine").close()


OWNER = """
import sys
from pathlib import Path
from autotune.study.store import Study
study = Study.open(Path(sys.argv[1]))
print("owned", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_driver_is_free(tmp_path: Path) -> None:
    make(tmp_path).close()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "mine")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"owned\n"
        with pytest.raises(StudyBusy, match=f"is owned by process {owner.pid}:"):
            Study.open(tmp_path / "mine")
        owner.kill()
        owner.wait()
        Study.open(tmp_path / "mine").close()


# -- trials ------------------------------------------------------------------------------------------


def test_the_same_order_is_given_once(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        specs = [order(study, label=label, seed=seed) for label in ("a", "b") for seed in (0, 1)]
        assert [s.number for s in specs] == [0, 1, 2, 3]
        assert order(study, label="b", seed=0) == specs[2]
    with Study.open(tmp_path / "mine") as study:
        assert order(study, label="a", seed=1) == specs[1]
        assert order(study, label="c").number == 4
        assert [s.number for s in study.ordered(Stage.RACE)] == [0, 1, 2, 3, 4]
        assert study.ordered(Stage.CONFIRM) == ()


@pytest.mark.parametrize("deleted", [0, 2])
def test_a_number_is_never_used_again(tmp_path: Path, deleted: int) -> None:
    with make(tmp_path) as study:
        for seed in range(3):
            study.acknowledge(record_of(order(study, seed=seed)))
        folder = study.trial_folder(deleted)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with Study.open(tmp_path / "mine") as study:
        assert [r.spec.number for r in study.records] == [n for n in range(3) if n != deleted]
        assert order(study, seed=deleted).number == 3


def test_a_trial_counts_from_its_result_on_and_survives(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        ordered = [order(study, seed=seed, stage=stage) for seed, stage in enumerate((Stage.RACE, Stage.CONFIRM) * 2)]
        assert study.records == ()
        kept = [record_of(ordered[n]) for n in (2, 0)]
        kept.append(
            record_of(ordered[1], Infeasible(kind=InfeasibleKind.OUT_OF_MEMORY, message="Größe\n\x1b[31m\udcff"))
        )
        for record in kept:
            study.acknowledge(record)
        kept.sort(key=lambda r: r.spec.number)
        assert study.records == tuple(kept)
    readable = Infeasible(kind=InfeasibleKind.OUT_OF_MEMORY, message="Größe\n\x1b[31m?")
    kept[1] = replace(kept[1], outcome=readable)  # half a character is no text that could be read back
    with Study.open(tmp_path / "mine") as study:
        assert study.records == tuple(kept)
        assert study.of_stage(Stage.CONFIRM) == (kept[1],)
        assert [study.result_of(spec) for spec in ordered] == [*kept, None]
    assert read_records(tmp_path / "mine") == tuple(kept)


def test_reading_the_records_needs_no_lock_and_leaves_nothing(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.acknowledge(record_of(order(study)))
        before = sorted(tmp_path.rglob("*"))
        assert len(read_records(study.folder)) == 1
        assert sorted(tmp_path.rglob("*")) == before


# -- a study without a trial -------------------------------------------------------------------------


def test_a_study_without_a_trial_makes_way_for_another(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.mark(Stage.CALIBRATE, StageMark(started_seconds=0.0, deadline_seconds=9.0))
        order(study)
        study.note_elapsed(99.0)
        study.log(event(0))
    with make(tmp_path, replace(INFO, corpus="/other")) as study:
        assert study.info.corpus == "/other"
        assert study.elapsed_seconds == 0.0
        assert study.stage(Stage.CALIBRATE) is None
        assert study.ordered(Stage.RACE) == ()
        assert study.mended == ()


def test_a_study_that_cannot_be_made_leaves_the_files_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")

    def refuse(*_: object) -> None:
        raise EnvironmentProblem("no")

    monkeypatch.setattr(store, "write_info", refuse)
    with pytest.raises(EnvironmentProblem):
        make(tmp_path)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(EnvironmentProblem):
        make(tmp_path, name="new")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# -- reading -----------------------------------------------------------------------------------------


def test_every_torn_result_is_seen(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.acknowledge(record_of(order(study)))
        path = study.trial_folder(0) / "result.json"
    text = path.read_bytes().rstrip()
    for end in range(0, len(text), 17):
        path.write_bytes(text[:end])
        with pytest.raises(StoreDamaged, match=r"0000/result\.json"):
            read_records(tmp_path / "mine")


def test_a_result_with_a_field_of_another_kind_is_foreign(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.acknowledge(record_of(order(study)))
        path = study.trial_folder(0) / "result.json"
    plain = json.loads(path.read_text())
    study_id = plain.pop("study")
    del plain["sha256"]
    for field, value in (("interleaved", 1), ("outcome", {"won": {}}), ("slices", None), ("costs", {})):
        path.write_text(sealed(plain | {field: value}, study_id))
        with pytest.raises(StoreDamaged, match=rf"0000/result\.json is not \(TrialRecord\.{field}"):
            read_records(tmp_path / "mine")


def test_a_study_of_another_format_can_be_read_and_not_resumed(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.acknowledge(record_of(order(study)))
    path = tmp_path / "mine" / "study.json"
    plain = json.loads(path.read_text())
    path.write_text(sealed({name: plain[name] for name in plain if name != "sha256"} | {"format": 2}, plain["id"]))
    with pytest.raises(BadInput, match=rf"resumes studies of format {FORMAT}; got format 2 in 'mine'.*report"):
        Study.open(tmp_path / "mine")
    assert len(read_records(tmp_path / "mine")) == 1


def test_a_study_from_before_the_door_is_read_as_it_is() -> None:
    """Three trials of each stage of a search by version 0.1."""
    records = read_records(Path(__file__).parent / "old_studies" / "before_the_door")
    assert len(records) == 18
    assert records[0].spec.config["dtype"] == "fp32"
    assert {r.spec.stage for r in records} == set(Stage)


def test_a_lost_space_is_told(tmp_path: Path) -> None:
    make(tmp_path).close()
    (tmp_path / "mine" / "space.toml").unlink()
    with pytest.raises(
        StoreDamaged, match=r"a study needs its space file; .*space\.toml cannot be read \(it is missing\): restore it"
    ):
        Study.open(tmp_path / "mine")


def test_an_edited_space_is_another_question_and_an_edited_plan_is_not(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        asked = study.space.identity()
        path = study.folder / "space.toml"
    for same in ("# a remark\n" + SPACE, SPACE.replace("tokens = 400_000", "tokens = 500_000\nruns = 3")):
        path.write_text(same)
        with Study.open(tmp_path / "mine") as study:
            assert study.space.identity() == asked
    for other, key in (
        (SPACE.replace("[2, 4, 8]", "[2, 8]"), "knobs.micro_batch"),
        (SPACE.replace("layers = 2", "layers = 3"), "workload.layers"),
        (SPACE.replace("global_batch = 16", "global_batch = 32"), "baseline.global_batch"),
    ):
        path.write_text(other)
        with Study.open(tmp_path / "mine") as study:
            (different,) = differences(asked, study.space.identity())
            assert different.startswith(f"{key} was ")
    path.write_text(SPACE.replace("[2, 4, 8]", "[2, 4]"))
    with pytest.raises(BadInput, match=r"space\.toml:\d+: \[knobs\] the domain of micro_batch must contain"):
        Study.open(tmp_path / "mine")


def test_a_study_that_was_moved_and_renamed_is_the_same(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        study.acknowledge(record_of(order(study)))
        before = study.info, study.space, study.records
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine").rename(tmp_path / "elsewhere" / "renamed")
    with Study.open(tmp_path / "elsewhere" / "renamed") as study:
        assert (study.info, study.space, study.records) == before
        assert study.name == "renamed"


def test_differences_name_the_key_and_both_values_whole() -> None:
    long = "x" * 200
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == ()
    assert differences({"a": "1", "b": long}, {"b": "2", "c": "3"}) == (
        "a was 1, is not there",
        f"b was {long}, is 2",
        "c was not there, is 3",
    )


# -- the decision log --------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"", b'{"kind": "trial_st', b'{"kind": "x"}', b"\xff\xfe\x00"])
def test_a_torn_last_line_of_the_log_is_cut_and_what_follows_is_whole(tmp_path: Path, torn: bytes) -> None:
    with make(tmp_path) as study:
        study.log(event(0))
        path = study.folder / "events.jsonl"
        assert len(path.read_bytes().splitlines()) == 1, "an event is on its way to the disk at once"
        study.log(event(1))
        for seed in range(2):
            order(study, seed=seed)
    with path.open("ab") as file:
        file.write(torn)
    with Study.open(tmp_path / "mine") as study:
        study.log(event(2))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["what"]["trial_started"]["number"] for line in lines] == [0, 1, 2]
    assert lines[2] == {
        "elapsed_seconds": 1.5,
        "what": {"trial_started": {"stage": "race", "number": 2, "label": "ä\n", "changes": {"dtype": "fp32"}}},
    }


def test_a_log_that_is_one_torn_line_starts_anew(tmp_path: Path) -> None:
    make(tmp_path).close()
    path = tmp_path / "mine" / "events.jsonl"
    path.write_bytes(b'{"kind":')
    with Study.open(tmp_path / "mine") as study:
        study.log(event(0))
    assert json.loads(path.read_text())["what"]["trial_started"]["number"] == 0


# -- the budget --------------------------------------------------------------------------------------


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def test_each_stage_has_its_share_of_the_whole(tmp_path: Path) -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)
    assert list(SHARES) == list(Stage)
    clock = Clock(1_000.0)
    with make(tmp_path) as study:
        budget = Budget(study, clock)
        for stage in Stage:
            assert budget.left_seconds(stage) == 0.0
            mark = budget.begin(stage)
            assert mark.deadline_seconds - mark.started_seconds == pytest.approx(100.0 * SHARES[stage])
            clock.seconds += 100.0 * SHARES[stage]
            assert budget.left_seconds(stage) == pytest.approx(0.0, abs=1e-6)
            budget.finish(stage, StageEnd.BUDGET)
        assert budget.remaining_seconds == pytest.approx(0.0, abs=1e-6)
        clock.seconds += 50.0
        assert budget.remaining_seconds == 0.0
        assert budget.left_seconds(Stage.ATTRIBUTE) == 0.0
        assert study.seconds_by_stage == pytest.approx({stage.value: 100.0 * SHARES[stage] for stage in Stage})


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(min_value=0.0, max_value=1.15), min_size=len(Stage), max_size=len(Stage)))
def test_what_a_stage_leaves_flows_on_and_what_it_overspends_is_paid_by_the_later_ones(spent: list[float]) -> None:
    clock = Clock(0.0)
    with tempfile.TemporaryDirectory() as root, make(Path(root)) as study:
        budget = Budget(study, clock)
        for stage, share in zip(Stage, spent, strict=True):
            remaining = budget.remaining_seconds
            mark = budget.begin(stage)
            allotted = mark.deadline_seconds - mark.started_seconds
            later = sum(SHARES[s] for s in list(Stage)[list(Stage).index(stage) :])
            assert allotted == pytest.approx(remaining * SHARES[stage] / later)
            assert mark.deadline_seconds <= 100.0 + 1e-6
            clock.seconds += share * allotted
            budget.finish(stage, StageEnd.DONE)
        assert mark.deadline_seconds == pytest.approx(100.0), "the last stage may use all that is left"


def test_resuming_buys_no_time(tmp_path: Path) -> None:
    clock = Clock(70_000.0)
    with make(tmp_path) as study:
        budget = Budget(study, clock)
        first = budget.begin(Stage.CALIBRATE)
        clock.seconds += 10.0
        allotted = 100.0 * SHARES[Stage.CALIBRATE]
        assert budget.left_seconds(Stage.CALIBRATE) == pytest.approx(allotted - 10.0)  # and no note: this is a crash
    clock = Clock(3.0)  # another process, another origin
    with Study.open(tmp_path / "mine") as study:
        budget = Budget(study, clock)
        assert budget.elapsed_seconds == pytest.approx(10.0)
        assert budget.begin(Stage.CALIBRATE) == first
        clock.seconds += 2.0
        assert budget.left_seconds(Stage.CALIBRATE) == pytest.approx(allotted - 12.0)
        assert budget.remaining_seconds == pytest.approx(88.0)
        budget.finish(Stage.CALIBRATE, StageEnd.DONE)
    with Study.open(tmp_path / "mine") as study:
        budget = Budget(study, Clock(0.0))
        assert budget.is_finished(Stage.CALIBRATE)
        assert not budget.is_finished(Stage.RACE)
        mark = study.stage(Stage.CALIBRATE)
        assert mark == replace(first, finished_seconds=mark.finished_seconds, reason=StageEnd.DONE)
        assert mark.finished_seconds == pytest.approx(12.0)


def test_what_came_before_the_study_was_opened_counts_too(tmp_path: Path) -> None:
    clock = Clock(50.0)
    with make(tmp_path) as study:
        study.note_elapsed(10.0)
        budget = Budget(study, clock, started=45.0)
        assert budget.elapsed_seconds == pytest.approx(15.0)
        clock.seconds += 1.0
        assert budget.remaining_seconds == pytest.approx(84.0)


def test_reading_a_finished_study_costs_it_nothing(tmp_path: Path) -> None:
    clock = Clock(0.0)
    with make(tmp_path) as study:
        budget = Budget(study, clock)
        for stage in Stage:
            clock.seconds += 2.0
            budget.finish(stage, StageEnd.DONE)
    clock = Clock(0.0)
    with Study.open(tmp_path / "mine") as study:
        budget = Budget(study, clock)
        clock.seconds += 30.0
        budget.note()
    with Study.open(tmp_path / "mine") as study:
        assert study.elapsed_seconds == pytest.approx(12.0)


def test_less_than_two_seconds_are_lost_with_a_killed_driver(tmp_path: Path) -> None:
    clock = Clock(0.0)
    with make(tmp_path) as study:
        budget = Budget(study, clock)
        for _ in range(40):
            clock.seconds += 0.3
            assert budget.elapsed_seconds == pytest.approx(clock.seconds)
    with Study.open(tmp_path / "mine") as study:
        assert 10.0 < Budget(study, Clock(0.0)).elapsed_seconds <= 12.0


def test_a_corpus_edited_in_the_study_s_own_space_is_seen(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        assert study.space.workload.corpus == "/data/text", "--data stands for the space's own corpus"
    path = tmp_path / "mine" / "space.toml"
    path.write_text(path.read_text().replace("[workload]", '[workload]\ncorpus = "/elsewhere"', 1))
    with Study.open(tmp_path / "mine") as study:
        assert study.space.workload.corpus == "/elsewhere"
