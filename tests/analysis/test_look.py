"""What the first real run decides for the others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_case import LEARNING, SPACE, case_of, learned, turned

from autotune.analysis.choice import Choice
from autotune.analysis.decision import Expected, Prospect
from autotune.analysis.look import Looked, RunEnd, compared
from autotune.quantity import Unknown

PLAN = 30_000_000


@pytest.fixture(scope="module")
def choice() -> Choice:
    """A study that expects a gain of its schedule."""
    found = Choice(case=case_of(learned(0.3)))
    assert isinstance(found.decision, Expected)
    return found


def looked(choice: Choice, difference: float) -> Looked:
    """Run 1 ends with a loss of the baseline's run and `difference`."""
    found = compared(choice, RunEnd(tokens=PLAN, loss=3.0 + difference), RunEnd(tokens=PLAN, loss=3.0))
    assert isinstance(found, Looked)
    return found


def test_a_run_that_does_better_is_kept_and_one_that_does_worse_is_not(choice: Choice) -> None:
    better, worse = looked(choice, -0.1), looked(choice, 0.1)
    assert better.is_kept
    assert better.config == turned(LEARNING)
    assert better.changes == {"schedule": "wsd"}
    assert better.shown.low > 1.0
    assert not worse.is_kept
    assert worse.config == choice.case.claimed_config == SPACE.baseline
    assert worse.shown.high < 1.0


@given(st.floats(-0.5, 0.5))
def test_the_belief_moves_towards_what_was_seen_and_narrows(difference: float) -> None:
    choice = Choice(case=case_of(learned(0.3)))
    found = looked(choice, difference)
    seen = math.log(found.shown.estimate)
    low, high = sorted((found.before.mean, seen))
    assert low - 1e-9 <= found.after.mean <= high + 1e-9
    assert found.after.sd < found.before.sd
    assert found.is_kept == (found.after.expected_cost < 1.0)


def test_runs_of_other_lengths_are_not_compared(choice: Choice) -> None:
    found = compared(choice, RunEnd(tokens=PLAN, loss=3.0), RunEnd(tokens=PLAN // 2, loss=3.1))
    assert isinstance(found, Unknown)
    assert "15,000,000" in found.reason


def test_where_nothing_is_expected_there_is_nothing_to_look_at() -> None:
    kept = Choice(case=case_of())
    found = compared(kept, RunEnd(tokens=PLAN, loss=3.0), RunEnd(tokens=PLAN, loss=3.0))
    assert isinstance(found, Unknown)


@given(st.floats(-1.0, 1.0), st.floats(0.01, 1.0), st.floats(-1.0, 1.0), st.floats(0.01, 1.0))
def test_two_normal_beliefs_combine_by_precision(mean: float, sd: float, seen: float, error: float) -> None:
    after = Prospect(mean=mean, sd=sd).given(seen, error)
    precision = 1 / sd**2 + 1 / error**2
    assert after.mean == pytest.approx((mean / sd**2 + seen / error**2) / precision, abs=1e-9)
    assert after.sd == pytest.approx(precision**-0.5, rel=1e-6)
