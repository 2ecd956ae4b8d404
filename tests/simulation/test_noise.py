"""The noise of a shared machine: what docs/method.md, 3 guards against is simulated, by itself and all together."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.analysis.rates import FloatArray
from autotune.simulation.noise import SharedMachine
from autotune.simulation.world import Slowdown

MACHINE = SharedMachine()
QUIET = SharedMachine(jitter=0.0, own=0.0, process=0.0, drift=0.0, burst_every_seconds=0.0)
STEP_SECONDS = 0.15
SEEDS = range(6)


def in_turn(machine: SharedMachine, seed: int, steps: int = 1_500) -> tuple[FloatArray, FloatArray]:
    """Log slowdowns of two processes that train in turn, step by step, each shape (steps,)."""
    processes, seconds = (machine.slowdown(seed, 1), machine.slowdown(seed, 2)), 0.0
    logs = np.empty((steps, 2))
    for step in range(steps):
        for side, slowdown in enumerate(processes):
            factor = slowdown(seconds)
            seconds += STEP_SECONDS * factor
            logs[step, side] = math.log(factor)
    return logs[:, 0], logs[:, 1]


def lag_1(values: FloatArray) -> float:
    return float(np.corrcoef(values[1:], values[:-1])[0, 1])


def at(slowdown: Slowdown, moments: FloatArray) -> FloatArray:
    """The slowdowns of steps that begin at those moments, shape (moments,)."""
    return np.array([slowdown(float(moment)) for moment in moments])


def test_steps_of_one_process_are_alike_and_what_pairs_differ_in_is_not() -> None:
    pairs = [in_turn(MACHINE, seed) for seed in SEEDS]
    assert 0.6 < statistics.fmean(lag_1(one) for one, _ in pairs) < 0.8
    assert all(abs(lag_1(one - other)) < 0.3 for one, other in pairs)


def test_paired_log_ratios_spread_as_measured_where_nobody_bursts() -> None:
    calm = replace(MACHINE, burst_every_seconds=0.0)
    spreads = [float(np.std(one - other)) for one, other in (in_turn(calm, seed) for seed in SEEDS)]
    assert statistics.fmean(spreads) == pytest.approx(0.126, rel=0.1)


def test_a_process_keeps_its_luck_for_life_and_differs_from_others_by_two_per_cent() -> None:
    lucky = replace(QUIET, process=MACHINE.process)
    lives = np.array([at(lucky.slowdown(0, process), np.linspace(0.0, 1e4, 20)) for process in range(300)])
    assert np.all(lives == lives[:, :1])
    for offsets in (lives[:, 0], np.array([MACHINE.process_offset(seed) for seed in range(300)])):
        assert np.std(np.log(offsets)) == pytest.approx(0.02, rel=0.2)
        assert abs(np.mean(np.log(offsets))) < 0.005


@pytest.mark.parametrize(
    ("machine", "spread"),
    [(replace(QUIET, jitter=0.14), 0.14), (replace(QUIET, drift=0.05), 0.05), (replace(QUIET, own=0.085), 0.085)],
    ids=["jitter", "drift", "own"],
)
def test_each_disturbance_spreads_as_it_says(machine: SharedMachine, spread: float) -> None:
    moments = np.arange(0.0, 4 * machine.drift_seconds, 1.0)
    logs = np.concatenate([np.log(at(machine.slowdown(seed, 1), moments)) for seed in range(3)])
    assert np.std(logs) == pytest.approx(spread, rel=0.1)
    assert abs(np.mean(logs)) < 0.1 * spread


def test_jitter_is_forgotten_in_seconds_and_drift_returns() -> None:
    moments = np.arange(0.0, 6_000.0, 1.0)
    jitter = np.log(at(replace(QUIET, jitter=0.14).slowdown(0, 1), moments))
    for seconds in (1, 3, 6):
        kept = float(np.corrcoef(jitter[seconds:], jitter[:-seconds])[0, 1])
        assert kept == pytest.approx(math.exp(-seconds / 3.0), abs=0.1)
    drift = np.log(at(replace(QUIET, drift=0.05).slowdown(0, 1), moments))
    assert drift[:-1_500] == pytest.approx(drift[1_500:], abs=1e-9)
    assert drift[:-750] == pytest.approx(-drift[750:], abs=1e-9)


def test_what_is_a_steps_own_has_heavy_tails_that_are_cut() -> None:
    own = np.concatenate([np.log(at(replace(QUIET, own=0.1).slowdown(0, p), np.zeros(4_000))) for p in range(10)])
    far = np.mean(np.abs(own) > 0.4)
    assert 0.002 < far < 0.01  # 4 standard deviations: of a normal distribution 0.00006 would lie there
    assert np.abs(own).max() <= 12 * 0.1


def test_bursts_slow_three_to_eight_times_for_seconds_and_everyone_alike() -> None:
    bursting = replace(QUIET, burst_every_seconds=90.0)
    moments = np.arange(0.0, 18_000.0, 0.25)
    one, other = (at(bursting.slowdown(0, process), moments) for process in (1, 2))
    assert np.array_equal(one, other)
    in_burst = one != 1.0
    assert 3.0 <= one[in_burst].min() < 4.0
    assert 7.0 < one.max() <= 8.0
    begins = np.count_nonzero(in_burst[1:] & ~in_burst[:-1])
    assert 18_000 / begins == pytest.approx(90.0, rel=0.25)
    assert 0.25 * np.count_nonzero(in_burst) / begins == pytest.approx(4.0, rel=0.25)


def test_what_moments_share_cancels_in_pairs_and_what_is_a_process_own_does_not() -> None:
    shared = replace(MACHINE, own=0.0, process=0.0)
    moments = np.arange(0.0, 600.0, 0.5)
    assert np.array_equal(at(shared.slowdown(0, 1), moments), at(shared.slowdown(0, 2), moments))
    assert lag_1(np.log(at(MACHINE.slowdown(0, 1), moments) / at(MACHINE.slowdown(0, 2), moments))) < 0.1


def test_the_same_seed_and_process_repeat_the_series_and_others_do_not() -> None:
    moments = np.arange(0.0, 100.0, 0.2)
    once, again, other, elsewhere = (
        at(MACHINE.slowdown(seed, process), moments) for seed, process in ((3, 1), (3, 1), (3, 2), (4, 1))
    )
    assert np.array_equal(once, again)
    assert not np.any(once == other)
    assert not np.any(once == elsewhere)


@given(st.lists(st.floats(0.0, 5_000.0), min_size=1, max_size=20), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_moment_is_what_it_is_however_it_is_come_to(moments: list[float], seed: int) -> None:
    common = replace(MACHINE, own=0.0, process=0.0)
    forwards = at(common.slowdown(seed, 1), np.sort(moments))
    fresh = replace(common, burst_every_seconds=90.0 + 1e-12)  # equal in all but the cache
    assert np.array_equal(forwards[::-1], at(fresh.slowdown(seed, 1), np.sort(moments)[::-1]))


def test_a_quiet_machine_is_true_and_one_in_an_endless_burst_slow() -> None:
    endless = replace(QUIET, burst_every_seconds=0.25, burst_least=4.0, burst_most=4.0)
    for machine, factor in ((QUIET, 1.0), (endless, 4.0)):
        assert at(machine.slowdown(0, 1), np.linspace(0.0, 5_000.0, 50)) == pytest.approx(factor)
        assert machine.long_run_slowdown(0, 5_000.0) == pytest.approx(factor)


def seconds_paid(slowdown: Slowdown, until_seconds: float) -> float:
    """What steps take, one after the other for that long, as a multiple of what they would take by the truth."""
    seconds, steps = 0.0, 0
    while seconds < until_seconds:
        seconds += STEP_SECONDS * slowdown(seconds)
        steps += 1
    return seconds / (steps * STEP_SECONDS)


@pytest.mark.parametrize(
    "machine",
    [replace(MACHINE, process=0.0), replace(QUIET, burst_every_seconds=20.0), replace(QUIET, own=0.3)],
    ids=["all of it", "bursts", "own"],
)
def test_a_long_run_pays_what_its_steps_take_one_after_the_other(machine: SharedMachine) -> None:
    days = statistics.fmean(machine.long_run_slowdown(seed, 7_200.0) for seed in range(12))
    paid = statistics.fmean(seconds_paid(machine.slowdown(seed, 1), 7_200.0) for seed in range(8))
    # Two hours of one day and of another differ by 0.7 %; a step that begins in a burst outlasts it a little.
    assert days == pytest.approx(paid, rel=0.02)


def test_a_longer_run_is_less_a_matter_of_luck() -> None:
    short, long = (
        statistics.stdev(math.log(MACHINE.long_run_slowdown(seed, seconds)) for seed in range(12))
        for seconds in (60.0, 6_000.0)
    )
    assert short > 4 * long > 0.0
    assert MACHINE.long_run_slowdown(1, 600.0) == MACHINE.long_run_slowdown(1, 600.0)
