"""Workloads of scripted sessions: nothing is trained, a world supplies the results.

`ScriptedWorkload` takes any knobs, so that the pipeline can run on knobs that no GPT has. `simulated_gpt` gives it
those of the built-in GPT, with their rules and arithmetic; the worlds of `autotune.simulation.worlds` define their
effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.space.document import SpaceDocument
from autotune.space.knobs import Knob
from autotune.space.limits import Limits
from autotune.workload.base import Gate, SpeedClaim, StepCost, Values, WorkerOrder
from autotune.workload.gpt import GPTWorkload
from autotune.workload.machine import Machine
from autotune_model.config import TrainingConfig
from autotune_model.memory import multiplied_parameter_count, parameter_count, predict_peak_bytes

VOCAB_SIZE = 2_048
"""Vocabulary size of the simulated corpus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The size that a scripted session reports: distinct parameters, FLOPs per token, peak bytes."""

    parameters: int
    flops_per_token: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ScriptedWorkload:
    """A workload made of given functions. See `autotune.workload.base.Workload`.

    `rule` raises InvalidConfiguration if a configuration is not valid; `numbers` are those of a range that it may
    accept (see `Workload.whole_numbers`); `wishes` is the hand-tuned default on a
    machine; the other functions take one configuration.
    """

    knobs: Mapping[str, Knob]
    baseline: Configuration
    horizon_tokens: int
    evaluation_tokens: int
    sequence_tokens: int
    rule: Callable[[Configuration], None]
    step: Callable[[Configuration], StepCost]
    footprint: Callable[[Configuration], Footprint]
    gate_of: Callable[[Configuration], Gate]
    wishes: Callable[[Machine], Configuration]
    area: Callable[[Configuration, int], float | Unknown]
    corpus: str = "simulated"
    numbers: Callable[[str, int, int, Values], Sequence[int]] = lambda _name, low, high, _others: range(low, high + 1)

    def with_corpus(self, corpus: str) -> ScriptedWorkload:
        return replace(self, corpus=corpus)

    def identity(self) -> Mapping[str, str]:
        return {"horizon_tokens": str(self.horizon_tokens), "evaluation_tokens": str(self.evaluation_tokens)}

    def check(self, configuration: Configuration) -> None:
        self.rule(configuration)

    def whole_numbers(self, name: str, low: int, high: int, others: Values) -> Sequence[int]:
        return self.numbers(name, low, high, others)

    def expert(self, machine: Machine) -> Configuration:
        return self.wishes(machine)

    def limits(self, machine: Machine, values: Values) -> Limits:  # noqa: ARG002 - what was found by trying, as it is
        return machine.limits

    def cost(self, configuration: Configuration) -> StepCost:
        return self.step(configuration)

    def peak_bytes(self, configuration: Configuration, machine: Machine) -> int | Unknown:  # noqa: ARG002 - any machine
        return self.footprint(configuration).peak_memory_bytes

    def gate(self, configuration: Configuration) -> Gate:
        return self.gate_of(configuration)

    def order(self, configuration: Configuration, *, seed: int, horizon_tokens: int) -> WorkerOrder:  # noqa: ARG002
        """Starts nothing: a scripted session reads its size and step from the payload."""
        self.check(configuration)
        step, footprint = self.step(configuration), self.footprint(configuration)
        return WorkerOrder(
            program=(),
            payload={
                "micro_batch": step.pass_tokens // self.sequence_tokens,
                "global_batch": step.tokens // self.sequence_tokens,
                "parameters": footprint.parameters,
                "flops_per_token": footprint.flops_per_token,
                "peak_memory_bytes": footprint.peak_memory_bytes,
            },
        )

    def examination(self, values: Values) -> WorkerOrder:  # noqa: ARG002 - the machine is told
        return WorkerOrder(program=(), payload={})

    def schedule_area(self, configuration: Configuration, horizon_tokens: int) -> float | Unknown:
        return self.area(configuration, horizon_tokens)

    def speed_claims(self, machine: Machine) -> tuple[SpeedClaim, ...]:  # noqa: ARG002 - nothing is said of shapes
        return ()


def simulated_gpt(document: SpaceDocument) -> ScriptedWorkload:
    """The built-in GPT that a space file describes, as a scripted workload.

    Raises:
        BadInput: the file does not describe one.
    """
    workload = GPTWorkload.read(document)
    gpt = workload.gpt

    def footprint(configuration: Configuration) -> Footprint:
        training = training_of(configuration)
        multiplied = multiplied_parameter_count(gpt, VOCAB_SIZE)
        return Footprint(
            parameters=parameter_count(gpt, VOCAB_SIZE, tied_head=training.tied_head),
            flops_per_token=6.0 * multiplied + 12.0 * gpt.layers * gpt.width * gpt.sequence_length,
            peak_memory_bytes=predict_peak_bytes(gpt, VOCAB_SIZE, training),
        )

    return ScriptedWorkload(
        knobs=workload.knobs,
        baseline=workload.baseline,
        horizon_tokens=workload.horizon_tokens,
        evaluation_tokens=workload.evaluation_tokens,
        sequence_tokens=gpt.sequence_length,
        rule=workload.check,
        step=workload.cost,
        footprint=footprint,
        gate_of=workload.gate,
        wishes=workload.expert,
        area=workload.schedule_area,
        corpus=workload.corpus,
        numbers=workload.whole_numbers,
    )


@lru_cache(maxsize=10_000)
def training_of(configuration: Configuration) -> TrainingConfig:
    """The configuration as the built-in GPT's `TrainingConfig`."""
    return TrainingConfig(**configuration)  # type: ignore[arg-type]
