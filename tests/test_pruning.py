"""What a machine cannot run leaves the space before anything is measured, with its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from autotune_model.knobs import KNOBS, KnobValue
from rich.console import Console
from scripted_study import ScriptedStudy

from autotune import api, cli
from autotune.analysis.recommendation import CaveatKind, TechniqueVerdict
from autotune.cli.terminal import print_examination
from autotune.hardware.prepare import Machine
from autotune.simulation.study import MACHINE
from autotune.space.limits import Pruned, attempts_for, limits_of, prune
from autotune.space.load import load_space
from autotune.space.shipped import shipped_spaces
from autotune.space.space import Choice, Dimension, IntRange, SearchSpace

SPACE = load_space(shipped_spaces()["techniques"])
STRATEGIES = ("ddp", "fsdp", "tensor", "pipeline")
LIMITS = {
    "attention": {"cudnn": "no viable backend", "math": "never pruned: it is the baseline's"},
    "pinned_memory": {"True": "there is no GPU"},
    "threads": {"2": "there is 1 logical core"},
}


def test_values_go_and_the_baseline_stays() -> None:
    space, pruned = prune(SPACE, LIMITS)
    domains = {d.knob.name: d.domain for d in space.dimensions}
    assert domains["attention"] == Choice(values=("math", "sdpa", "flash", "efficient", "flex"))
    assert domains["threads"] == Choice(values=(0, 1))
    assert "pinned_memory" not in domains, "nothing is left to try"
    assert set(pruned) == {
        Pruned(knob="attention", value="cudnn", reason="no viable backend"),
        Pruned(knob="pinned_memory", value="True", reason="there is no GPU"),
        Pruned(knob="threads", value="2", reason="there is 1 logical core"),
    }
    assert prune(SPACE, {}) == (SPACE, ())


@pytest.mark.parametrize(("vocab_size", "expected"), [(2_000, {"128": "2048"}), (2_048, {"64": "2048", "128": "2048"})])
def test_padding_that_changes_nothing_and_threads_without_cores_are_of_no_use(
    vocab_size: int, expected: dict[str, str]
) -> None:
    found = limits_of(SPACE, {}, vocab_size=vocab_size, environment={"logical_cores": "1"})
    assert found["threads"] == {"2": "there are 1 logical cores to run on"}
    assert {v: reason.split()[3] for v, reason in found["vocab_multiple"].items()} == expected


@pytest.mark.parametrize(
    ("environment", "sizes"),
    [
        ({"device": "cpu", "logical_cores": "1"}, "there are 1 logical cores to run on"),
        ({"device": "cuda", "logical_cores": "64", "devices": "1"}, "there are 1 devices"),
        ({"device": "cpu", "logical_cores": "2"}, ""),
        ({}, ""),
    ],
)
def test_without_processes_there_is_nothing_to_share_out(environment: dict[str, str], sizes: str) -> None:
    found = limits_of(SPACE, {}, vocab_size=2_000, environment=environment)
    assert found.get("world_size", {}) == ({"2": sizes} if sizes else {})
    assert found.get("parallelism", {}) == (dict.fromkeys(STRATEGIES, sizes) if sizes else {})


def ranged(name: str, low: int, high: int, **baseline: KnobValue) -> SearchSpace:
    """A space with one dimension, a range of whole numbers."""
    dimension = Dimension(knob=KNOBS[name], domain=IntRange(low=low, high=high))
    return replace(SPACE, baseline=SPACE.baseline.with_knobs(baseline), dimensions=(dimension,))


@pytest.mark.parametrize(
    ("space", "kept", "gone"),
    [
        (ranged("threads", 0, 8), IntRange(low=0, high=4), ["5-8"]),
        (ranged("threads", 0, 5), IntRange(low=0, high=4), ["5"]),
        (ranged("threads", 0, 4), IntRange(low=0, high=4), []),
        (ranged("threads", 1, 8, threads=6), IntRange(low=1, high=6), ["7-8"]),
        (ranged("threads", 5, 8, threads=6), None, ["5", "7-8"]),
        (ranged("world_size", 1, 8), IntRange(low=1, high=4), ["5-8"]),
    ],
)
def test_a_range_ends_at_the_cores_or_at_the_baseline_beyond_them(
    space: SearchSpace, kept: IntRange | None, gone: list[str]
) -> None:
    limits = limits_of(space, {}, vocab_size=2_048, environment={"logical_cores": "4", "device": "cpu"})
    left, pruned = prune(space, limits)
    assert [d.domain for d in left.dimensions] == [kept] * (kept is not None)
    assert [p.value for p in pruned] == gone
    assert {p.reason for p in pruned} <= {"there are 4 logical cores to run on"}


@pytest.mark.parametrize(("cores", "gone"), [("4", []), ("1", ["ddp", "fsdp"])])
def test_strategies_stay_where_a_range_has_processes_for_them(cores: str, gone: list[str]) -> None:
    strategies = Dimension(knob=KNOBS["parallelism"], domain=Choice(values=("none", "ddp", "fsdp")))
    space = ranged("world_size", 1, 3)
    space = replace(space, dimensions=(strategies, *space.dimensions))
    limits = limits_of(space, {}, vocab_size=2_048, environment={"logical_cores": cores, "device": "cpu"})
    assert [p.value for p in prune(space, limits)[1] if p.knob == "parallelism"] == gone


@pytest.mark.parametrize(
    ("knobs", "baseline", "attempts"),
    [
        ({"attention": ("math", "flex"), "compile": ("off", "regional")}, {}, ("compile", "flex")),
        ({"attention": ("math", "sdpa"), "compile": ("off", "default")}, {}, ("compile",)),
        ({"attention": ("math", "flex")}, {"compile": "default"}, ("flex",)),
        (
            {"attention": ("math", "flex"), "compile": ("off", "default")},
            {"attention": "flex", "compile": "default"},
            (),
        ),
        ({"attention": ("math", "flash"), "compile": ("off",)}, {}, ()),
        ({}, {}, ()),
    ],
)
def test_compiling_is_tried_where_the_space_has_it(
    knobs: dict[str, tuple[KnobValue, ...]], baseline: dict[str, KnobValue], attempts: tuple[str, ...]
) -> None:
    dimensions = tuple(Dimension(knob=KNOBS[n], domain=Choice(values=v)) for n, v in knobs.items())
    space = replace(SPACE, baseline=SPACE.baseline.with_knobs(baseline), dimensions=dimensions)
    assert attempts_for(space) == attempts


def test_what_a_study_keeps_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(api, "prepare", lambda *_, attempts, **__: asked.append(attempts) or MACHINE)
    api._machine_for(SPACE, tmp_path)
    (tmp_path / "limits.json").touch()
    api._machine_for(SPACE, tmp_path)
    assert asked == [("compile", "flex"), ()]


def test_a_study_tells_what_it_did_not_try_and_keeps_it(tmp_path: Path) -> None:
    limits = {"attention": {"sdpa": "no such kernel"}, "dtype": {"fp16_autocast": "emulated here"}}
    study = ScriptedStudy(tmp_path / "study", machine=replace(MACHINE, limits=limits), budget_seconds=900.0)
    result = study.sit()
    told = {str(c.details["knobs"]) for c in result.caveats if c.kind is CaveatKind.PRUNED}
    assert told == {"attention = sdpa", "dtype = fp16_autocast"}
    (row,) = (t for t in result.techniques if t.name == "attention")
    assert row.verdict is TechniqueVerdict.NOT_MEASURED
    assert row.reason == "not measurable here: sdpa: no such kernel"
    tried = {json.loads(p.read_text())["config"]["attention"] for p in study.folder.glob("trials/*/spec.json")}
    assert tried == {"math"}
    study.machine = MACHINE  # another sitting, in which everything seems to work
    assert study.sit() == result


def test_the_doctor_prints_the_machine_and_what_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def machine(*_: object, **__: object) -> Machine:
        return replace(MACHINE, limits=LIMITS)

    monkeypatch.setattr(api, "prepare", machine)
    assert cli.main(["--root", str(tmp_path), "doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["storage"] == ""
    assert {"knob": "pinned_memory", "value": "True", "reason": "there is no GPU"} in found["pruned"]
    assert cli.main(["--root", str(tmp_path), "doctor"]) == 0
    text = capsys.readouterr().out
    assert "attention = cudnn" in text
    assert "can be written" in text
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_folder_that_cannot_be_written_is_a_problem_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(api, "prepare", lambda *_, **__: MACHINE)
    monkeypatch.setattr(api.tempfile, "TemporaryFile", full)
    assert cli.main(["--root", str(tmp_path), "doctor"]) == 6


def test_where_everything_works_the_doctor_says_so() -> None:
    console = Console(record=True, width=80)
    print_examination(MACHINE.environment, MACHINE.peak_flops, (), "", console)
    assert "Every value of the space can be tried here." in console.export_text()
