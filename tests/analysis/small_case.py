"""Cases made by hand: records of a small space with the speeds and losses one asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autotune.analysis.case import Case, Circumstances
from autotune.analysis.claims import Claim
from autotune.analysis.efficiency import loss_after
from autotune.analysis.evidence import ANCHOR, BASELINE, CONFIRM_SEED, WINNER, Calibration
from autotune.analysis.recommendation import Curve
from autotune.quantity import Interval, Unknown
from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.trial.types import Completed, Costs, Evaluation, Outcome, Slice, Stage, TrialRecord, TrialSpec
from autotune.workload.space import SearchSpace, space_of

HORIZON = 100_000
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
micro_batch = 8
global_batch = 16

[knobs]
attention = ["math", "sdpa"]
dtype = ["fp32", "bf16_autocast"]
schedule = ["cosine", "wsd"]
"""
CURVE = Curve(
    points=tuple((d, 0.0) for d in (25_000, 50_000, 100_000, 200_000)), irreducible=2.0, amplitude=24.0, exponent=0.15
)
CALIBRATION = Calibration(
    rate=Interval.exactly(1e4, level=0.9),
    power=Unknown(reason="not metered"),
    noise_scales=(),
    copies=(),
    noise=Unknown(reason="not looked at"),
    points=CURVE.points,
    curve=CURVE,
    curves=tuple(replace(CURVE, exponent=0.15 + i / 1000) for i in (-1, 0, 1)),
)
ROUNDS = 20


def small_space(text: str = TEXT) -> SearchSpace:
    return space_of(parse_document(text, name="small", source="small", folder=Path()))


SPACE = small_space()


def turned(knobs: Mapping[str, Any]) -> Configuration:
    """The baseline with other values of those knobs."""
    return SPACE.turned(SPACE.baseline, knobs)


def slices(log_speeds: Sequence[float], *, skipped: int = 0) -> tuple[Slice, ...]:
    """One slice a round, each that many log units faster than 10 000 tokens/s."""
    return tuple(
        Slice(
            round=number,
            tokens=1_000,
            seconds=0.1 * math.exp(-log_speed),
            step_seconds=(0.1,),
            losses=(3.0,),
            peak_memory_bytes=1,
            skipped_steps=skipped,
        )
        for number, log_speed in enumerate(log_speeds)
    )


def record(
    knobs: Mapping[str, Any] | Configuration,
    *,
    label: str,
    stage: Stage = Stage.CONFIRM,
    block: int = 0,
    seed: int | None = None,
    horizon_tokens: int = HORIZON,
    log_speed: float = 0.0,
    log_efficiency: float = 0.0,
    outcome: Outcome | None = None,
    cost_seconds: float = 10.0,
) -> TrialRecord:
    """A trial of one block, with the loss that such an efficiency gives on the curve; its seed is the block's."""
    loss = loss_after(CURVE, horizon_tokens * math.exp(log_efficiency))
    return TrialRecord(
        spec=TrialSpec(
            number=100 * list(Stage).index(stage) + 10 * block + len(label) % 10,
            stage=stage,
            label=label,
            config=knobs if isinstance(knobs, Configuration) else turned(knobs),
            seed=block if seed is None else seed,
            horizon_tokens=horizon_tokens,
            block=block,
        ),
        outcome=outcome or Completed(),
        ready=(),
        slices=slices([log_speed] * ROUNDS),
        reference_slices=() if label == BASELINE else slices([0.0] * ROUNDS),
        evaluations=(Evaluation(tokens_seen=horizon_tokens, loss=loss, stderr=0.01, tokens=1_000, bits_per_byte=1.0),),
        costs=Costs(total_seconds=cost_seconds),
        interleaved=True,
        started_at="",
        finished_at="",
    )


def confirmed(
    knobs: Mapping[str, Any],
    log_speeds: Sequence[float] = (0.30, 0.31, 0.29),
    log_efficiencies: Sequence[float] = (0.0, 0.0, 0.0),
    *,
    label: str = WINNER,
    stage: Stage = Stage.CONFIRM,
    horizon_tokens: int = HORIZON,
) -> list[TrialRecord]:
    """Blocks of a configuration beside the baseline on fresh seeds, one for each speed and efficiency."""
    found = []
    for block, (speed, efficiency) in enumerate(zip(log_speeds, log_efficiencies, strict=True)):
        same: dict[str, Any] = {
            "stage": stage,
            "block": block,
            "seed": CONFIRM_SEED + block,
            "horizon_tokens": horizon_tokens,
        }
        found.append(record({}, label=BASELINE, **same))
        found.append(record(knobs, label=label, log_speed=speed, log_efficiency=efficiency, **same))
    return found


def rung(
    knobs: Mapping[str, Any] | Configuration = MappingProxyType({}),
    *,
    tokens: int = HORIZON,
    log_efficiency: float = 0.0,
    **other: Any,
) -> TrialRecord:
    """A trial of the ladder: a complete schedule of that many tokens on the seed of exploration."""
    label = "trial" if knobs else ANCHOR
    usual: dict[str, Any] = {"stage": Stage.EXPLORE_LEARNING, "seed": 0, "horizon_tokens": tokens}
    return record(knobs, label=label, log_efficiency=log_efficiency, **usual | other)


def case_of(
    records: Sequence[TrialRecord] = (),
    *,
    space: SearchSpace = SPACE,
    calibration: Calibration = CALIBRATION,
    **facts: Any,
) -> Case:
    """A case of an unhurried search on a machine with text enough, unless told otherwise."""
    usual: dict[str, Any] = {
        "expert": space.baseline,
        "expert_anywhere": space.baseline,
        "search_seconds": 1_800.0,
        "seconds_by_stage": {},
        "stage_ends": {},
        "corpus": MACHINE.corpus,
        "environment": {},
        "peak_flops": {},
    }
    circumstances = Circumstances(**usual | facts)
    return Case(space=space, records=tuple(records), calibration=calibration, facts=circumstances)


LEARNING = {"schedule": "wsd"}
ANCHORS = [rung(tokens=tokens) for tokens in (HORIZON // 4, HORIZON // 2, HORIZON, 2 * HORIZON, 4 * HORIZON)]


def claimed(case: Case) -> Claim:
    """The claim of a case that has one."""
    assert isinstance(case.claim, Claim), case.claim
    return case.claim


def climbed(log_efficiency: float) -> list[TrialRecord]:
    """The ladder with one schedule that gains as much at both lengths."""
    return [*ANCHORS, *(rung(LEARNING, tokens=d, log_efficiency=log_efficiency) for d in (HORIZON, 4 * HORIZON))]


def learned(log_efficiency: float, *, fresh: float | None = None) -> list[TrialRecord]:
    """That ladder, and blocks of the schedule on fresh seeds, where it gains `fresh` (default: the same)."""
    seen = log_efficiency if fresh is None else fresh
    return [*climbed(log_efficiency), *confirmed(LEARNING, (0.0,) * 3, (seen,) * 3)]


def starved() -> list[TrialRecord]:
    """A ladder of trials in which the area under the schedule is all that shows."""
    rates = [rung({"learning_rate": 0.001 * x}, log_efficiency=math.log(x)) for x in (0.7, 0.8, 1.5)]
    return [*ANCHORS, *rates]
