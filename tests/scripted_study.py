"""Scripted studies: the real pipeline on a simulated machine, in simulated time."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotune.simulation.example import ExampleWorld
from autotune.simulation.study import SimulatedStudy
from autotune.simulation.world import ScriptedWorld

SPACE = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 800_000

[plan]
tokens = 80_000_000
runs = 10
device_hour_usd = 0.1

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
micro_batch = [4, 8, 16]
dtype = ["fp32", "bf16_autocast", "fp16_autocast"]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
schedule = ["constant", "linear", "cosine", "wsd"]
tied_head = [false, true]
"""


@dataclass
class ScriptedStudy(SimulatedStudy):
    """A study of `SPACE` in the example world, unless told otherwise."""

    text: str = SPACE
    world: ScriptedWorld = field(default_factory=ExampleWorld)
    budget_seconds: float = 2_500.0
