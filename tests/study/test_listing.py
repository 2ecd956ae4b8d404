"""The listing of studies, which reads a few plain fields and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from scripted_study import ScriptedStudy

from autotune.study.listing import StudySummary, studies


def make(root: Path, name: str) -> Path:
    """As much of a study as the listing reads."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({"created_at": "2026-02-03T04:05:06+00:00", "space_name": "tiny"}))
    return folder


def test_a_study_as_the_search_keeps_it_is_listed(tmp_path: Path) -> None:
    scripted = ScriptedStudy(folder=tmp_path / "mine")
    scripted.open().close()
    (summary,) = studies(tmp_path)
    assert (summary.name, summary.state) == ("mine", "unfinished")
    assert summary.created_at
    assert summary.space


def test_studies_are_listed_by_name_with_their_state(tmp_path: Path) -> None:
    make(tmp_path, "b")
    (make(tmp_path, "a") / "report.json").write_text('{"verdict": "adopt", "more": []}')
    (tmp_path / "no-study").mkdir()
    listed = studies(tmp_path)
    assert [(study.name, study.state) for study in listed] == [("a", "adopt"), ("b", "unfinished")]
    assert listed[1] == StudySummary(name="b", state="unfinished", created_at="2026-02-03T04:05:06+00:00", space="tiny")


@pytest.mark.parametrize("file", ["study.json", "report.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b'{"verd', b"\xff", b"{}", b'{"verdict": 1}', b"[" * 100_000])
def test_a_damaged_study_hides_no_other(tmp_path: Path, file: str, content: bytes) -> None:
    (make(tmp_path, "broken") / file).write_bytes(content)
    make(tmp_path, "whole")
    assert all(study.reason for study in studies(tmp_path) if study.state == "damaged")
    assert [(study.name, study.state) for study in studies(tmp_path)] == [
        ("broken", "damaged"),
        ("whole", "unfinished"),
    ]


@pytest.mark.parametrize("name", ["study.json", "report.json"])
def test_a_pipe_or_a_link_is_not_waited_for_and_not_followed(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path, "piped")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    folder = make(tmp_path, "tied")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(make(tmp_path, "whole") / "study.json")
    (tmp_path / "untied").symlink_to(tmp_path / "whole")
    found = {study.name: (study.state, study.reason) for study in studies(tmp_path)}
    assert found["piped"] == found["tied"] == ("damaged", "it is no regular file")
    assert found["untied"][0] == "damaged"
    assert found["whole"] == ("unfinished", "")


def test_without_studies_there_is_nothing_to_list_and_nothing_is_made(tmp_path: Path) -> None:
    assert studies(tmp_path / "root") == []
    assert not (tmp_path / "root").exists()
