"""A study from somebody else writes nothing outside its folder, and nothing at all before it is known to be one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from kept_study import FINISHED, MACHINE, event, order, record_of, said, whole

from autotune.errors import BadInput, StoreDamaged
from autotune.study.store import Study
from autotune.trial.types import Stage

WRITTEN = [
    *("study.json", "space.toml", "lock", "events.jsonl", "elapsed.json", "next_trial.json", "stages.json"),
    *("machine.json", "baseline_log.json", "reference.log", "report.json", "report.md", "report.html"),
    *("report_sums.json", "trials/0000/log.txt", "trials/0000/result.json", "trials/0000/spec.json"),
]


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("kind", ["link", "hard_link", "dangling", "pipe"])
def test_a_stranger_s_study_writes_nothing_outside_its_folder(tmp_path: Path, name: str, kind: str) -> None:
    folder, mine = whole(tmp_path / "root"), tmp_path / "mine.txt"
    mine.write_text("mine")
    path = folder / name
    path.unlink(missing_ok=True)
    if name.endswith("log.txt"):  # the log of a trial that runs
        path.with_name("result.json").unlink()
    match kind:
        case "link":
            path.symlink_to(mine)
        case "hard_link":
            path.hardlink_to(mine)
        case "dangling":
            path.symlink_to(tmp_path / "made")
        case "pipe":
            os.mkfifo(path)
    try:
        with Study.open(folder) as study:
            spec = order(study)
            study.acknowledge(record_of(spec))
            study.mark(Stage.RACE, FINISHED)
            study.note_elapsed(6.0)
            study.keep_machine(MACHINE)
            study.log(event(0))
            study.keep_report({"report.json": "{}", "report.md": "", "report.html": ""})
            for log in (study.trial_folder(spec.number) / "log.txt", folder / "reference.log"):
                with log.open("ab") as opened:  # as an executor does
                    opened.write(b"of a worker")
    except (StoreDamaged, BadInput):
        assert name in ("study.json", "space.toml")
    assert mine.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.txt", "root"]


@pytest.mark.parametrize("name", ["trials", "trials/0000"])
def test_a_stranger_s_folder_of_trials_leads_nowhere(tmp_path: Path, name: str) -> None:
    folder, mine = whole(tmp_path / "root"), tmp_path / "mine"
    shutil.copytree(folder / name, mine)
    before = sorted(mine.rglob("*"))
    shutil.rmtree(folder / name)
    (folder / name).symlink_to(mine)
    if name == "trials":
        with pytest.raises(StoreDamaged, match="is a link or no folder"):
            Study.open(folder)
    else:
        with Study.open(folder) as study:
            assert said(study)[0].startswith("trial 0 could not be used (it is a link or no folder): set aside")
            study.acknowledge(record_of(order(study)))
    assert sorted(mine.rglob("*")) == before


def test_what_is_no_study_is_left_as_it_is(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    (folder / "study.json").write_text("[1]")
    (folder / "lock").unlink()
    (folder / ".result.json.12.tmp").write_text("")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(StoreDamaged):
        Study.open(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_study_reached_through_a_link_is_refused(tmp_path: Path) -> None:
    folder = whole(tmp_path / "root")
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(StoreDamaged, match="is a link or no folder: move it here, or name its folder with --root"):
        Study.open(tmp_path / "linked")
