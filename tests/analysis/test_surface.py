"""What trials of some lengths say of the plan: how the optimum drifts, and how much doubt is left."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from drifting import BASE, PLAN_TOKENS, RATES, RUNGS, SPACE, TEXT, Truth, drifting_space, knobs, seen_in
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.analysis import priors
from autotune.analysis.priors import Prior
from autotune.analysis.surface import NOISE_SD, Seen, Surface, surface_of
from autotune.space.configuration import Configuration

AT_RATES = tuple(knobs(learning_rate=rate) for rate in RATES)
OTHERS = (knobs(schedule="wsd"), knobs(tied_head=True), knobs(global_batch=8), knobs(global_batch=32))
TRIED = (*AT_RATES, *OTHERS)
TRUTH = Truth(
    rate=-0.4, rate_drift=-0.1, others={("schedule", "wsd"): (0.10, 0.02), ("tied_head", True): (-0.10, 0.03)}
)
COMBINED = (knobs(learning_rate=RATES[0], global_batch=32), knobs(schedule="wsd", tied_head=True))
drifts = st.floats(-0.3, 0.3)


def surface(seen: list[Seen], plan_tokens: float = PLAN_TOKENS) -> Surface:
    return surface_of(SPACE, plan_tokens, seen, candidates=TRIED)


def best_rate(known: Surface, tokens: float) -> float:
    """ln of the rate over the baseline's that is expected to be the best after `tokens`."""
    logs = np.linspace(math.log(0.1), math.log(10.0), 231)
    expected = [known.at(knobs(learning_rate=1e-3 * math.exp(u)), tokens)[0] for u in logs.tolist()]
    return float(logs[int(np.argmax(expected))])


# -- the optimum and its drift -----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.5, 0.0, 0.5])
def test_the_drift_of_the_best_rate_is_followed_to_the_plan(rate: float) -> None:
    found = []
    for drift in (-0.3, -0.1, 0.1, 0.3):
        truth = Truth(rate=rate, rate_drift=drift)
        known, wanted = surface(seen_in(truth, AT_RATES, RUNGS)), truth.best_rate(PLAN_TOKENS)
        of_area = truth.area / (2 * truth.rate_curvature)  # a trial's best rate is above that of long runs
        assert best_rate(known, RUNGS[-1]) == pytest.approx(truth.best_rate(RUNGS[-1]) + of_area, abs=0.05)
        found.append(best_rate(known, PLAN_TOKENS))
        lost, gained = (truth.rate_curvature * x**2 for x in (found[-1] - wanted, wanted))
        assert lost < max(0.05, 0.55 * gained), "rates alone do not tell drift from the area"
    assert all(below + 0.2 < above for below, above in itertools.pairwise(found)), "whatever its sign"


@settings(max_examples=40, deadline=None)
@given(drifts, st.floats(-0.6, 0.6))
def test_what_the_best_rate_gains_at_the_plan_is_within_its_doubt(drift: float, rate: float) -> None:
    truth = Truth(rate=rate, rate_drift=drift)
    known = surface(seen_in(truth, AT_RATES, RUNGS[:2]))
    config = knobs(learning_rate=1e-3 * math.exp(min(max(truth.best_rate(PLAN_TOKENS), -2.3), 2.3)))
    mean, sd = known.at_plan(config)
    assert abs(truth.log_efficiency(config, PLAN_TOKENS) - mean) <= 3.0 * sd


def test_every_further_length_brings_the_best_rate_of_the_plan_closer() -> None:
    truth = Truth(rate_drift=-0.3)
    errors = [
        abs(best_rate(surface(seen_in(truth, AT_RATES, RUNGS[:count])), PLAN_TOKENS) - truth.best_rate(PLAN_TOKENS))
        for count in (1, 2, 3)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_the_best_batch_drifts_as_the_best_rate_does() -> None:
    batches = [knobs(global_batch=8), knobs(global_batch=32)]
    growing, shrinking = (surface(seen_in(Truth(batch_drift=d), batches, RUNGS)) for d in (0.4, -0.4))
    for small, large in [batches]:
        assert growing.at_plan(large)[0] > 0.1 > 0.0 > growing.at_plan(small)[0]
        assert shrinking.at_plan(small)[0] > growing.at_plan(small)[0] + 0.2
        assert shrinking.at_plan(large)[0] < growing.at_plan(large)[0] - 0.2


def test_where_learning_rates_make_no_difference_none_is_expected_at_the_plan() -> None:
    untried = surface([])
    flat = surface(seen_in(Truth(rate_curvature=0.0, area=0.0), AT_RATES, RUNGS[:2]))
    for config in AT_RATES:
        mean, sd = flat.at_plan(config)
        assert abs(mean) < 0.02
        assert sd < untried.at_plan(config)[1] / 5, "a flat surface has no optimum that could drift"


def test_a_schedule_that_stays_high_is_not_carried_to_the_plan_from_short_trials() -> None:
    constant = knobs(schedule="constant")
    known = surface([Seen(config=constant, tokens=RUNGS[0], log_efficiency=0.6)])
    assert known.at(constant, RUNGS[0])[0] == pytest.approx(0.6, abs=0.05)
    assert known.at_plan(constant)[0] < 0.0, "its gain changes sign in long runs"


# -- the area under the schedule ----------------------------------------------------------------------------


def test_what_the_area_explains_in_every_knob_is_not_carried_to_the_plan_and_other_gains_are() -> None:
    area = Truth(rate_curvature=0.0, batch_curvature=0.0, area=0.3)
    known = surface(seen_in(area, TRIED, RUNGS[:2]))
    for config in (knobs(learning_rate=1.6e-3), knobs(global_batch=8), knobs(schedule="wsd")):
        shown = area.shown(config, RUNGS[1])
        assert shown > 0.1
        assert known.at(config, RUNGS[1])[0] == pytest.approx(shown, abs=0.05)
        assert known.at_plan(config)[0] < 0.6 * shown
    tied = surface(seen_in(Truth(others={("tied_head", True): (0.3, 0.0)}), TRIED, RUNGS[:2]))
    assert tied.at_plan(knobs(tied_head=True))[0] > known.at_plan(knobs(global_batch=8))[0]


def test_the_effect_of_the_area_falls_from_length_to_length_and_by_halves_beyond_the_longest() -> None:
    known = surface(seen_in(TRUTH, TRIED, RUNGS[:2]))
    twice = knobs(learning_rate=2e-3)
    for tokens, shares in ((RUNGS[0], (1.0, 1.0)), (2 * RUNGS[0], (0.5, 1.0)), (16 * RUNGS[1], (0.0, 0.25))):
        assert known.row(twice, tokens)[-2:] == pytest.approx(np.array(shares) * math.log(2.0), abs=1e-9)
        assert known.row(BASE, tokens) == pytest.approx(0.0)


# -- doubt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*TRIED, *COMBINED])
def test_doubt_grows_with_the_distance_of_the_plan(config: Configuration) -> None:
    known = surface(seen_in(TRUTH, TRIED, RUNGS[:2]))
    of_lengths = [known.at(config, RUNGS[1] * 2.0**n)[1] for n in range(10)]
    assert all(far > near for near, far in itertools.pairwise(of_lengths))
    of_plans = [surface(seen_in(TRUTH, TRIED, RUNGS[:2]), RUNGS[1] * 4.0**n).at_plan(config)[1] for n in range(5)]
    assert all(far > near for near, far in itertools.pairwise(of_plans))


@pytest.mark.parametrize("config", [*TRIED, *COMBINED])
def test_two_lengths_leave_less_doubt_than_one_and_trials_less_than_none(config: Configuration) -> None:
    none, short, long, both = (
        surface(seen_in(TRUTH, TRIED, lengths)).at_plan(config)[1] for lengths in ((), RUNGS[:1], RUNGS[1:2], RUNGS[:2])
    )
    assert both < long < short < none


def test_measurements_that_do_not_fit_raise_the_noise_and_widen() -> None:
    def scattered(by: float) -> Surface:
        """Four runs of each trial that differ by `by` either way, with the same mean."""
        exact = seen_in(TRUTH, TRIED, RUNGS[:2])
        return surface(
            [
                replace(s, log_efficiency=s.log_efficiency + by * (-1) ** (run + place), seed=run)
                for run in range(4)
                for place, s in enumerate(exact)
            ]
        )

    exact, noisy, noisier = scattered(0.0), scattered(0.15), scattered(0.4)
    assert exact.noise_factor == 1.0
    assert 1.0 < noisy.noise_factor < noisier.noise_factor
    for config in TRIED:
        assert exact.at_plan(config)[1] < noisy.at_plan(config)[1] < noisier.at_plan(config)[1]


def test_a_measurement_of_doubtful_conversion_counts_less() -> None:
    sharp, vague = (
        surface([Seen(config=OTHERS[0], tokens=RUNGS[0], log_efficiency=0.3, variance=v)]) for v in (0.0, 0.3**2)
    )
    (sharp_mean, sharp_sd), (vague_mean, vague_sd) = (s.at(OTHERS[0], RUNGS[0]) for s in (sharp, vague))
    assert sharp_mean > vague_mean
    assert sharp_sd < vague_sd


def test_the_luck_of_the_baselines_run_is_shared_by_all_trials_of_its_length() -> None:
    def after(unlucky: float) -> Surface:
        return surface(
            [replace(s, log_efficiency=s.log_efficiency + unlucky) for s in seen_in(TRUTH, TRIED, RUNGS[:1])]
        )

    usual, unlucky = after(0.0), after(2 * NOISE_SD)
    for one, other in itertools.pairwise(TRIED):
        gaps = [s.at(one, RUNGS[0])[0] - s.at(other, RUNGS[0])[0] for s in (usual, unlucky)]
        assert gaps[0] == pytest.approx(gaps[1], abs=NOISE_SD), "it hardly changes an order"
    raised = [unlucky.at(c, RUNGS[0])[0] - usual.at(c, RUNGS[0])[0] for c in TRIED]
    assert max(raised) < 1.5 * NOISE_SD, "what all trials have in common is not theirs"


@pytest.mark.parametrize("config", TRIED)
def test_the_baseline_is_exactly_itself(config: Configuration) -> None:
    for seen in ([], seen_in(TRUTH, [config], RUNGS)):
        known = surface(seen)
        for tokens in (RUNGS[0], PLAN_TOKENS, 1e12):
            assert known.at(BASE, tokens) == (0.0, 0.0)
            assert known.at(knobs(dtype="bf16_autocast"), tokens) == (0.0, 0.0), "of other knobs it knows nothing"


@pytest.mark.parametrize("config", [*TRIED, *COMBINED, knobs(schedule="constant")])
def test_what_is_known_before_a_search_makes_no_gain_certain(config: Configuration) -> None:
    for tokens in (RUNGS[0], RUNGS[-1], PLAN_TOKENS, 1e9):
        mean, sd = surface_of(SPACE, PLAN_TOKENS, [], candidates=[config]).at(config, tokens)
        assert mean - 1.6448536 * sd < 0.0


@dataclass(frozen=True, kw_only=True)
class _World:
    """A truth drawn from what is known before a search; every slope changes at the longest trial."""

    curvatures: tuple[float, float]
    rate: Callable[[float], float]
    batch: Callable[[float], float]
    wsd: Callable[[float], float]
    tied: Callable[[float], float]

    def log_efficiency(self, config: Configuration, tokens: float) -> float:
        truth = Truth(
            rate=self.rate(tokens),
            rate_curvature=self.curvatures[0],
            batch=self.batch(tokens),
            batch_curvature=self.curvatures[1],
            others={("schedule", "wsd"): (self.wsd(tokens), 0.0), ("tied_head", True): (self.tied(tokens), 0.0)},
        )
        return truth.log_efficiency(config, RUNGS[0])


def drawn_world(rng: np.random.Generator, longest: int) -> _World:
    def line(level: Prior, slope: Prior) -> Callable[[float], float]:
        at_plan, ahead, change = (rng.normal(p.mean, p.sd) for p in (level, slope, priors.SLOPE_CHANGE))

        def at(tokens: float) -> float:
            beyond, before = math.log(tokens / PLAN_TOKENS), min(0.0, math.log(tokens / longest))
            return float(at_plan + ahead * beyond + change * before)

        return at

    curvatures = (rng.normal(p.mean, p.sd) for p in (priors.RATE_CURVATURE, priors.BATCH_CURVATURE))
    of_rate, of_batch = (max(0.02, float(k)) for k in curvatures)
    return _World(
        curvatures=(of_rate, of_batch),
        rate=line(priors.USERS_RATE, priors.RATE_SLOPE),
        batch=line(priors.USERS_BATCH, priors.BATCH_SLOPE),
        wsd=line(priors.schedule_over("wsd", "cosine"), priors.OTHER_SLOPE),
        tied=line(priors.OTHER_LEVEL, priors.OTHER_SLOPE),
    )


def test_90_per_cent_intervals_hold_about_90_per_cent_of_truths_that_are_as_expected() -> None:
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(80):
        world = drawn_world(rng, RUNGS[1])
        seen = []
        for tokens in RUNGS[:2]:
            luck = rng.normal(0.0, NOISE_SD)  # of the baseline's run
            for config in TRIED:
                value = world.log_efficiency(config, tokens) + luck + rng.normal(0.0, NOISE_SD)
                seen.append(Seen(config=config, tokens=tokens, log_efficiency=value))
        known = surface(seen)
        for config in TRIED:
            mean, sd = known.at_plan(config)
            inside.append(abs(world.log_efficiency(config, PLAN_TOKENS) - mean) < 1.6448536 * sd)
    assert 0.85 <= np.mean(inside) <= 0.95


# -- what a measurement would tell -----------------------------------------------------------------------


@pytest.mark.parametrize("config", TRIED)
@pytest.mark.parametrize("tokens", RUNGS)
def test_the_change_expected_of_a_measurement_is_what_it_takes_off_the_doubt(
    config: Configuration, tokens: int
) -> None:
    known = surface(seen_in(TRUTH, TRIED, RUNGS[:2]))
    moved = abs(float((known.row(config, PLAN_TOKENS) @ known.moved_by(config, [tokens]))[0]))
    expected = float(known.measured_row(config, tokens) @ known.belief.mean)
    measured = Seen(config=config, tokens=tokens, log_efficiency=expected)
    after = surface([*known.seen, measured])
    taken_off = math.sqrt(known.at_plan(config)[1] ** 2 - after.at_plan(config)[1] ** 2)
    if tokens in RUNGS[:2]:
        assert moved == pytest.approx(taken_off, rel=0.05, abs=5e-4)
    else:
        assert taken_off / 2 < moved < taken_off * 2, "a longer length also moves from where doubt grows"


@pytest.mark.parametrize("config", TRIED)
def test_trials_of_two_lengths_tell_more_than_either_and_no_more_than_is_unknown(config: Configuration) -> None:
    known = surface(seen_in(TRUTH, TRIED[1:4], RUNGS[:1]))
    row = known.row(config, PLAN_TOKENS)
    short, long, both = (
        float(np.linalg.norm(row @ known.moved_by(config, d))) for d in (RUNGS[:1], RUNGS[1:2], RUNGS[:2])
    )
    assert max(short, long) - 1e-9 <= both
    assert both**2 <= known.at_plan(config)[1] ** 2


@pytest.mark.parametrize("config", [knobs(schedule="wsd"), knobs(global_batch=32), knobs(learning_rate=6e-4)])
def test_the_chance_of_a_difference_is_that_of_a_normal(config: Configuration) -> None:
    known = surface(seen_in(TRUTH, TRIED[1:4], RUNGS[:1]))
    mean = float(known.measured_row(config, RUNGS[1]) @ known.belief.mean)
    certain, half, none = (known.chance_beyond(least, config, RUNGS[1]) for least in (0.0, abs(mean), 9.0))
    assert certain == pytest.approx(1.0)
    assert 0.5 <= half < 1.0, "half of it on the side of the mean, and something on the other"
    assert none == pytest.approx(0.0, abs=1e-9)


def test_a_space_without_rate_batch_or_schedule_is_a_sum_of_values() -> None:
    text = TEXT[: TEXT.index("[knobs]")] + "[knobs]\ntied_head = [false, true]\n"
    space = drifting_space(text)
    tied = space.turned(space.baseline, {"tied_head": True})
    known = surface_of(space, PLAN_TOKENS, [Seen(config=tied, tokens=d, log_efficiency=0.2) for d in RUNGS])
    assert known.at(tied, RUNGS[-1])[0] == pytest.approx(0.2, abs=0.02)
    assert 0.0 < known.at_plan(tied)[0] < 0.2
