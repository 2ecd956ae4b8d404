"""What is damaged is mended and said, or named with its remedy; nothing is silently another answer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_study import FINISHED, MACHINE, acknowledge, make, order, record_of, said, whole

from autotune.errors import ExitCode, StoreDamaged
from autotune.study.reading import read_records
from autotune.study.store import Study
from autotune.trial.types import Stage

DAMAGE = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'"text"', b"null", b"[1]", b"NaN", b"true", b"-1", b"0x5", b"{}"]
DERIVED = ("stages.json", "elapsed.json", "next_trial.json", "machine.json")


def test_an_untouched_study_needs_no_mending(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with Study.open(folder) as study:
        assert study.mended == ()
        assert study.elapsed_seconds == 5.0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", DAMAGE, ids=repr)
def test_a_study_whose_description_is_damaged_is_named_with_its_remedy_and_is_free(
    tmp_path: Path, damage: bytes
) -> None:
    path = whole(tmp_path) / "study.json"
    before = path.read_bytes()
    path.write_bytes(damage)
    with pytest.raises(StoreDamaged) as refused:
        Study.open(path.parent)
    message = str(refused.value)
    assert message.startswith(f"a study's files must be valid; {path} is not (")
    assert message.endswith("restore it from a copy, or start a new study")
    assert "\n" not in message
    assert refused.value.exit_code == ExitCode.STORE_DAMAGED
    path.write_bytes(before)
    Study.open(path.parent).close()  # while the error, and with it the failed attempt, is alive


@pytest.mark.parametrize("name", DERIVED)
def test_a_damaged_file_that_follows_from_others_is_made_anew_and_that_is_said_once(tmp_path: Path, name: str) -> None:
    folder = whole(tmp_path)
    before = (folder / name).read_bytes()
    changed = re.sub(rb"[1-9]", lambda digit: b"%d" % (int(digit[0]) % 9 + 1), before, count=1)
    for damage in (*DAMAGE, before[: len(before) // 2], changed, before.replace(b'"study": "', b'"study": "0')):
        (folder / name).write_bytes(damage)
        with Study.open(folder) as study:
            assert len(said(study)) == 1
            assert said(study)[0].startswith(f"{name} was damaged (")
            assert len(study.records) == 1
            assert (study.machine is None) == (name == "machine.json")
            assert study.stage(Stage.RACE) == FINISHED
            assert study.elapsed_seconds == 5.0
            assert order(study, seed=99 + len(study.ordered(Stage.RACE))).number >= 1
            study.keep_machine(MACHINE)
            study.note_elapsed(5.0)
        with Study.open(folder) as study:
            assert said(study) == []


def test_a_study_without_its_decision_log_begins_another_one(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    (folder / "events.jsonl").unlink()
    with Study.open(folder) as study:
        assert said(study) == ["events.jsonl was missing: the decision log begins anew"]
        assert study.stage(Stage.RACE) == FINISHED
    with Study.open(folder) as study:
        assert said(study) == []


def test_a_damaged_line_of_the_decision_log_is_kept_aside(tmp_path: Path) -> None:
    path = whole(tmp_path) / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\xff\x00 {\n", *lines[1:]]))
    with Study.open(path.parent) as study:
        assert len(said(study)) == 1
        assert said(study)[0].startswith(
            "1 lines of events.jsonl were damaged: the whole is set aside as events.jsonl."
        )
    assert path.read_bytes().splitlines(keepends=True)[:-1] == lines
    with Study.open(path.parent) as study:
        assert said(study) == []


def test_a_damaged_result_is_set_aside_and_its_stage_goes_on(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    path = folder / "trials" / "0000" / "result.json"
    path.write_bytes(path.read_bytes().replace(b"4.9", b"4.8", 1))
    with Study.open(folder) as study:
        assert len(said(study)) == 1
        assert said(study)[0].startswith(
            "the result of trial 0 was damaged (it has changed since it was written: its checksum differs): set aside"
        )
        assert study.records == ()
        mark = study.stage(Stage.RACE)
        assert mark is not None
        assert not mark.finished
        assert mark.earlier_seconds == 4.0
        again = order(study)
        assert again.number == 0, "the same trial"
        study.acknowledge(record_of(again))
        assert len(list(path.parent.glob("result.json.damaged-*"))) == 1
    with Study.open(folder) as study:
        assert said(study) == []
        assert len(study.records) == 1


@pytest.mark.parametrize("lost", ["result.json", ""])
def test_an_acknowledged_trial_that_is_gone_is_said_once_and_its_stage_goes_on(tmp_path: Path, lost: str) -> None:
    folder = whole(tmp_path)
    trial = folder / "trials" / "0000"
    if lost:
        (trial / lost).unlink()
    else:
        shutil.rmtree(trial)
    with Study.open(folder) as study:
        assert said(study) == ["the result of trial 0 was missing: it runs again"]
        mark = study.stage(Stage.RACE)
        assert mark is not None
        assert not mark.finished
    with Study.open(folder) as study:
        assert said(study) == []


@pytest.mark.parametrize("damage", [None, *DAMAGE[:4]])
def test_a_spec_that_has_its_result_is_written_anew(tmp_path: Path, damage: bytes | None) -> None:
    folder = whole(tmp_path)
    path = folder / "trials" / "0000" / "spec.json"
    before = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with Study.open(folder) as study:
        assert said(study) == ["spec.json of trial 0 was lost: written anew from its result"]
        assert order(study).number == 0
    assert path.read_bytes() == before


def test_a_spec_without_a_result_is_ordered_anew_under_another_number(tmp_path: Path) -> None:
    with make(tmp_path) as study:
        order(study)
    (tmp_path / "mine" / "trials" / "0000" / "spec.json").write_bytes(b"{")
    with Study.open(tmp_path / "mine") as study:
        assert said(study)[0].startswith("spec.json of trial 0 was damaged (it is no JSON")
        assert order(study).number == 1


def test_the_files_of_another_study_are_not_taken_for_its_own(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    with make(tmp_path, name="other") as other:
        acknowledge(other)
        other.mark(Stage.CONFIRM, FINISHED)
    for name in ("stages.json", "trials/0000/result.json"):
        shutil.copy(other.folder / name, folder / name)
        with Study.open(folder) as study:
            assert any("it belongs to another study" in sentence for sentence in said(study))
            assert study.stage(Stage.CONFIRM) is None


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result in a study."""
    with make(tmp_path_factory.mktemp("flipped")) as study:
        study.acknowledge(record_of(order(study)))
        return study.trial_folder(0) / "result.json"


@settings(max_examples=200, deadline=None)
@given(where=st.floats(0.0, 1.0, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_result_goes_unnoticed(result: Path, where: float, bit: int) -> None:
    study, before = result.parents[2], result.read_bytes()
    records = read_records(study)
    at = int(where * len(before))
    result.write_bytes(before[:at] + bytes([before[at] ^ 1 << bit]) + before[at + 1 :])
    try:
        found = read_records(study)
    except StoreDamaged:
        return
    finally:
        result.write_bytes(before)
    assert found == records, "a blank may be another blank"


def test_a_study_of_before_the_seals_is_read_and_goes_on(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    for path in folder.rglob("*.json"):
        plain = json.loads(path.read_bytes())
        for key in ("sha256", "study", "id", "space_sha256", "corpus_beside"):
            plain.pop(key, None)
        bare = {"elapsed.json": "elapsed_seconds", "next_trial.json": "next_trial"}.get(path.name)
        path.write_text(json.dumps(plain[bare] if bare else plain))
    (folder / "report_sums.json").unlink()
    with Study.open(folder) as study:
        assert said(study) == []
        assert len(study.records) == 1
        assert study.elapsed_seconds == 5.0
        acknowledge(study, seed=1)
    with Study.open(folder) as study:
        assert said(study) == []
        assert [r.spec.number for r in study.records] == [0, 1]
