"""Simulated worlds: the truth that is asked of them is the one they show."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.search.expert import expert_within
from autotune.simulation.executor import MACHINE
from autotune.simulation.workload import simulated_gpt
from autotune.simulation.worlds import DrawnWorld, best_of, draw_world, plan_seconds, same_everywhere
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.document import parse_document
from autotune.space.knobs import Choice, FloatRange, members
from autotune.trial.types import Infeasible, InfeasibleKind
from autotune.workload.gpt_knobs import KNOBS
from autotune.workload.space import SearchSpace, space_of
from autotune_model.config import TrainingConfig

TEXT = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 100_000

[plan]
tokens = 30_000_000

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
micro_batch = [4, 8, 16, 32]
global_batch = [8, 16, 32]
dtype = ["fp32", "bf16_autocast", "fp16_autocast"]
attention = ["math", "sdpa"]
compile = ["off", "default"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
schedule = ["constant", "linear", "cosine", "wsd"]
tied_head = [false, true]
"""


def read(text: str = TEXT) -> SearchSpace:
    return space_of(parse_document(text, name="simulated", source="simulated", folder=Path()), simulated_gpt)


def configuration(**knobs: Any) -> Configuration:
    return Configuration(TrainingConfig(**knobs).to_mapping())


BASELINE = configuration(micro_batch=8, global_batch=16)


def values_of(name: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(members(KNOBS[name].domain))


worlds = st.integers(0, 500).map(draw_world)
horizons = st.floats(math.log(1e4), math.log(1e9)).map(math.exp)
configs = st.builds(
    lambda times, **knobs: configuration(global_batch=times * knobs["micro_batch"], **knobs),
    times=st.integers(1, 8),
    micro_batch=st.integers(1, 64),
    dtype=values_of("dtype"),
    attention=values_of("attention"),
    compile=values_of("compile"),
    optimizer_kernel=values_of("optimizer_kernel"),
    learning_rate=st.floats(1e-4, 1e-2),
    schedule=values_of("schedule"),
    tied_head=st.booleans(),
)


def random_configs(space: SearchSpace, rng: random.Random) -> Iterator[Configuration]:
    """Configurations of the space without end, those that cannot exist left out."""
    while True:
        knobs: dict[str, Any] = {}
        for dimension in space.dimensions:
            match dimension.domain:
                case Choice(values=values):
                    knobs[dimension.knob.name] = rng.choice(values)
                case FloatRange(low=low, high=high):
                    knobs[dimension.knob.name] = math.exp(rng.uniform(math.log(low), math.log(high)))
        try:
            yield space.turned(space.baseline, knobs)
        except InvalidConfiguration:
            continue


def test_a_world_is_drawn_by_its_number() -> None:
    assert draw_world(7) == draw_world(7)
    assert len({draw_world(number).base_tokens_per_second for number in range(50)}) == 50


def test_worlds_are_of_many_kinds() -> None:
    drawn = [draw_world(number) for number in range(100)]
    for technique in ({"dtype": "bf16_autocast"}, {"attention": "sdpa"}, {"optimizer_kernel": "fused"}):
        config = BASELINE.with_values(technique)  # type: ignore[arg-type]
        gains = [w.tokens_per_second(config) / w.tokens_per_second(BASELINE) for w in drawn]
        assert min(gains) < 0.99 < 1.01 < max(gains), technique
    assert {w.obstacle(BASELINE.with_values({"micro_batch": 16, "global_batch": 16})) is None for w in drawn} == {
        True,
        False,
    }
    for config in (BASELINE.with_values({"tied_head": True}), BASELINE.with_values({"learning_rate": 5e-4})):
        better = [w.true_log_efficiency(config, BASELINE, 3e7) > 0 for w in drawn]
        assert 10 < sum(better) < 90
    assert {w.compile_seconds(BASELINE.with_values({"compile": "default"})) for w in drawn} == {20.0, 60.0}
    assert {w.loss(BASELINE.with_values({"learning_rate": 8e-3}), 100_000, 0) == math.inf for w in drawn} == {
        True,
        False,
    }


def test_a_gain_seen_in_a_short_trial_may_turn_on_the_way_to_the_plan() -> None:
    higher = BASELINE.with_values({"learning_rate": 2e-3})
    turned = 0
    for number in range(100):
        short, plan = (draw_world(number).true_log_efficiency(higher, BASELINE, tokens) for tokens in (1e5, 3e9))
        assert plan <= short, "a higher rate is never worth more in a longer run"
        turned += short > 0 > plan
    assert turned > 10


@given(worlds, configs, configs, horizons)
def test_where_all_is_the_same_nothing_makes_a_difference(
    world: DrawnWorld, one: Configuration, other: Configuration, tokens: float
) -> None:
    idle = same_everywhere(world)
    assert idle.tokens_per_second(one) == idle.tokens_per_second(other) == idle.base_tokens_per_second
    assert idle.cooled_loss(one, tokens) == idle.cooled_loss(other, tokens)
    assert idle.true_log_speedup(one, other, tokens) == 0.0
    assert math.isfinite(idle.loss(one, round(tokens), 0))
    assert idle.obstacle(one) is None


@given(worlds, configs, horizons)
def test_the_baseline_has_the_same_loss_after_as_many_tokens_as_the_efficiency_says(
    world: DrawnWorld, config: Configuration, tokens: float
) -> None:
    log_efficiency = world.true_log_efficiency(config, BASELINE, tokens)
    assert abs(log_efficiency) < 12.0
    equal = world.cooled_loss(BASELINE, tokens * math.exp(log_efficiency))
    assert equal == pytest.approx(world.cooled_loss(config, tokens), abs=1e-9)


@given(worlds, configs, horizons)
def test_a_configuration_is_worth_itself_and_a_lower_loss_is_worth_more(
    world: DrawnWorld, config: Configuration, tokens: float
) -> None:
    assert world.true_log_efficiency(config, config, tokens) == 0.0
    difference = world.cooled_loss(BASELINE, tokens) - world.cooled_loss(config, tokens)
    log_efficiency = world.true_log_efficiency(config, BASELINE, tokens)
    assert (log_efficiency > 0) == (difference > 0) or difference == pytest.approx(0.0, abs=1e-12)


def test_a_loss_out_of_the_baselines_reach_is_bounded_with_the_right_sign() -> None:
    world = DrawnWorld(
        log_efficiency={("schedule", "wsd"): 90.0, ("schedule", "constant"): -90.0}, rate_falls=0.0, batch_grows=0.0
    )
    for schedule, sign in (("wsd", 1.0), ("constant", -1.0)):
        config = BASELINE.with_values({"schedule": schedule})
        assert world.true_log_efficiency(config, BASELINE, 1e6) == pytest.approx(60.0 * sign)


@given(worlds, configs, horizons)
def test_the_speed_up_is_speed_times_efficiency_or_nothing_for_what_cannot_run(
    world: DrawnWorld, config: Configuration, tokens: float
) -> None:
    speedup = world.true_log_speedup(config, BASELINE, tokens)
    if world.obstacle(config) or config["learning_rate"] >= world.diverging_learning_rate:
        assert speedup == -math.inf
    else:
        rate = world.tokens_per_second(config) / world.tokens_per_second(BASELINE)
        equivalent = tokens * math.exp(world.true_log_efficiency(config, BASELINE, tokens))
        # Seconds the baseline needs for the same loss, over those that `config` needs.
        assert speedup == pytest.approx(math.log(equivalent / tokens * rate))


@given(worlds, horizons)
def test_the_optimal_learning_rate_falls_with_the_horizon(world: DrawnWorld, tokens: float) -> None:
    def loss(learning_rate: float, horizon: float) -> float:
        return world.cooled_loss(BASELINE.with_values({"learning_rate": learning_rate}), horizon)

    best = world.best_learning_rate * math.pow(tokens / 100_000, -world.rate_falls)
    lower = best * math.pow(10, -world.rate_falls)
    assert loss(best, tokens) < min(loss(best * 1.1, tokens), loss(best / 1.1, tokens), loss(lower, tokens))
    assert loss(lower, 10 * tokens) < loss(best, 10 * tokens)


@given(worlds, horizons, st.integers(1, 6))
def test_a_larger_batch_costs_tokens_and_less_of_them_in_a_longer_run(
    world: DrawnWorld, tokens: float, doublings: int
) -> None:
    larger = BASELINE.with_values({"global_batch": 16 * 2**doublings})

    def lost(horizon: float) -> float:
        return world.log_worth(BASELINE, horizon) - world.log_worth(larger, horizon)

    assert 0.0 < lost(10 * tokens) < lost(tokens)


@given(worlds, st.integers(0, 6))
def test_no_micro_batch_is_faster_than_that_of_the_sweet_spot(world: DrawnWorld, power: int) -> None:
    def speed(micro_batch: int) -> float:
        return world.tokens_per_second(configuration(micro_batch=micro_batch, global_batch=64))

    assert speed(2**power) <= speed(world.best_micro_batch)


@given(worlds)
def test_memory_ends_above_the_largest_micro_batch_and_low_precision_doubles_it(world: DrawnWorld) -> None:
    for dtype, room in (("fp32", world.largest_micro_batch), ("bf16_autocast", 2 * world.largest_micro_batch)):
        fits = configuration(dtype=dtype, micro_batch=room, global_batch=room)
        assert world.obstacle(fits) is None
        obstacle = world.obstacle(configuration(dtype=dtype, micro_batch=room + 1, global_batch=room + 1))
        assert isinstance(obstacle, Infeasible)
        assert obstacle.kind is InfeasibleKind.OUT_OF_MEMORY
        assert f"got {room + 1}: try {room}" in obstacle.message


@given(worlds, st.integers(10_000, 10**9), st.integers(0, 50))
def test_a_rate_that_is_too_high_diverges_and_one_below_does_not(world: DrawnWorld, tokens: int, seed: int) -> None:
    edge = world.diverging_learning_rate
    assert world.loss(BASELINE.with_values({"learning_rate": edge}), tokens, seed) == math.inf
    assert world.loss(BASELINE.with_values({"learning_rate": edge * 0.99}), tokens, seed) <= math.log(world.vocab_size)


def test_the_luck_of_a_seed_is_common_to_all_but_for_a_small_part() -> None:
    world = replace(draw_world(1), vocab_size=10**9)  # nothing is as bad as a uniform guess
    tied = BASELINE.with_values({"tied_head": True})

    def luck(config: Configuration) -> np.ndarray[Any, Any]:
        return np.array([world.loss(config, 100_000, seed) for seed in range(300)]) - world.cooled_loss(config, 100_000)

    ours, theirs = luck(BASELINE), luck(tied)
    assert np.std(ours) == pytest.approx(world.seed_luck, rel=0.2)
    assert np.std(ours - theirs) == pytest.approx(world.own_luck * math.sqrt(2), rel=0.2)
    assert abs(ours.mean()) < 0.01


def test_from_a_quarter_of_the_horizon_on_the_baseline_shows_its_truth_and_no_uniform_guess() -> None:
    """Where losses are cut, the baseline's curve is flatter than the truth, and every efficiency read off it larger."""
    cut = 0
    for world in map(draw_world, range(100)):
        highest = math.log(world.vocab_size) - 2 * world.seed_luck
        cut += any(world.cooled_loss(BASELINE, tokens) > highest for tokens in (25_000, 50_000, 100_000, 200_000))
    assert cut <= 3


@given(st.integers(0, 500), st.sampled_from((100_000, 30_000_000, 1_000_000_000)))
@settings(max_examples=15, deadline=None)
def test_the_oracle_is_not_beaten_by_any_other_configuration(number: int, tokens: int) -> None:
    world, space = draw_world(number), read()
    space = replace(space, plan=replace(space.plan, tokens=tokens))
    best = best_of(world, space)
    drawn = random_configs(space, random.Random(number))
    rivals = [space.baseline, expert_within(space, MACHINE), *(next(drawn) for _ in range(100))]
    for dimension in space.dimensions:  # the nearest are the likeliest to be better
        if isinstance(dimension.domain, Choice):
            for value in dimension.domain.values:
                try:
                    rivals.append(space.turned(best, {dimension.knob.name: value}))
                except InvalidConfiguration:
                    continue
    rivals += [
        best.with_values({"learning_rate": best["learning_rate"] * factor}) for factor in (0.8, 0.95, 1.05, 1.25)
    ]
    inside = [r for r in rivals if 3e-4 <= r["learning_rate"] <= 1e-2]
    # Rates are tried in steps of 6 %.
    assert plan_seconds(world, space, best) <= min(plan_seconds(world, space, r) for r in inside) * 1.01


def test_the_oracle_weighs_speed_against_tokens_as_the_baseline_would_have_to_pay_for_them() -> None:
    """Far from its optimal rate the baseline is worth less per token, the longer it trains: tokens come dear."""
    text = TEXT.replace("learning_rate = {", "# ").replace("[baseline]", "[baseline]\nlearning_rate = 3e-4")
    world = DrawnWorld(
        best_micro_batch=32,
        micro_batch_curvature=0.1,
        free_batch=12.0,
        learning_curvature=0.25,
        rate_falls=0.35,
        batch_grows=0.4,
        best_learning_rate=3e-3,
    )
    space = read(text)
    space = replace(space, plan=replace(space.plan, tokens=100_000))
    best = best_of(world, space)
    for micro_batch, global_batch in ((8, 8), (16, 16), (32, 32)):
        rival = best.with_values({"micro_batch": micro_batch, "global_batch": global_batch})
        assert world.true_log_speedup(rival, space.baseline, 1e5) <= world.true_log_speedup(best, space.baseline, 1e5)
