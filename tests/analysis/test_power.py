"""Mean draw: joules over seconds of paired slices, restart by restart, or why there is no figure."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from autotune.analysis.power import Power, measured_power, power_of
from autotune.analysis.rates import as_ratio
from autotune.quantity import Interval, Unknown
from autotune.space.configuration import Configuration
from autotune.space.plan import Plan
from autotune.trial.types import Completed, Costs, Ready, Slice, Stage, TrialRecord, TrialSpec

METER = "RAPL package zones"


def slices(joules: Sequence[float | None], *, seconds: float = 0.15, first_round: int = 0) -> tuple[Slice, ...]:
    return tuple(
        Slice(
            round=first_round + number,
            tokens=100,
            seconds=seconds,
            step_seconds=(seconds,),
            losses=(1.0,),
            peak_memory_bytes=1,
            energy_joules=energy,
        )
        for number, energy in enumerate(joules)
    )


def record(ours: tuple[Slice, ...], theirs: tuple[Slice, ...], *, meter: str = METER) -> TrialRecord:
    environment = {"energy_meter": meter} if meter else {}
    ready = Ready(
        setup_seconds=1.0,
        compile_seconds=0.0,
        parameters=1,
        flops_per_token=1.0,
        tokens_per_step=1,
        horizon_steps=1,
        peak_memory_bytes=1,
        environment=environment,
    )
    return TrialRecord(
        spec=TrialSpec(
            number=0, stage=Stage.CONFIRM, label="winner", config=Configuration({}), seed=0, horizon_tokens=1, block=0
        ),
        outcome=Completed(),
        ready=(ready,),
        slices=ours,
        reference_slices=theirs,
        evaluations=(),
        costs=Costs(total_seconds=1.0),
        interleaved=True,
        started_at="",
        finished_at="",
    )


def slow_counter(watts: float, count: int, rng: random.Random) -> list[float]:
    """Joules of slices of 0.15 s by a counter that is renewed every 0.1 s: 0.1 or 0.2 s of them in each."""
    phase = rng.random()
    renewals = [math.floor(phase + 1.5 * n) for n in range(count + 1)]
    return [0.1 * watts * (after - before) for before, after in itertools.pairwise(renewals)]


def measured(records: Sequence[TrialRecord]) -> Power:
    power = measured_power(records, level=0.9)
    assert isinstance(power, Power)
    return power


def watts(interval: Interval) -> Interval:
    return as_ratio(interval)


def test_a_slow_counter_is_right_over_many_slices() -> None:
    rng = random.Random(0)
    records = [record(slices(slow_counter(48.0, 41, rng)), slices(slow_counter(60.0, 41, rng))) for _ in range(4)]
    power = measured(records)
    assert watts(power.baseline).estimate == pytest.approx(60.0, rel=0.02)
    assert watts(power.candidate).estimate == pytest.approx(48.0, rel=0.02)
    assert power.ratio.estimate == pytest.approx(power.candidate.estimate - power.baseline.estimate)
    assert power.ratio.low < math.log(0.8) < power.ratio.high
    assert power.degrees_of_freedom == 3.0
    assert power.provenance == "measured (RAPL package zones)"


def test_what_else_the_machine_does_in_a_block_is_not_in_the_ratio() -> None:
    records = [record(slices([0.15 * 40.0 * load] * 9), slices([0.15 * 50.0 * load] * 9)) for load in (1.0, 1.3, 0.9)]
    power = measured(records)
    assert power.ratio.high - power.ratio.low < 1e-9
    assert power.baseline.high - power.baseline.low > 0.2
    assert power.ratio.estimate == pytest.approx(math.log(0.8))


def test_only_rounds_that_both_sides_metered_count() -> None:
    ours = slices([None, 6.0, 6.0]) + slices([900.0] * 3, first_round=7)
    theirs = slices([900.0, 7.5, 7.5, 900.0])
    alone = slices([900.0], first_round=-1)
    power = measured([record(ours + alone, theirs)] * 2)
    assert watts(power.candidate).estimate == pytest.approx(40.0)
    assert watts(power.baseline).estimate == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "no energy meter was read"),
        ([record(slices([None]), slices([None]), meter="")] * 3, "no energy meter was read"),
        ([record(slices([None]), slices([None]), meter="no zone")] * 3, "no energy meter was read (no zone)"),
        ([record(slices([0.0]), slices([0.0]))] * 3, "the energy meter (RAPL package zones) did not advance"),
        ([record(slices([6.0]), slices([6.0]))], "the energy meter was read in 1 of at least 2 restarts"),
    ],
)
def test_what_was_not_measured_is_estimated_where_the_plan_says_of_what_or_else_unknown(
    records: list[TrialRecord], why: str
) -> None:
    missing = measured_power(records, level=0.9)
    assert missing == Unknown(reason=why)
    assert power_of(Plan(), missing) == Unknown(reason=f"{why} and the plan names no device_watts")
    estimate = power_of(Plan(device_watts=65.0), missing)
    assert isinstance(estimate, Power)
    assert estimate.provenance == "estimated from device_watts"
    for interval in (estimate.baseline, estimate.candidate):
        assert watts(interval).low == watts(interval).high == pytest.approx(65.0)
    assert estimate.ratio.estimate == 0.0


def test_what_was_measured_goes_before_what_the_plan_says() -> None:
    power = measured([record(slices([6.0] * 3), slices([7.5] * 3))] * 3)
    assert power_of(Plan(device_watts=65.0), power) is power
