"""The contract of the workload door, held by the built-in GPT, by its simulation, and by one with other knobs."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_space
from contract import WorkloadContract
from toy import SPACE, ToyWorld, read_toy, read_ungated_toy, toy_workload

from autotune.analysis.caveat import NotGated
from autotune.quantity import Interval
from autotune.simulation.study import SimulatedStudy
from autotune.simulation.workload import simulated_gpt
from autotune.space.document import SpaceDocument, parse_document
from autotune.workload.base import Workload
from autotune.workload.gpt import GPTWorkload


def document() -> SpaceDocument:
    return parse_document(small_space.SPACE, name="small", source="small", folder=Path())


class TestGPT(WorkloadContract):
    @pytest.fixture
    def workload(self) -> Workload:
        return GPTWorkload.read(document())

    @pytest.fixture
    def change(self) -> tuple[str, object]:
        return "dtype", "bf16_autocast"

    @pytest.fixture
    def impossible(self) -> dict[str, object]:
        return {"micro_batch": 3}


class TestSimulatedGPT(TestGPT):
    @pytest.fixture
    def workload(self) -> Workload:
        return simulated_gpt(document())


class TestOtherKnobs(WorkloadContract):
    @pytest.fixture
    def workload(self) -> Workload:
        return toy_workload()

    @pytest.fixture
    def change(self) -> tuple[str, object]:
        return "tile", 8

    @pytest.fixture
    def impossible(self) -> dict[str, object]:
        return {"rounding": "coarse", "tile": 2}


def test_a_shape_that_a_configuration_does_not_fit_is_refused() -> None:
    workload = GPTWorkload.read(document())  # two heads
    config = workload.baseline.with_values({"parallelism": "tensor", "world_size": 4})
    with pytest.raises(ValueError, match="heads must be a multiple of world_size"):
        workload.check(config)


def test_the_whole_pipeline_searches_knobs_that_no_gpt_has(tmp_path: Path) -> None:
    study = SimulatedStudy(folder=tmp_path / "toy", text=SPACE, world=ToyWorld(), budget_seconds=2_500.0, read=read_toy)
    result = study.sit()
    assert result.claimed == result.candidate
    assert result.claimed["rounding"] == "coarse"
    speed = result.over_baseline.throughput
    assert isinstance(speed, Interval)
    world = ToyWorld()
    true = world.tokens_per_second(result.candidate) / world.tokens_per_second(result.baseline)
    assert speed.low * 0.98 < true < speed.high * 1.02
    assert {t.name for t in result.techniques} == {"tile", "rounding", "eagerness"}
    assert not any(isinstance(c, NotGated) for c in result.caveats)


def test_what_no_gate_can_compare_is_said(tmp_path: Path) -> None:
    study = SimulatedStudy(
        folder=tmp_path / "toy", text=SPACE, world=ToyWorld(), budget_seconds=2_500.0, read=read_ungated_toy
    )
    result = study.sit()
    (caveat,) = (c for c in result.caveats if isinstance(c, NotGated))
    assert caveat.reason == "the script prints nothing to compare"
    assert "tile" in caveat.knobs


@pytest.mark.parametrize("times", [1, 4, 16])
def test_longer_trials_warm_up_for_as_many_tokens(times: int) -> None:
    workload = GPTWorkload.read(document())

    def warmup_tokens(schedule: str, tokens: int) -> float:
        config = workload.baseline.with_values({"schedule": schedule, "warmup_fraction": 0.1})
        training = workload.order(config, seed=0, horizon_tokens=tokens).payload["training"]
        assert isinstance(training, dict)
        return float(training["warmup_fraction"]) * tokens

    tokens = workload.horizon_tokens
    assert warmup_tokens("cosine", times * tokens) == pytest.approx(0.1 * tokens)
    assert warmup_tokens("cosine", tokens // times) == pytest.approx(0.1 * tokens / times)
    assert warmup_tokens("inverse_sqrt", times * tokens) == pytest.approx(0.1 * times * tokens), "its fall starts there"
