"""A workload with knobs that no GPT has: the pipeline must not know the difference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.quantity import Unknown
from autotune.simulation.example import LognormalNoise
from autotune.simulation.workload import Footprint, ScriptedWorkload
from autotune.simulation.world import Slowdown
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.document import SpaceDocument
from autotune.space.knobs import Choice, Complexity, FloatRange, IntRange, Knob, KnobClass
from autotune.trial.types import Failed, Fingerprint, Infeasible
from autotune.workload.base import CompareSketches, Gate, NoGate, StepCost

KNOBS: Mapping[str, Knob] = {
    knob.name: knob
    for knob in (
        Knob(
            name="tile",
            domain=IntRange(low=1, high=64),
            knob_class=KnobClass.SYSTEM,
            complexity=Complexity.FLAG,
            title="tile size",
        ),
        Knob(
            name="rounding",
            domain=Choice(values=("exact", "coarse")),
            knob_class=KnobClass.NUMERICS,
            complexity=Complexity.CARE,
            title="rounding",
        ),
        Knob(
            name="eagerness",
            domain=FloatRange(low=1e-4, high=1.0),
            knob_class=KnobClass.LEARNING,
            complexity=Complexity.FLAG,
            title="eagerness",
            short_horizon_favours="more eagerness",
        ),
    )
}
BASELINE = Configuration({"tile": 4, "rounding": "exact", "eagerness": 0.01})
SPACE = """
[workload]

[plan]
tokens = 100_000_000
runs = 10
device_hour_usd = 1.0

[baseline]

[knobs]
tile = [2, 4, 8]
rounding = ["exact", "coarse"]
eagerness = { low = 1e-3, high = 0.1, log = true }
"""


def _rule(configuration: Configuration) -> None:
    if configuration["rounding"] == "coarse" and configuration["tile"] == 2:
        raise InvalidConfiguration("rounding coarse needs a tile above 2; got 2: use tile 4")


def toy_workload(*, gate: Gate | None = None) -> ScriptedWorkload:
    return ScriptedWorkload(
        knobs=KNOBS,
        baseline=BASELINE,
        horizon_tokens=400_000,
        evaluation_tokens=8_192,
        sequence_tokens=64,
        rule=_rule,
        step=lambda c: StepCost(tokens=1_024, pass_tokens=64 * int(c["tile"]), compiles=False, arithmetic="fp32"),
        footprint=lambda _: Footprint(parameters=1_000, flops_per_token=6_000.0, peak_memory_bytes=1 << 20),
        gate_of=lambda _: gate or CompareSketches(logits=1e-3, gradient=1e-3, update=1e-3),
        wishes=lambda _: BASELINE.with_values({"rounding": "coarse"}),
        area=lambda _, __: Unknown(reason="it has no learning rate"),
    )


def read_toy(_: SpaceDocument) -> ScriptedWorkload:
    return toy_workload()


def read_ungated_toy(_: SpaceDocument) -> ScriptedWorkload:
    return toy_workload(gate=NoGate(reason="the script prints nothing to compare"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorld:
    """Larger tiles are faster, coarse rounding is much faster, and eagerness learns best at 0.02."""

    launch_seconds: float = 1.0
    noise: LognormalNoise = field(default_factory=lambda: LognormalNoise(moment=0.05, own=0.01, process=0.005))

    def tokens_per_second(self, config: Configuration) -> float:
        speed = 10_000.0 * (1.0 + 0.1 * math.log2(int(config["tile"])))
        return speed * (1.5 if config["rounding"] == "coarse" else 1.0)

    def loss(self, config: Configuration, tokens: int, seed: int) -> float:
        worth = math.exp(-0.05 * math.log(float(config["eagerness"]) / 0.02) ** 2)
        return 2.0 + 20.0 * (tokens * worth) ** -0.2 + 0.01 * math.sin(seed)

    def fingerprint(self, config: Configuration) -> Fingerprint:
        sketch = tuple(math.sin(1.0 + i) for i in range(32))
        return Fingerprint(logits=sketch, gradient=sketch, update=sketch)

    def noise_scale(self, config: Configuration, tokens: int) -> float:
        return 8.0

    def open_seconds(self, config: Configuration) -> float:
        return 0.3

    def compile_seconds(self, config: Configuration) -> float:
        return 0.0

    def obstacle(self, config: Configuration) -> Infeasible | Failed | None:
        return None

    def watts(self, config: Configuration) -> float | None:
        return None

    def slowdown(self, seed: int, process: int) -> Slowdown:
        return self.noise.slowdown(seed, process)
