"""The ladder: how long its rungs are, which trial is worth its cost, and what is best for the plan."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from drifting import BASE, PLAN_TOKENS, RATES, RUNGS, SPACE, TEXT, Truth, drifting_space, knobs, ladder_of, seen_in
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.analysis.ladder import longest_rung, rungs_between, value_of_measuring
from autotune.analysis.surface import Seen, surface_of
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue

AT_RATES = tuple(knobs(learning_rate=rate) for rate in RATES)
OTHERS = (knobs(schedule="wsd"), knobs(tied_head=True), knobs(global_batch=8), knobs(global_batch=32))
TRIED = (*AT_RATES, *OTHERS)
GAINS = Truth(rate=0.6, others={("schedule", "wsd"): (0.30, 0.02), ("tied_head", True): (0.25, 0.0)})
RUNS_OF_RUNGS = {RUNGS[first:end] for first in range(3) for end in range(first + 1, 4)}
differences, sds = st.floats(-2.0, 2.0), st.just(0.0) | st.floats(1e-6, 2.0)
efficiencies = st.lists(st.floats(-0.8, 0.8), min_size=len(TRIED), max_size=len(TRIED))


def share_of_plan(_: Configuration, tokens: int) -> float:
    """The cost of a trial, over that of ten runs of the plan."""
    return tokens / (10 * PLAN_TOKENS)


def free(_: Configuration, __: int) -> float:
    return 0.0


def measured(values: list[float], lengths: tuple[int, ...] = RUNGS[:1]) -> list[Seen]:
    """Those values for each configuration tried, at every length."""
    return [
        Seen(config=config, tokens=tokens, log_efficiency=value)
        for tokens in lengths
        for config, value in zip(TRIED, values, strict=True)
    ]


# -- lengths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "least", "most"), [(1, 85, 267), (10, 14, 40), (100, 3, 7)])
def test_the_longest_trial_is_as_far_from_the_plan_as_the_method_says(runs: int, least: float, most: float) -> None:
    assert least <= PLAN_TOKENS / longest_rung(PLAN_TOKENS, runs) <= most  # docs/method.md, 9.6


@given(st.integers(1, 500), st.floats(1e5, 1e12))
def test_the_longest_trial_minimises_its_cost_and_what_drift_costs(runs: int, plan_tokens: float) -> None:
    rho = plan_tokens / longest_rung(plan_tokens, runs)
    wanted = 6 / (2 * runs * 0.2 * 0.15**2)  # rho * ln(rho): the derivative is zero
    assert rho / 1.1 * math.log(rho / 1.1) <= wanted * 1.01
    assert rho * 1.1 * math.log(rho * 1.1) >= wanted * 0.99
    assert longest_rung(plan_tokens, runs + 1) >= longest_rung(plan_tokens, runs)


@given(st.floats(1e3, 1e7), st.floats(1.0, 1e5))
def test_neighbouring_rungs_are_a_factor_of_four_apart_up_to_the_longest(shortest: float, reach: float) -> None:
    rungs = rungs_between(shortest, shortest * reach)
    assert rungs[-1] == int(shortest * reach)
    assert 1 <= len(rungs) <= 3
    assert all(longer / shorter == pytest.approx(4.0, rel=0.01) for shorter, longer in pairwise(rungs))
    assert rungs[0] >= shortest / 4**0.25 - 1, "not much shorter than the shortest"
    assert len(rungs) == 3 or rungs[0] <= shortest * 4**0.75


def test_where_the_longest_is_below_the_shortest_there_is_one() -> None:
    assert rungs_between(100_000, 20_000) == (100_000,)


# -- the value of a measurement -----------------------------------------------------------------------------


@given(differences, st.floats(1e-3, 2.0))
def test_the_value_of_measuring_is_what_may_be_gained_by_choosing_after_it(difference: float, sd: float) -> None:
    z = np.linspace(-9.0, 9.0, 6_001)
    weights = np.exp(-(z**2) / 2)
    integral = float(weights @ np.maximum(0.0, difference + sd * z) / weights.sum())
    assert value_of_measuring(difference, sd) == pytest.approx(integral, abs=1e-5)


@given(differences, sds, sds)
def test_it_is_never_below_a_lead_and_grows_with_what_the_measurement_moves(
    difference: float, one: float, other: float
) -> None:
    less, more = sorted((one, other))
    assert max(0.0, difference) <= value_of_measuring(difference, less) <= value_of_measuring(difference, more) + 1e-12


@given(differences)
def test_a_measurement_that_moves_nothing_is_worth_a_lead_and_no_more(difference: float) -> None:
    assert value_of_measuring(difference, 0.0) == max(0.0, difference)


# -- the pick ---------------------------------------------------------------------------------------------------


def test_without_trials_the_pick_is_the_baseline() -> None:
    assert ladder_of(candidates=TRIED).pick == BASE


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-0.12, 0.12), min_size=len(TRIED), max_size=len(TRIED)), st.sampled_from([RUNGS[:1], RUNGS[:2]])
)
def test_trials_of_no_effect_beyond_noise_leave_the_baseline(values: list[float], lengths: tuple[int, ...]) -> None:
    assert ladder_of(measured(values, lengths), candidates=TRIED).pick == BASE


def test_gains_at_every_length_are_picked_together_and_lead_at_the_plan() -> None:
    ladder = ladder_of(seen_in(GAINS, TRIED, RUNGS), candidates=TRIED)
    pick = ladder.pick
    assert (pick["schedule"], pick["tied_head"]) == ("wsd", True)
    assert math.log(float(pick["learning_rate"]) / 1e-3) == pytest.approx(0.6, abs=0.4)
    assert ladder.expected_log_cost(pick) < 0.0
    assert GAINS.log_efficiency(pick, PLAN_TOKENS) > 0.5


def test_the_pick_keeps_the_system_knobs_that_trials_run_on() -> None:
    base = knobs(dtype="bf16_autocast")
    seen = seen_in(GAINS, [c.with_values({"dtype": "bf16_autocast"}) for c in TRIED], RUNGS)
    assert ladder_of(base=base).pick == base
    pick = ladder_of(seen, base=base, candidates=TRIED).pick
    assert pick["dtype"] == "bf16_autocast"
    assert pick["schedule"] == "wsd"


@settings(max_examples=40, deadline=None)
@given(efficiencies, st.sampled_from([RUNGS[:1], RUNGS[:2]]))
def test_nothing_supported_is_expected_to_cost_less_than_the_pick_by_one_change(
    values: list[float], lengths: tuple[int, ...]
) -> None:
    ladder = ladder_of(measured(values, lengths), candidates=TRIED)
    pick, cost = ladder.pick, ladder.expected_log_cost(ladder.pick)
    assert ladder.is_supported(pick)
    assert cost <= 0.0
    changes: list[tuple[str, KnobValue]] = [
        *(("schedule", schedule) for schedule in ("cosine", "wsd")),
        *(("tied_head", tied) for tied in (False, True)),
        *(("global_batch", batch) for batch in (8, 16, 32)),
    ]
    for name, value in changes:
        other = pick.with_values({name: value})
        assert not ladder.is_supported(other) or cost <= ladder.expected_log_cost(other)


def test_as_many_knobs_are_picked_as_gain() -> None:
    more = "[knobs]\nbeta2 = [0.95, 0.99]\nclip_norm = [0.0, 1.0]\nwarmup_fraction = [0.0, 0.05]\n"
    space = drifting_space(TEXT.replace("[knobs]\n", more))
    changes: dict[str, KnobValue] = {
        "beta2": 0.99,
        "clip_norm": 0.0,
        "warmup_fraction": 0.0,
        "tied_head": True,
        "schedule": "wsd",
    }
    seen = tuple(
        Seen(config=space.turned(space.baseline, {name: value}), tokens=tokens, log_efficiency=0.3)
        for tokens in RUNGS
        for name, value in changes.items()
    )
    ladder = ladder_of(seen, surface=surface_of(space, PLAN_TOKENS, seen), base=space.baseline)
    best = space.turned(space.baseline, changes)
    assert ladder.is_supported(best)
    assert ladder.expected_log_cost(ladder.pick) <= ladder.expected_log_cost(best)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_value_tried_without_a_difference_is_not_picked_and_only_tried_again_for_longer(count: int) -> None:
    truth = Truth(rate_curvature=0.0, batch_curvature=0.0, others={("schedule", "wsd"): (0.3, 0.0)}, area=0.0)
    ladder = ladder_of(seen_in(truth, TRIED, RUNGS[:count]), candidates=TRIED)
    assert ladder.pick == knobs(schedule="wsd")
    options = [option for option in ladder.options(free) if set(SPACE.changed(option.config)) - {"schedule"}]
    assert bool(options) == (count < 3), "rate, batch and tied embeddings made none so far"
    assert all(option.lengths[0] >= RUNGS[count] for option in options)


@settings(max_examples=40, deadline=None)
@given(efficiencies, st.sampled_from([RUNGS[:1], RUNGS[:2]]))
def test_nothing_that_measurements_speak_against_is_picked(values: list[float], lengths: tuple[int, ...]) -> None:
    ladder = ladder_of(measured(values, lengths), candidates=TRIED)
    assert ladder.sceptical.at_plan(ladder.pick)[0] >= -0.1


def test_what_is_expected_of_the_plan_does_not_outweigh_the_only_length_measured() -> None:
    worse = [Seen(config=knobs(schedule="wsd"), tokens=RUNGS[0], log_efficiency=-0.2)]
    ladder = ladder_of(worse, candidates=TRIED)
    assert ladder.surface.at_plan(knobs(schedule="wsd"))[0] > 0.0
    assert ladder.pick == BASE


def test_what_a_batch_gains_in_speed_counts() -> None:
    truth = Truth(batch=0.8)
    seen = seen_in(truth, TRIED, RUNGS[:2])
    small = knobs(global_batch=8)

    def faster(config: Configuration) -> float:
        return 0.8 * (config["global_batch"] == 8)

    assert truth.log_efficiency(small, RUNGS[0]) < -0.2
    assert ladder_of(seen, candidates=TRIED).pick["global_batch"] != 8
    assert ladder_of(seen, candidates=TRIED, log_speed=faster).pick["global_batch"] == 8


# -- rates that are safe --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 3.0), st.floats(0.0, 0.3), st.sampled_from([RUNGS[:1], RUNGS[:2]]))
def test_no_rate_above_the_highest_stable_one_is_picked(rate: float, drift: float, lengths: tuple[int, ...]) -> None:
    truth = Truth(rate=rate, rate_drift=drift)
    pick = ladder_of(seen_in(truth, AT_RATES, lengths), candidates=TRIED).pick
    assert float(pick["learning_rate"]) <= max(RATES)


@settings(max_examples=40, deadline=None)
@given(st.floats(-3.0, -0.5), st.floats(-0.3, 0.0))
def test_no_rate_far_below_the_lowest_tried_is_picked(rate: float, drift: float) -> None:
    truth = Truth(rate=rate, rate_drift=drift, area=0.0)
    pick = ladder_of(seen_in(truth, AT_RATES, RUNGS[:2]), candidates=TRIED).pick
    assert min(RATES) / 2 <= float(pick["learning_rate"]) < float(BASE["learning_rate"])


@settings(max_examples=40, deadline=None)
@given(st.floats(1.45e-3, 9e-3), st.floats(0.5, 3.0))
def test_no_rate_near_one_that_diverged_is_picked_or_tried(diverged: float, rate: float) -> None:
    stable = [c for c in AT_RATES if float(c["learning_rate"]) < diverged]
    seen = seen_in(Truth(rate=rate), [*stable, *OTHERS], RUNGS[:2])
    ladder = ladder_of(seen, candidates=TRIED, failed=[knobs(learning_rate=diverged, schedule="wsd")])
    for config in (ladder.pick, *(option.config for option in ladder.options(free))):
        assert float(config["learning_rate"]) * 1.4 <= diverged


def test_a_configuration_that_failed_at_a_lower_rate_is_not_tried_again_but_others_are() -> None:
    failed = knobs(learning_rate=6e-4, tied_head=True)
    ladder = ladder_of(candidates=[failed, *TRIED], failed=[failed])
    tried = {option.config for option in ladder.options(free)}
    assert failed not in tried
    assert {knobs(learning_rate=6e-4), knobs(tied_head=True)} <= tried


@pytest.mark.parametrize(("own", "diverged"), [(1.23e-3, 1.72e-3), (1e-3, 1.2e-3)])
def test_the_baselines_rate_stays_safe_whatever_diverged_above_it(own: float, diverged: float) -> None:
    space = drifting_space(TEXT.replace("learning_rate = 1e-3", f"learning_rate = {own}", 1))
    better = space.turned(space.baseline, {"schedule": "wsd"})
    seen = tuple(Seen(config=better, tokens=tokens, log_efficiency=0.3) for tokens in RUNGS[:2])
    failed = space.turned(space.baseline, {"learning_rate": diverged})
    ladder = ladder_of(seen, surface=surface_of(space, PLAN_TOKENS, seen), base=space.baseline, failed=[failed])
    assert ladder.is_supported(space.baseline), "it was trained with"
    assert ladder.pick == better


# -- the next trial --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(efficiencies, st.sampled_from([(), RUNGS[:1], RUNGS[:2]]), st.floats(0.0, 300.0))
def test_options_are_worth_their_cost_best_ratio_first_and_climb_rung_by_rung(
    values: list[float], lengths: tuple[int, ...], dear: float
) -> None:
    ladder = ladder_of(measured(values, lengths), candidates=TRIED)

    def cost(config: Configuration, tokens: int) -> float:
        return dear * share_of_plan(config, tokens)

    options = ladder.options(cost)
    assert all(option.gain > option.cost == sum(cost(option.config, t) for t in option.lengths) for option in options)
    assert all(one.cost * other.gain <= other.cost * one.gain + 1e-12 for one, other in pairwise(options))
    assert {option.lengths[0] for option in options} <= set(RUNGS[: len(lengths) + 1])
    assert all(option.lengths in RUNS_OF_RUNGS for option in options), "neighbouring rungs, shortest first"
    assert len({(option.config, option.lengths) for option in options}) == len(options)


@settings(max_examples=40, deadline=None)
@given(efficiencies, st.sampled_from([RUNGS[:1], RUNGS[:2]]))
def test_nothing_is_tried_twice_nor_a_rate_next_to_one_that_was(values: list[float], lengths: tuple[int, ...]) -> None:
    ladder = ladder_of(measured(values, lengths), candidates=TRIED)
    for option in ladder.options(free):
        assert option.config != BASE
        for config, tokens in ladder.tried:
            if tokens in option.lengths:
                assert config != option.config
                if set(config.difference(option.config)) == {"learning_rate"}:
                    rates = (float(c["learning_rate"]) for c in (config, option.config))
                    assert abs(math.log(next(rates) / next(rates))) >= 0.25


def test_a_first_trial_of_every_candidate_is_an_option() -> None:
    options = ladder_of(candidates=TRIED).options(share_of_plan)
    assert set(TRIED) <= {option.config for option in options}
    assert {option.lengths[0] for option in options} == {RUNGS[0]}


def test_starved_trials_count_as_measured_so_that_the_ladder_goes_on_to_longer_ones() -> None:
    surface = surface_of(SPACE, PLAN_TOKENS, [], candidates=TRIED, first_tokens=RUNGS[0])
    uninformed = ladder_of(seen_in(GAINS, TRIED, RUNGS[:1]), surface=surface)
    assert uninformed.pick == BASE
    assert {option.lengths[0] for option in uninformed.options(free) if option.config in TRIED} == {RUNGS[1]}


def test_where_every_trial_costs_more_than_it_may_gain_there_are_none() -> None:
    for lengths in ((), RUNGS[:1], RUNGS[:2]):
        ladder = ladder_of(seen_in(GAINS, TRIED, lengths), candidates=TRIED)
        assert ladder.options(lambda _, __: 1.0) == []


def test_a_longer_plan_makes_longer_trials_worth_it() -> None:
    def longest(runs: int) -> int:
        ladder = ladder_of(seen_in(GAINS, TRIED, RUNGS[:2]), candidates=TRIED)
        options = ladder.options(lambda _, tokens: tokens / (runs * PLAN_TOKENS))
        return max((option.lengths[-1] for option in options), default=0)

    assert longest(10) == RUNGS[2]
    assert longest(1) <= longest(10)


def test_trials_without_effect_leave_less_to_gain_from_the_next() -> None:
    nothing = [0.0] * len(TRIED)
    most = [
        max((option.gain for option in ladder_of(seen, candidates=TRIED).options(free)), default=0.0)
        for seen in ([], measured(nothing))
    ]
    assert most[1] < most[0]


def test_only_a_trial_that_tries_a_value_is_credited_with_its_lead_as_far_as_it_may_show_it() -> None:
    ladder = ladder_of(candidates=TRIED)
    gains = {option.config: option.gain for option in ladder.options(free)}
    lead = -ladder.expected_log_cost(knobs(schedule="wsd"))
    assert lead > 0.1, "schedules that decay are expected to gain"
    assert lead / 2 < gains[knobs(schedule="wsd")] < 2 * lead
    assert gains[knobs(tied_head=True)] < lead / 2


def test_what_failed_is_no_reason_to_try_something_else() -> None:
    ladder = ladder_of(candidates=TRIED, failed=[knobs(schedule="wsd")])
    assert all(option.gain < 0.1 for option in ladder.options(free))
