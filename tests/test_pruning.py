"""What a machine cannot run leaves the space before anything is measured, with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_study import ScriptedStudy
from small_space import SPACE as SMALL

from autotune import api
from autotune.analysis.caveat import ValuePruned
from autotune.analysis.recommendation import TechniqueVerdict
from autotune.cli import main
from autotune.errors import BadInput
from autotune.simulation.example import ExampleWorld
from autotune.simulation.executor import MACHINE, ScriptedExecutor, SimulatedClock
from autotune.space.knobs import Choice
from autotune.space.limits import Pruned
from autotune.space.shipped import shipped_spaces
from autotune.study.store import FORMAT, Study, StudyInfo
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine
from autotune.workload.space import load_space

SPACE = load_space(shipped_spaces()["techniques"])
LIMITS = {
    "attention": {"cudnn": "no viable backend", "math": "never pruned: it is the baseline's"},
    "pinned_memory": {"True": "there is no GPU"},
    "threads": {"2": "there is 1 logical core"},
}


def test_values_go_and_the_baseline_stays() -> None:
    space, pruned = SPACE.pruned(LIMITS)
    domains = {d.knob.name: d.domain for d in space.dimensions}
    assert domains["attention"] == Choice(values=("math", "sdpa", "flash", "efficient", "flex"))
    assert domains["threads"] == Choice(values=(0, 1))
    assert "pinned_memory" not in domains, "nothing is left to try"
    assert set(pruned) == {
        Pruned(knob="attention", value="cudnn", reason="no viable backend"),
        Pruned(knob="pinned_memory", value="True", reason="there is no GPU"),
        Pruned(knob="threads", value="2", reason="there is 1 logical core"),
    }
    assert SPACE.pruned({}) == (SPACE, ())


class _Examined(Exception):
    """The executor was asked to examine the machine; nothing more is to happen."""


class _Examiner(ScriptedExecutor):
    """Notes what it is told to try, and ends the search there."""

    def __init__(self) -> None:
        super().__init__(ExampleWorld(), SimulatedClock())
        self.attempts: list[Sequence[str]] = []

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
        attempts = order.payload["attempts"]
        assert isinstance(attempts, list)
        self.attempts.append(attempts)
        raise _Examined


@pytest.mark.parametrize(("is_kept", "attempts"), [(False, ["compile", "flex"]), (True, [])])
def test_what_a_study_keeps_is_not_tried_again(tmp_path: Path, is_kept: bool, attempts: list[str]) -> None:
    text = SMALL.replace('attention = ["math", "sdpa"]', 'attention = ["math", "flex"]\ncompile = ["off", "default"]')
    (tmp_path / "small.toml").write_text(text)
    identity = load_space(tmp_path / "small.toml").identity()
    info = StudyInfo(
        format=FORMAT,
        created_at="2026-01-01T00:00:00+00:00",
        space_name="small",
        corpus="stdlib",
        corpus_as_written="",
        budget_seconds=60.0,
        identity=identity,
    )
    with Study.create(tmp_path / "study", info, text) as study:
        if is_kept:
            study.keep_machine(MACHINE)
    executor = _Examiner()
    with pytest.raises(_Examined):
        api.resume("study", root=tmp_path, executor=executor)
    assert executor.attempts == [attempts]


def test_a_new_study_tries_what_it_may_need_and_a_preview_does_not(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace('attention = ["math", "sdpa"]', 'attention = ["math", "flex"]'))
    executor = _Examiner()
    for ask in (api.search, api.dry_run):
        with pytest.raises(_Examined):
            ask(path, root=tmp_path / "root", executor=executor)
    assert executor.attempts == [["flex"], []]
    assert not (tmp_path / "root").exists(), "nothing is left behind"


def test_a_study_tells_what_it_did_not_try_and_keeps_it(tmp_path: Path) -> None:
    limits = {"attention": {"sdpa": "no such kernel"}, "dtype": {"fp16_autocast": "emulated here"}}
    study = ScriptedStudy(tmp_path / "study", machine=replace(MACHINE, limits=limits), budget_seconds=900.0)
    result = study.sit()
    assert {c for c in result.caveats if isinstance(c, ValuePruned)} == {
        ValuePruned(knobs="attention = sdpa", reason="no such kernel"),
        ValuePruned(knobs="dtype = fp16_autocast", reason="emulated here"),
    }
    (row,) = (t for t in result.techniques if t.name == "attention")
    assert row.verdict is TechniqueVerdict.NOT_MEASURED
    assert row.reason == "not measurable here: sdpa: no such kernel"
    tried = {json.loads(p.read_text())["config"]["attention"] for p in study.folder.glob("trials/*/spec.json")}
    assert tried == {"math"}
    study.machine = MACHINE  # another sitting, in which everything seems to work
    assert study.sit() == result


ONE_EACH = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 64
horizon_tokens = 8_000

[plan]
tokens = 50_000_000

[baseline]
micro_batch = 4
global_batch = 8

[knobs]
"""


@pytest.mark.parametrize(
    ("knobs", "limits", "problem"),
    [
        ('attention = ["math"]', {}, "got one for each of attention: add values"),
        ('attention = ["math"]\nmicro_batch = [4, 3]', {}, "got one for each of micro_batch, attention: add"),
        ("micro_batch = { low = 3, high = 4 }", {}, "got one for each of micro_batch: add values"),
        ('attention = ["math", "sdpa"]', {"attention": {"sdpa": "no kernel"}}, "attention = sdpa is not tried here"),
    ],
)
def test_where_nothing_can_be_chosen_a_search_says_so_before_it_begins(
    tmp_path: Path, knobs: str, limits: Mapping[str, Mapping[str, str]], problem: str
) -> None:
    path = tmp_path / "one.toml"
    path.write_text(ONE_EACH + knobs)
    executor = ScriptedExecutor(ExampleWorld(), SimulatedClock(), machine=replace(MACHINE, limits=limits))
    for ask in (api.search, api.dry_run):
        with pytest.raises(BadInput, match=problem):
            ask(path, root=tmp_path / "root", executor=executor)
    assert not (tmp_path / "root").exists(), "nothing is left behind"


def test_a_knob_with_one_value_is_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(ONE_EACH + 'attention = ["math", "sdpa"]\nschedule = ["cosine"]')
    space, gone = load_space(path).pruned({})
    assert [d.knob.name for d in space.dimensions] == ["attention"]
    assert gone == ()


def _examined_as(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every executor that is opened by name find this machine."""
    executor = ScriptedExecutor(ExampleWorld(), SimulatedClock(), machine=machine)
    monkeypatch.setattr(api, "open_executor", lambda name: executor)


def test_the_doctor_prints_the_machine_and_what_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _examined_as(replace(MACHINE, limits=LIMITS), monkeypatch)
    assert main(["--root", str(tmp_path), "doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["storage"] == ""
    assert found["machine"]["available_bytes"] == MACHINE.available_bytes
    assert {"knob": "pinned_memory", "value": "True", "reason": "there is no GPU"} in found["pruned"]
    assert main(["--root", str(tmp_path), "doctor"]) == 0
    text = capsys.readouterr().out
    assert "attention = cudnn" in text
    assert "writable" in text
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_folder_that_cannot_be_written_is_a_problem_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    _examined_as(MACHINE, monkeypatch)
    monkeypatch.setattr(api.tempfile, "TemporaryFile", full)
    assert main(["--root", str(tmp_path), "doctor"]) == 6
