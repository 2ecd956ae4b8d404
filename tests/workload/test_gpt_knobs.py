"""The table that says what each knob of the built-in GPT means to a search."""

from __future__ import annotations

import re

import pytest

from autotune.space.knobs import ADOPTION_HOURS, Choice, Complexity, FloatRange, IntRange, Knob, KnobClass
from autotune.workload.gpt_knobs import KNOBS
from autotune_model.knobs import KNOBS as LEGAL


def test_the_model_and_the_search_name_the_same_knobs() -> None:
    assert list(KNOBS) == list(LEGAL)


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.name)
def test_a_row_is_whole_and_its_domain_that_of_the_model(knob: Knob) -> None:
    legal = LEGAL[knob.name]
    assert re.fullmatch(r"3\.[1-9]", knob.technique)
    assert knob.title
    assert knob.help
    assert "\n" not in knob.help
    assert knob.kind is legal.kind
    match knob.domain:
        case Choice(values=values):
            assert values == (legal.values or (False, True))
        case IntRange(low=low, high=high) | FloatRange(low=low, high=high):
            assert (low, high) == (legal.low, legal.high)
    for value in (True, "something", 1e9, -1, None, 0.5):
        assert bool(knob.problem_with(value)) == bool(legal.problem_with(value))


def test_what_a_short_trial_flatters_is_a_learning_knob() -> None:
    assert all(k.knob_class is KnobClass.LEARNING for k in KNOBS.values() if k.short_horizon_favours)


def test_a_step_of_complexity_never_costs_less_than_the_one_before() -> None:
    hours = [ADOPTION_HOURS[step] for step in Complexity]
    assert len(ADOPTION_HOURS) == len(Complexity)
    assert hours == sorted(hours)
    assert hours[0] > 0
