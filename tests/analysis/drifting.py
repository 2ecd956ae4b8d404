"""A space of learning knobs, and a truth for it: a quadratic in rate and batch whose optimum drifts with ln D."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autotune.analysis.ladder import Ladder
from autotune.analysis.surface import Seen, Surface, surface_of
from autotune.simulation.workload import simulated_gpt
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.space.knobs import KnobValue
from autotune.workload.space import SearchSpace, space_of

TEXT = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 100_000

[plan]
tokens = 30_000_000
runs = 10

[baseline]
micro_batch = 4
global_batch = 16
learning_rate = 1e-3

[knobs]
global_batch = [8, 16, 32]
dtype = ["fp32", "bf16_autocast"]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
schedule = ["constant", "cosine", "wsd"]
tied_head = [false, true]
"""
PLAN_TOKENS = 30_000_000.0
RUNGS = (100_000, 400_000, 1_600_000)
RATES = (3e-4, 6e-4, 1.6e-3, 2.8e-3)


def drifting_space(text: str = TEXT) -> SearchSpace:
    return space_of(parse_document(text, name="drifting", source="drifting", folder=Path()), simulated_gpt)


SPACE = drifting_space()
BASE = SPACE.baseline


def knobs(**values: KnobValue) -> Configuration:
    """The baseline with other values of those knobs."""
    return SPACE.turned(BASE, values)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """ln e over the baseline: -curvature * (u - best)**2, likewise for the batch, plus what each other value gains.

    `rate` and `batch` are ln of the best over the baseline's after `RUNGS[0]` tokens; both move by their drift per unit
    of ln D. The gain of another value is (level, slope). Trials show the area under the schedule, too: per unit of its
    ln over the baseline's, `area` for every rung from theirs on.
    """

    rate: float = 0.0
    rate_drift: float = 0.0
    rate_curvature: float = 0.2
    batch: float = 0.0
    batch_drift: float = 0.0
    batch_curvature: float = 0.17
    others: Mapping[tuple[str, KnobValue], tuple[float, float]] = field(default_factory=dict)
    area: float = 0.15

    def best_rate(self, tokens: float) -> float:
        """ln of the best rate over the baseline's, at the baseline's batch."""
        return self.rate + self.rate_drift * math.log(tokens / RUNGS[0])

    def log_efficiency(self, config: Configuration, tokens: float) -> float:
        """ln e after complete schedules of `tokens`."""
        far = math.log(tokens / RUNGS[0])
        total = 0.0
        for name, best, curvature in (
            ("learning_rate", self.best_rate(tokens), self.rate_curvature),
            ("global_batch", self.batch + self.batch_drift * far, self.batch_curvature),
        ):
            x = math.log(float(config[name]) / float(BASE[name]))
            total += curvature * (best**2 - (x - best) ** 2)
        for (name, value), (level, slope) in self.others.items():
            total += (level + slope * far) * (config[name] == value)
        return total

    def shown(self, config: Configuration, tokens: int) -> float:
        """ln e as a trial shows it."""
        ours, theirs = (SPACE.workload.schedule_area(c, tokens) for c in (config, BASE))
        assert isinstance(ours, float)
        assert isinstance(theirs, float)
        starved = self.area * sum(tokens <= rung for rung in RUNGS)
        return self.log_efficiency(config, tokens) + starved * math.log(ours / theirs)


def seen_in(
    truth: Truth, configs: Iterable[Configuration], lengths: Iterable[int], noise: Callable[[], float] = lambda: 0.0
) -> list[Seen]:
    """What trials of those configurations and lengths show, with `noise` added to each."""
    return [
        Seen(config=config, tokens=tokens, log_efficiency=truth.shown(config, tokens) + noise())
        for tokens in lengths
        for config in configs
    ]


def ladder_of(
    seen: Iterable[Seen] = (),
    *,
    surface: Surface | None = None,
    base: Configuration = BASE,
    candidates: Iterable[Configuration] = (),
    rungs: tuple[int, ...] = RUNGS,
    failed: Iterable[Configuration] = (),
    log_speed: Callable[[Configuration], float] = lambda _: 0.0,
) -> Ladder:
    """The ladder after those trials."""
    known = tuple(seen)
    return Ladder(
        surface=surface or surface_of(SPACE, PLAN_TOKENS, known, candidates=tuple(candidates), first_tokens=rungs[0]),
        base=base,
        rungs=rungs,
        tried=tuple((s.config, s.tokens) for s in known),
        failed=tuple(failed),
        log_speed=log_speed,
    )
