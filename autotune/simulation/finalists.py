"""The race alone: four finalists, one of which truly leads, run through the real stage (docs/method.md, 6.1)."""

from __future__ import annotations

import math
import random
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import optuna

from autotune.search.calibrate import calibrate
from autotune.search.common import DELTA
from autotune.search.explore import Explored
from autotune.search.race import race
from autotune.simulation.study import MEMORY, SimulatedStudy
from autotune.simulation.worlds import DrawnWorld
from autotune.space.configuration import Configuration
from autotune.trial.types import Stage
from autotune_model.config import TrainingConfig

_BUDGET_SECONDS = 40_000.0
_BECHHOFER = 2.9162  # for 4 populations and probability 0.95 of finding the best (Bechhofer 1954, table I)
_DRAWS = 400
_TEXT = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 100_000

[plan]
tokens = 30_000_000_000

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raced:
    """A race's result: whether the best won, the slices it took, and those of an unpaired test of equal error."""

    best_won: bool
    slices: int
    unpaired_slices: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _LedWorld(DrawnWorld):
    """All configurations are equal except for one leader."""

    leader: Configuration
    log_lead: float

    def tokens_per_second(self, config: Configuration) -> float:
        """The same for all except the leader."""
        return self.base_tokens_per_second * (math.exp(self.log_lead) if config == self.leader else 1.0)

    def log_worth(self, config: Configuration, tokens: float) -> float:  # noqa: ARG002 - nothing is learned otherwise
        """The same for all."""
        return 0.0


def race_of_four(number: int) -> Raced:
    """One race on its own machine: the best of four leads the other three, which are equal, by the race's delta."""
    four = [
        Configuration(
            TrainingConfig(micro_batch=8, global_batch=16, attention=attention, optimizer_kernel=kernel).to_mapping()
        )
        for attention, kernel in (("sdpa", "for_loop"), ("math", "fused"), ("math", "foreach"), ("sdpa", "fused"))
    ]
    best = four[number % len(four)]
    world = _LedWorld(leader=best, log_lead=DELTA)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        study = SimulatedStudy(
            folder=Path(folder) / "race", text=_TEXT, world=world, budget_seconds=_BUDGET_SECONDS, seed=number
        )
        with study.open() as opened:
            lab = study.lab(opened, optuna.storages.InMemoryStorage())
            winner = race(lab, calibrate(lab), [Explored(config=config, score=0.0) for config in four])
            records = opened.of_stage(Stage.RACE)
    return Raced(
        best_won=winner.config == best,
        slices=sum(len(r.slices) for r in records),
        unpaired_slices=_unpaired_slices(world, number, round(statistics.median(len(r.slices) for r in records))),
    )


def _unpaired_slices(world: DrawnWorld, number: int, rounds: int) -> float:
    """Slices that four candidates need if each is measured alone, in fresh processes of `rounds` rounds.

    Bechhofer's fixed sample: n = (2.9162 * sd / delta)^2 processes each, where sd is that of a process's mean
    log rate at a random time of the day (Bechhofer 1954, Ann. Math. Statist. 25).
    """
    rng = random.Random(number)
    means = []
    for process in range(_DRAWS):
        slowdown = world.slowdown(number, 1_000_000 + process)
        begins = rng.uniform(0.0, _BUDGET_SECONDS)
        means.append(statistics.fmean(math.log(slowdown(begins + 0.15 * step)) for step in range(rounds)))
    return 4 * rounds * (_BECHHOFER * statistics.stdev(means) / DELTA) ** 2
