"""The families of worlds: each contradicts the others where it says it does."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.simulation.families import Family, RegimeWorld, draw
from autotune.simulation.workload import simulated_gpt
from autotune.simulation.worlds import best_of, plan_seconds
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.workload.space import SearchSpace, space_of
from autotune_model.config import default_knobs

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
global_batch = [8, 16, 32]
attention = ["math", "sdpa"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
schedule = ["constant", "linear", "cosine", "wsd"]
"""
BASELINE = Configuration(default_knobs()).with_values({"micro_batch": 8, "global_batch": 16})
SHORT, LONG = 1e5, 3e7
SEEDS = range(12)


def space() -> SearchSpace:
    return space_of(parse_document(TEXT, name="s", source="s", folder=Path()), simulated_gpt)


def best_rate(family: Family, seed: int, tokens: float) -> float:
    """ln of the best learning rate of the baseline's batch, off a grid."""
    world = draw(family, seed)
    rates = [math.exp(-9.0 + 0.02 * i) for i in range(350)]
    return math.log(min(rates, key=lambda r: world.cooled_loss(BASELINE.with_values({"learning_rate": r}), tokens)))


def slope(family: Family, seed: int, start: float, end: float) -> float:
    return (best_rate(family, seed, end) - best_rate(family, seed, start)) / math.log(end / start)


def rated(family: Family, seed: int, **knobs: object) -> tuple[float, float]:
    """ln of true efficiency over the baseline, in short trials and in long runs."""
    world = draw(family, seed)
    config = BASELINE.with_values(knobs)  # type: ignore[arg-type]
    return tuple(world.true_log_efficiency(config, BASELINE, d) for d in (SHORT, LONG))  # type: ignore[return-value]


@pytest.mark.parametrize("family", Family)
def test_a_world_is_the_same_every_time_and_its_loss_falls(family: Family) -> None:
    for seed in SEEDS:
        world = draw(family, seed)
        assert world == draw(family, seed)
        losses = [world.cooled_loss(BASELINE, 10.0**decade) for decade in range(5, 12)]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] > world.irreducible
        assert world.true_log_efficiency(BASELINE, BASELINE, LONG) == 0.0
        assert not world.diverges(BASELINE, LONG)


@pytest.mark.parametrize("family", Family)
def test_equal_quality_is_equal_loss(family: Family) -> None:
    world = draw(family, 3)
    config = BASELINE.with_values({"schedule": "linear", "learning_rate": 1.3e-3})
    log_efficiency = world.true_log_efficiency(config, BASELINE, LONG)
    there = world.cooled_loss(BASELINE, LONG * math.exp(log_efficiency))
    assert there == pytest.approx(world.cooled_loss(config, LONG), abs=1e-6)


def test_the_optimum_falls_in_the_powers_rises_in_the_reversed_and_stays_where_nothing_is_learned() -> None:
    for seed in SEEDS:
        assert slope(Family.POWERS, seed, 1e6, 1e8) < -0.1
        assert slope(Family.REVERSED, seed, 1e6, 1e8) > 0.1
    assert rated(Family.NOTHING_LEARNED, 1, learning_rate=5e-3, schedule="constant", global_batch=8) == (0.0, 0.0)


def test_in_the_regimes_the_slope_depends_on_the_batch_over_the_best_batch() -> None:
    for seed in SEEDS:
        world = draw(Family.REGIMES, seed)
        assert isinstance(world, RegimeWorld)
        small, large = (BASELINE.with_values({"micro_batch": 1, "global_batch": b}) for b in (1, 4_096))
        falling = world.log_best_rate_of(small, 2e8) - world.log_best_rate_of(small, 1e8)
        rising = world.log_best_rate_of(large, 2e6) - world.log_best_rate_of(large, 1e6)
        assert falling / math.log(2) == pytest.approx(-0.31, abs=0.01)
        assert rising / math.log(2) == pytest.approx(0.18, abs=0.01)


def test_the_best_batch_grows_with_the_token_budget() -> None:
    for seed in SEEDS:
        drawn = draw(Family.REGIMES, seed)
        assert isinstance(drawn, RegimeWorld)
        world = replace(drawn, starved_steps=0.0)

        def best(tokens: float, world: RegimeWorld = world) -> int:
            def loss(batch: int) -> float:
                config = BASELINE.with_values({"micro_batch": 1, "global_batch": batch})
                rate = math.exp(world.log_best_rate_of(config, tokens))
                return world.cooled_loss(config.with_values({"learning_rate": rate}), tokens)

            return min((2**i for i in range(14)), key=loss)

        assert best(1e9) > best(1e7)
        assert best(1e9) * 128 == pytest.approx(math.exp(world.log_best_batch(1e9)), rel=0.6)


def test_starved_trials_reward_area_and_long_runs_do_not() -> None:
    for seed in SEEDS:
        short, long = rated(Family.STARVED, seed, schedule="constant")
        assert short > 0.2, "constant has twice the area of cosine"
        assert long < 0.0


def test_a_wall_stands_above_the_optimum() -> None:
    world = draw(Family.REGIMES, 2)
    assert isinstance(world, RegimeWorld)
    edge = math.exp(world.log_best_rate_of(BASELINE, LONG) + world.wall)
    assert world.diverges(BASELINE.with_values({"learning_rate": edge * 1.01}), LONG)
    assert not world.diverges(BASELINE.with_values({"learning_rate": edge * 0.99}), LONG)
    assert math.isinf(world.loss(BASELINE.with_values({"learning_rate": edge * 1.01}), int(LONG), 0))


@pytest.mark.parametrize("family", Family)
def test_nobody_beats_the_oracle(family: Family) -> None:
    asked = space()
    for seed in range(3):
        world = draw(family, seed)
        oracle = plan_seconds(world, asked, best_of(world, asked))
        for knobs in ({}, {"schedule": "wsd"}, {"global_batch": 32}, {"learning_rate": 2e-3}, {"attention": "sdpa"}):
            assert oracle <= plan_seconds(world, asked, BASELINE.with_values(knobs)) * (1 + 1e-3)
