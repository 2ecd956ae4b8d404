"""Going on with a study: what may change, what may not, and what the refusal says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_machine import MACHINE, TINY, SimulatedMachine, stop_after_a_trial
from small_space import SPACE

import autotune
from autotune import api
from autotune.analysis.caveat import BusyMachine
from autotune.analysis.recommendation import Verdict
from autotune.errors import BadInput, NothingFeasible
from autotune.executors.load import Load
from autotune.study import identity
from autotune.study.events import Event, MachineBusy, SittingStarted, TextRead
from autotune.study.reading import read_records
from autotune.study.store import Study

OLD_STUDIES = Path(__file__).parent / "old_studies"


def test_a_finished_study_is_read_without_looking_at_the_machine(
    search: Callable[..., api.Finished], tmp_path: Path
) -> None:
    first = search()
    assert first.recommendation.verdict is Verdict.KEEP
    elsewhere = SimulatedMachine(replace(MACHINE, environment={"device": "cpu", "device_name": "another"}))
    again = search(elsewhere)
    assert elsewhere.examined == 0
    assert again.recommendation == first.recommendation
    assert autotune.resume("mine", root=tmp_path / "root", executor=elsewhere).recommendation == first.recommendation


def test_edited_prices_and_runs_price_the_stored_trials_anew(
    search: Callable[..., api.Finished], space_file: Path, tmp_path: Path
) -> None:
    first = search()
    trials = read_records(first.folder)
    space_file.write_text(TINY.replace("tokens = 1_000", "tokens = 1_000\nruns = 2\ndevice_hour_usd = 3.0"))
    second = search()
    assert second.recommendation.plan.runs == 2
    assert second.recommendation.plan.currency == "USD"
    assert read_records(first.folder) == trials
    assert "device_hour_usd = 3.0" in (first.folder / "space.toml").read_text(), "the study keeps the resolved text"
    again = autotune.resume("mine", root=tmp_path / "root", executor=SimulatedMachine())
    assert again.recommendation == second.recommendation


def test_a_sitting_tells_whether_it_was_resumed(search: Callable[..., api.Finished]) -> None:
    events: list[Event] = []
    search(listeners=[events.append])
    search(listeners=[events.append])
    first, again = (e.what for e in events if isinstance(e.what, SittingStarted))
    assert (first.study, first.resumed, first.spent_seconds) == ("mine", False, 0.0)
    assert again.resumed


def test_every_sitting_begins_with_the_text(search: Callable[..., api.Finished]) -> None:
    events: list[Event] = []
    search(listeners=[events.append])
    assert events[1].what == TextRead(corpus=MACHINE.corpus, horizon_tokens=40_000)


def test_a_longer_plan_goes_on(search: Callable[..., api.Finished], space_file: Path) -> None:
    first = search()
    before = read_records(first.folder)
    space_file.write_text(SPACE.replace("tokens = 400_000", "tokens = 40_000_000"))
    machine = SimulatedMachine()
    second = search(machine)
    assert machine.examined == 1
    assert read_records(first.folder)[: len(before)] == before
    assert len(second.recommendation.trials) > len(before)


@pytest.mark.parametrize(("others_share", "is_told"), [(0.6, True), (0.1, False)])
def test_a_busy_machine_is_warned_of_and_named_in_the_verdict(
    search: Callable[..., api.Finished], others_share: float, is_told: bool
) -> None:
    events: list[Event] = []
    load = Load(seconds=1.0, cores=2, others_share=others_share, own_share=0.2)
    finished = search(SimulatedMachine(load=load), listeners=(events.append,))
    assert (MachineBusy(others_share=others_share) in [e.what for e in events]) is is_told
    assert (BusyMachine(others_share=others_share) in finished.recommendation.caveats) is is_told
    assert {r.others_share for r in read_records(finished.folder)} == {others_share}
    assert ("60 % of this machine" in " ".join(api.view_of(finished).why)) is is_told
    again = search(SimulatedMachine(load=load))
    assert again.recommendation == finished.recommendation


def test_a_budget_may_be_raised_and_is_kept_until_the_file_says_otherwise(
    search: Callable[..., api.Finished], space_file: Path, tmp_path: Path
) -> None:
    def budget() -> float:
        with Study.open(tmp_path / "root" / "mine") as study:
            return study.info.budget_seconds

    search(budget_seconds=90.0)
    assert budget() == 90.0
    search()
    assert budget() == 90.0, "the file says what it said before"
    autotune.resume("mine", root=tmp_path / "root", budget_seconds=1_200.0, executor=SimulatedMachine())
    assert budget() == 1_200.0
    space_file.write_text(TINY + '\n[search]\nbudget = "20m"\n')
    search()
    assert budget() == 1_200.0
    space_file.write_text(TINY + '\n[search]\nbudget = "25m"\n')
    search()
    assert budget() == 1_500.0


@pytest.mark.parametrize(
    ("old", "new", "key", "before", "after"),
    [
        ("layers = 2", "layers = 3", "workload.layers", "2", "3"),
        ("global_batch = 16", "global_batch = 32", "baseline.global_batch", "16", "32"),
        ("[2, 4, 8]", "[4, 8]", "knobs.micro_batch", "[2, 4, 8]", "[4, 8]"),
        ("horizon_tokens = 40_000", "horizon_tokens = 50_000", "workload.horizon_tokens", "40000", "50000"),
    ],
)
def test_what_forbids_going_on_is_named_by_key_with_both_values(
    search: Callable[..., api.Finished], space_file: Path, old: str, new: str, key: str, before: str, after: str
) -> None:
    search()
    space_file.write_text(TINY.replace(old, new))
    with pytest.raises(BadInput, match="resume mine --fork NEW") as refused:
        search()
    message = str(refused.value)
    assert "\n" not in message
    said = message.split(f"{key} was ")[1]
    assert before in said.split(", is ")[0]
    assert after in said.split(", is ")[1]


def test_an_unfinished_study_goes_on_only_with_the_same_text_and_hardware(
    search: Callable[..., api.Finished], space_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(autotune.errors.Interrupted, match="autotune resume mine"):
        search(listeners=[stop_after_a_trial])
    text = replace(MACHINE, corpus=replace(MACHINE.corpus, content_sha256="1" * 64))
    with pytest.raises(BadInput, match=r"text was 0{64}, is 1{64}"):
        search(SimulatedMachine(text))
    other = replace(MACHINE, environment=MACHINE.environment | {"device_name": "another"})
    with pytest.raises(BadInput, match=r"hardware\.device_name was simulated, is another"):
        autotune.resume("mine", root=tmp_path / "root", executor=SimulatedMachine(other))
    assert search().recommendation.trials


@pytest.mark.parametrize(
    ("edited", "goes_on"),
    [
        ("report/words.py", True),
        ("cli/app.py", True),
        ("analysis/roi.py", True),
        ("search/race.py", True),
        ("measure/run.py", False),
        ("executors/local.py", False),
        ("workload/gpt.py", False),
    ],
)
def test_only_code_that_measures_forbids_going_on(
    search: Callable[..., api.Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str, goes_on: bool
) -> None:
    with pytest.raises(autotune.errors.Interrupted):
        search(listeners=[stop_after_a_trial])
    changed = tmp_path / "autotune"
    shutil.copytree(autotune.__path__[0], changed, ignore=shutil.ignore_patterns("__pycache__"))
    with (changed / edited).open("a") as source:
        source.write("# edited\n")
    monkeypatch.setattr(identity, "DRIVER", changed)
    if goes_on:
        assert search().recommendation.trials
    else:
        with pytest.raises(BadInput, match=r"code was [0-9a-f]{64}, is [0-9a-f]{64}: .* --fork NEW"):
            search()


def test_a_fork_takes_the_edited_space_and_the_best_configurations(
    search: Callable[..., api.Finished], tmp_path: Path
) -> None:
    first = search()
    path = first.folder / "space.toml"
    path.write_text(path.read_text().replace("[2, 4, 8]", "[4, 8]"))
    root = tmp_path / "root"
    with pytest.raises(BadInput, match=r"knobs\.micro_batch"):
        autotune.resume("mine", root=root, executor=SimulatedMachine())
    forked = autotune.resume("mine", fork="next", budget_seconds=70.0, root=root, executor=SimulatedMachine())
    assert forked.study == "next"
    with Study.open(root / "next") as study:
        assert study.info.forked_from == "mine"
        assert study.info.budget_seconds == 70.0
        assert study.space.values["micro_batch"] == (4, 8)
    with pytest.raises(BadInput, match="a new study needs a new name; got 'next'"):
        autotune.resume("mine", fork="next", root=root, executor=SimulatedMachine())


def test_a_fork_takes_another_space_file(search: Callable[..., api.Finished], tmp_path: Path) -> None:
    search()
    other = tmp_path / "other.toml"
    other.write_text(TINY.replace("layers = 2", "layers = 3"))
    root = tmp_path / "root"
    with pytest.raises(BadInput, match="add --fork NEW"):
        autotune.resume("mine", space_path=other, root=root, executor=SimulatedMachine())
    autotune.resume("mine", fork="next", space_path=other, root=root, executor=SimulatedMachine())
    with Study.open(root / "next") as study:
        assert study.space.workload.identity()["layers"] == "3"


def test_a_study_moved_to_another_root_and_name_goes_on(search: Callable[..., api.Finished], tmp_path: Path) -> None:
    first = search()
    (tmp_path / "else").mkdir()
    first.folder.rename(tmp_path / "else" / "renamed")
    again = autotune.resume("renamed", root=tmp_path / "else", executor=SimulatedMachine())
    assert again.study == "renamed"
    assert again.recommendation == first.recommendation


def test_a_study_of_before_this_format_can_be_read(tmp_path: Path) -> None:
    trials = autotune.load_study("before_the_door", root=OLD_STUDIES)
    assert len(trials) == 18
    assert {"dtype", "micro_batch", "loss", "outcome"} <= set(trials.columns)
    (summary,) = autotune.studies(OLD_STUDIES)
    assert summary.state in {"adopt", "keep_baseline", "inconclusive"}
    shutil.copytree(OLD_STUDIES / "before_the_door", tmp_path / "reality")
    with pytest.raises(BadInput, match="of another version: it can be read") as refused:
        autotune.resume("reality", root=tmp_path, executor=SimulatedMachine())
    assert "\n" not in str(refused.value)


def test_a_dry_run_finds_what_a_search_would_find_and_keeps_nothing(space_file: Path, tmp_path: Path) -> None:
    machine = SimulatedMachine(replace(MACHINE, limits={"attention": {"sdpa": "no such kernel here"}}))
    root = tmp_path / "root"
    text = api.dry_run(space_file, root=root, executor=machine)
    assert "not tried here: attention = sdpa, no such kernel here" in text
    assert not root.exists()
    with pytest.raises(BadInput, match="a study's name is"):
        api.dry_run(space_file, study="two words", root=root, executor=machine)


def test_a_baseline_of_more_processes_than_devices_is_found_before_anything_is_kept(
    search: Callable[..., api.Finished], space_file: Path, tmp_path: Path
) -> None:
    space_file.write_text(TINY.replace("global_batch = 16", 'global_batch = 32\nparallelism = "ddp"\nworld_size = 4'))
    one = replace(MACHINE, environment={"device": "cuda", "device_name": "simulated", "devices": "1"})
    with pytest.raises(NothingFeasible, match="got 4 processes and 1 devices: change"):
        api.dry_run(space_file, root=tmp_path / "root", executor=SimulatedMachine(one))
    with pytest.raises(NothingFeasible, match="got 4 processes and 1 devices: change"):
        search(SimulatedMachine(one))
    assert not (tmp_path / "root").exists()
