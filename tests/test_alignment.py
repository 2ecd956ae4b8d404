"""Whether powers of two pay, in worlds where they do, do not, or make no difference."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from autotune_model.config import TrainingConfig
from rich.console import Console

from autotune import api, cli
from autotune.cli.terminal import print_alignment
from autotune.errors import NothingFeasible
from autotune.hardware.prepare import Machine
from autotune.measure.alignment import Answer, answer_of, claims_of, measure_alignment
from autotune.quantity import Interval, Unknown
from autotune.simulation.executor import ExampleWorld, LognormalNoise, ScriptedExecutor, SimulatedClock
from autotune.simulation.study import MACHINE
from autotune.space.load import load_space
from autotune.space.shipped import shipped_spaces

SPACE = load_space(shipped_spaces()["power_of_two"])


@dataclass(frozen=True)
class AlignedWorld(ExampleWorld):
    """Batches that are no power of two, and heads without padding, are `penalty` times slower."""

    penalty: float = 1.0

    def tokens_per_second(self, config: TrainingConfig) -> float:
        power = config.micro_batch & (config.micro_batch - 1) == 0
        padded = config.vocab_multiple > 1
        return 1e4 / (1.0 if power else self.penalty) * (self.penalty if padded else 1.0)


@pytest.mark.parametrize(
    ("penalty", "answer"), [(1.2, Answer.TRUE), (1 / 1.2, Answer.FALSE), (1.0, Answer.BELOW_FLOOR)]
)
def test_the_answer_is_the_truth_of_the_world(penalty: float, answer: Answer) -> None:
    world = AlignedWorld(noise=LognormalNoise(moment=0.02, own=0.005, process=0.005), penalty=penalty)
    told: list[str] = []
    claims = claims_of(SPACE, 2_000)
    executor = ScriptedExecutor(world, SimulatedClock())
    found = measure_alignment(executor, SPACE, claims, restarts=4, tell=told.append)
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
    assert len(claims_of(SPACE, 2_048)) == 2


def test_what_cannot_be_trained_is_said() -> None:
    world = replace(ExampleWorld(), largest_micro_batch=100)
    with pytest.raises(NothingFeasible, match="both sides of a claim must be trainable"):
        measure_alignment(
            ScriptedExecutor(world, SimulatedClock()), SPACE, claims_of(SPACE, 2_000), restarts=2, tell=str
        )


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


def test_the_command_prints_the_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def machine(*_: object, **__: object) -> Machine:
        return MACHINE

    monkeypatch.setattr(api, "prepare", machine)
    monkeypatch.setattr(api, "LocalExecutor", lambda: ScriptedExecutor(AlignedWorld(penalty=1.3), SimulatedClock()))
    assert cli.main(["techniques", "--restarts", "2", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [f["answer"] for f in findings] == ["true here", "true here"], "2048 is a multiple of 64 already"
    assert cli.main(["techniques", "--restarts", "1"]) == 2
    assert "--restarts must be at least 2" in capsys.readouterr().err


def test_the_table_shows_ratio_and_answer() -> None:
    world = AlignedWorld(noise=LognormalNoise(moment=0.02, own=0.005, process=0.005), penalty=1.2)
    found = measure_alignment(
        ScriptedExecutor(world, SimulatedClock()), SPACE, claims_of(SPACE, 2_000), restarts=3, tell=str
    )
    console = Console(record=True, width=80)
    print_alignment(found, console)
    text = console.export_text()
    assert "micro-batch 64 over 62" in text
    assert "true here" in text
    assert "Noise floor" in text
