"""Whether powers of two pay, in worlds where they do, do not, or make no difference."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from autotune import api
from autotune.cli import main
from autotune.cli.printers import print_alignment
from autotune.errors import NothingFeasible
from autotune.measure.alignment import Answer, answer_of, measure_alignment
from autotune.quantity import Interval, Unknown
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.simulation.executor import MACHINE, ScriptedExecutor, SimulatedClock
from autotune.simulation.workload import ScriptedWorkload, simulated_gpt, training_of
from autotune.space.configuration import Configuration
from autotune.space.shipped import shipped_spaces
from autotune.workload.base import SpeedClaim
from autotune.workload.machine import Machine
from autotune.workload.space import load_space

PATH = shipped_spaces()["power_of_two"]
SPACE = load_space(PATH, simulated_gpt)
CALM = LognormalNoise(moment=0.02, own=0.005, process=0.005)


def claims(vocab_size: int = 2_000) -> tuple[SpeedClaim, ...]:
    """What the built-in GPT says of its shapes where the text has that vocabulary."""
    machine = replace(MACHINE, corpus=replace(MACHINE.corpus, vocab_size=vocab_size))
    return load_space(PATH).workload.speed_claims(machine)


@dataclass(frozen=True)
class AlignedWorld(ExampleWorld):
    """Batches that are no power of two, and heads without padding, are `penalty` times slower."""

    penalty: float = 1.0

    def tokens_per_second(self, config: Configuration) -> float:
        knobs = training_of(config)
        power = knobs.micro_batch & (knobs.micro_batch - 1) == 0
        padded = knobs.vocab_multiple > 1
        return 1e4 / (1.0 if power else self.penalty) * (self.penalty if padded else 1.0)


@pytest.mark.parametrize(
    ("penalty", "answer"), [(1.2, Answer.TRUE), (1 / 1.2, Answer.FALSE), (1.0, Answer.BELOW_FLOOR)]
)
def test_the_answer_is_the_truth_of_the_world(penalty: float, answer: Answer) -> None:
    executor = ScriptedExecutor(AlignedWorld(noise=CALM, penalty=penalty), SimulatedClock())
    told: list[str] = []
    found = measure_alignment(executor, SPACE, claims(), restarts=4, tell=told.append)
    assert [f.claim for f in found.findings] == [
        "micro-batch 64 over 62",
        "micro-batch 128 over 120",
        "vocabulary padded from 2000 to 2048",
    ]
    assert not isinstance(found.floor, Unknown)
    assert 0.0 < found.floor < 0.1
    assert len(told) == 4 * 4
    for finding in found.findings:
        assert finding.answer is answer
        assert isinstance(finding.ratio, Interval)
        assert finding.ratio.estimate == pytest.approx(penalty, rel=0.03)


def test_a_vocabulary_that_is_a_multiple_already_is_no_claim() -> None:
    assert len(claims(2_048)) == 2


def test_what_cannot_be_trained_is_said() -> None:
    world = replace(ExampleWorld(), largest_micro_batch=100)
    with pytest.raises(NothingFeasible, match="both configurations must train on this machine"):
        measure_alignment(ScriptedExecutor(world, SimulatedClock()), SPACE, claims(), restarts=2, tell=str)


@pytest.mark.parametrize(
    ("low", "estimate", "high", "answer"),
    [
        (0.01, 0.05, 0.09, Answer.TRUE),
        (0.001, 0.01, 0.019, Answer.BELOW_FLOOR),
        (-0.05, 0.05, 0.15, Answer.UNDECIDED),
        (-0.09, -0.05, -0.01, Answer.FALSE),
    ],
)
def test_an_effect_must_leave_out_one_and_exceed_the_floor(
    low: float, estimate: float, high: float, answer: Answer
) -> None:
    assert answer_of(Interval(low=low, estimate=estimate, high=high, level=0.9), 0.02) is answer
    assert answer_of(Unknown(reason="no restarts"), 0.02) is Answer.UNDECIDED


@dataclass(frozen=True, kw_only=True)
class _Claiming(ScriptedWorkload):
    def speed_claims(self, machine: Machine) -> tuple[SpeedClaim, ...]:
        return claims(machine.corpus.vocab_size)


def test_the_command_measures_what_the_workload_claims(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = AlignedWorld(penalty=1.3)
    claiming = replace(SPACE, workload=_Claiming(**vars(SPACE.workload)))
    monkeypatch.setattr(api, "load_space", lambda path: claiming)
    monkeypatch.setattr(api, "open_executor", lambda name: ScriptedExecutor(world, SimulatedClock()))
    assert main(["techniques", "--restarts", "2", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [f["answer"] for f in findings] == ["true here", "true here"], "2048 is a multiple of 64 already"


def test_the_table_shows_ratio_and_answer() -> None:
    executor = ScriptedExecutor(AlignedWorld(noise=CALM, penalty=1.2), SimulatedClock())
    found = measure_alignment(executor, SPACE, claims(), restarts=3, tell=str)
    console = Console(record=True, width=80)
    print_alignment(found, console)
    text = console.export_text()
    assert "micro-batch 64 over 62" in text
    assert "true here" in text
    assert "Noise floor" in text
