"""System knobs as a sum of effects: what trials of each say of all together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.additive import Additive
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue

CENTRE = Configuration({"attention": "math", "dtype": "fp32", "threads": 1, "learning_rate": 1e-3})
NAMES = ("attention", "dtype", "threads")
EFFECTS: Mapping[tuple[str, KnobValue], float] = {
    ("attention", "sdpa"): 0.20,
    ("dtype", "bf16"): 0.40,
    ("dtype", "fp16"): 0.30,
    ("threads", 2): -0.30,
    ("threads", 4): 0.10,
}
effects = st.dictionaries(st.sampled_from(sorted(EFFECTS, key=str)), st.floats(-0.5, 0.5), min_size=1)


def turned(**values: KnobValue) -> Configuration:
    return CENTRE.with_values(values)


def true_score(config: Configuration, truth: Mapping[tuple[str, KnobValue], float] = EFFECTS) -> float:
    return sum(effect for (name, value), effect in truth.items() if config[name] == value)


def one_at_a_time(truth: Mapping[tuple[str, KnobValue], float] = EFFECTS) -> dict[Configuration, float]:
    """The scores of the centre and of every value alone."""
    configs = [CENTRE, *(turned(**{name: value}) for name, value in truth)]
    return {config: true_score(config, truth) for config in configs}


def additive(scores: Mapping[Configuration, float]) -> Additive:
    return Additive(centre=CENTRE, scores=scores, names=NAMES)


def test_main_effects_are_recovered_and_add_up() -> None:
    belief = additive(one_at_a_time())
    for attention, dtype, threads in itertools.product(("math", "sdpa"), ("fp32", "bf16", "fp16"), (1, 2, 4)):
        config = turned(attention=attention, dtype=dtype, threads=threads)
        mean, sd = belief.of(config)
        assert mean == pytest.approx(true_score(config), abs=0.06)
        assert sd < 0.125
        assert abs(mean - true_score(config)) <= 2 * sd


def test_effects_are_told_apart_where_no_knob_was_tried_alone() -> None:
    pairs = [
        turned(attention="sdpa", dtype="bf16"),
        turned(attention="sdpa", threads=4),
        turned(dtype="bf16", threads=4),
        CENTRE,
    ]
    belief = additive({config: true_score(config) for config in pairs})
    for config in (turned(attention="sdpa"), turned(dtype="bf16"), turned(attention="sdpa", dtype="bf16", threads=4)):
        assert belief.of(config)[0] == pytest.approx(true_score(config), abs=0.05)


def test_the_best_value_of_each_knob_is_the_fastest_tried_and_none_where_none_is_faster() -> None:
    assert additive(one_at_a_time()).best_values() == {"attention": "sdpa", "dtype": "bf16", "threads": 4}
    slower = {turned(threads=2): -0.3, CENTRE: 0.0}
    assert additive(slower).best_values() == {}
    assert additive({}).best_values() == {}


@given(effects)
def test_the_best_values_together_are_expected_to_be_the_fastest(truth: dict[tuple[str, KnobValue], float]) -> None:
    belief = additive(one_at_a_time(truth))
    best, _ = belief.of(turned(**belief.best_values()))
    assert all(best >= belief.of(config)[0] - 1e-9 for config in one_at_a_time(truth))


def test_a_value_that_was_not_tried_may_do_anything() -> None:
    belief = additive({CENTRE: 0.0, turned(dtype="bf16"): 0.4})
    centre, _ = belief.of(CENTRE)
    tried, untried = belief.of(turned(dtype="bf16")), belief.of(turned(threads=4))
    assert untried[0] == pytest.approx(centre)
    assert untried[1] == pytest.approx(0.25, abs=0.01)
    assert tried[1] < 0.1
    both = belief.of(turned(attention="sdpa", threads=4))
    assert both[1] == pytest.approx(0.25 * math.sqrt(2.0), abs=0.01)


def test_knobs_that_are_not_its_own_change_nothing() -> None:
    belief = additive(one_at_a_time())
    assert belief.of(turned(learning_rate=1e-2, dtype="bf16")) == belief.of(turned(dtype="bf16"))


def test_the_luck_of_the_process_that_all_are_measured_against_is_no_gain() -> None:
    lucky = dict.fromkeys(one_at_a_time(dict.fromkeys(EFFECTS, 0.0)), 0.05)
    assert max(additive(lucky).of(config)[0] for config in lucky) < 0.03


def test_a_combination_that_is_not_the_sum_of_its_values_is_believed_as_measured() -> None:
    both = turned(attention="sdpa", dtype="bf16")
    expected = additive(one_at_a_time()).of(both)[0]
    for rest in (-0.15, 0.15):
        seen = additive(one_at_a_time() | {both: true_score(both) + rest})
        assert abs(seen.of(both)[0] - expected - rest) < abs(seen.of(both)[0] - expected)


@given(effects)
def test_one_over_another_is_the_difference_and_known_better_than_apart(
    truth: dict[tuple[str, KnobValue], float],
) -> None:
    belief = additive(one_at_a_time(truth))
    one, other = turned(attention="sdpa", threads=4), turned(attention="sdpa")
    mean, sd = belief.over(one, other)
    assert mean == pytest.approx(belief.of(one)[0] - belief.of(other)[0])
    assert belief.over(other, one) == (pytest.approx(-mean), pytest.approx(sd))
    assert belief.over(one, one)[1] <= 0.05
    assert sd <= math.hypot(belief.of(one)[1], belief.of(other)[1]) + 1e-9


def test_where_no_value_makes_a_difference_little_is_expected_of_the_next() -> None:
    nothing = additive(one_at_a_time(dict.fromkeys(EFFECTS, 0.0)))
    something = additive(one_at_a_time())
    untried = turned(threads=8)
    assert nothing.of(untried)[1] < 0.75 * something.of(untried)[1]
    assert nothing.moved_by_measuring(untried) < something.moved_by_measuring(untried)


def test_measuring_moves_less_what_was_measured_and_less_than_all_its_doubt() -> None:
    config = turned(dtype="bf16")
    before, after = additive({CENTRE: 0.0}), additive({CENTRE: 0.0, config: 0.4})
    assert after.moved_by_measuring(config) < before.moved_by_measuring(config) / 2
    for belief in (before, after):
        assert 0.0 < belief.moved_by_measuring(config) < belief.of(config)[1]
    beside = turned(dtype="bf16", attention="sdpa")
    assert after.moved_by_measuring(beside) < before.moved_by_measuring(beside), "its parts are known better"
