"""Kim and Nelson's race: the promise it makes, and what may not change its answer."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autotune.analysis.race import survivors
from autotune.analysis.rates import FloatArray

races = arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.integers(1, 4)),
    elements=st.integers(-50, 50).map(lambda i: i / 100),
)


def test_the_best_survives_with_the_promised_probability() -> None:
    rng = np.random.default_rng(0)
    leads = np.array([0.01, 0.0, 0.0, 0.0])  # least favourable: the best leads by exactly delta
    ends = []
    for _ in range(300):
        blocks = leads + rng.normal(0.0, 0.05, (250, 1)) + rng.normal(0.0, 0.01, (250, 4))
        ends.append(survivors(blocks, delta=0.01, alpha=0.1))
    assert sum(0 in end for end in ends) / 300 >= 0.9
    assert sum(end == (0,) for end in ends) / 300 >= 0.9


def test_a_clear_winner_is_found_at_the_end_of_the_first_stage() -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.01, (5, 3))
    blocks = noise + np.array([0.0, 0.5, 0.1])
    assert survivors(blocks[:4], delta=0.02, alpha=0.1) == (0, 1, 2)
    assert survivors(blocks, delta=0.02, alpha=0.1) == (1,)


def test_the_triangle_is_kim_and_nelsons() -> None:
    """Two candidates whose lead is put just inside and just outside the allowance after 5 blocks."""
    wobble = np.array([0.03, -0.03, 0.01, -0.01, 0.0])
    variance = np.var(wobble, ddof=1)
    eta = 0.5 * ((2 * 0.1) ** (-2 / 4) - 1)
    allowed = 0.02 / 2 * (2 * eta * 4 * variance / 0.02**2 - 5)
    assert allowed > 0
    for lead, end in ((allowed * 0.999, (0, 1)), (allowed * 1.001, (0,))):
        blocks = np.column_stack([wobble + lead / 5, np.zeros(5)])
        assert survivors(blocks, delta=0.02, alpha=0.1) == end


def test_ties_stay_for_the_simplest_to_win() -> None:
    assert survivors(np.zeros((50, 3)), delta=0.01, alpha=0.1) == (0, 1, 2)


def test_those_that_stopped_running_are_out_and_lost_blocks_are_left_out() -> None:
    blocks = np.random.default_rng(2).normal(0.0, 0.1, (7, 3))
    blocks[3:, 1] = np.nan
    blocks[2, 2] = math.inf
    assert survivors(blocks[:2], delta=0.01, alpha=0.1) == (0, 1, 2)
    assert survivors(blocks[:4], delta=0.01, alpha=0.1) == (0,)
    assert survivors(blocks, delta=0.01, alpha=0.1) == (0,)
    lost = np.insert(blocks[:, :1], 2, np.nan, axis=0)
    assert survivors(lost, delta=0.01, alpha=0.1) == (0,)


@pytest.mark.parametrize("shape", [(0, 3), (4, 3), (9, 1), (9, 0)])
def test_nobody_goes_before_the_first_stage_or_without_a_rival(shape: tuple[int, int]) -> None:
    assert survivors(np.zeros(shape), delta=0.01, alpha=0.1) == tuple(range(shape[1]))


def test_without_a_least_lead_nobody_goes() -> None:
    blocks = np.random.default_rng(3).normal(0.0, 0.01, (9, 2)) + np.array([1.0, 0.0])
    assert survivors(blocks, delta=0.0, alpha=0.1) == (0, 1)


@given(races, st.integers(0, 10_000))
def test_what_is_common_to_a_block_changes_nothing(blocks: FloatArray, seed: int) -> None:
    # Multiples of 1/4 stay exact, so a tie stays a tie.
    blocks = np.round(blocks * 4) / 4
    common = np.random.default_rng(seed).integers(-8, 8, (len(blocks), 1)) / 4
    assert survivors(blocks + common, delta=0.1, alpha=0.1) == survivors(blocks, delta=0.1, alpha=0.1)


@given(races)
def test_the_field_only_shrinks_and_never_to_nothing(blocks: FloatArray) -> None:
    ends = [set(survivors(blocks[:r], delta=0.05, alpha=0.1)) for r in range(len(blocks) + 1)]
    for before, after in pairwise(ends):
        assert after <= before
        assert after


@given(races)
def test_what_a_dropped_candidate_would_have_done_does_not_matter(blocks: FloatArray) -> None:
    cut = blocks.copy()
    for r in range(5, len(blocks)):
        alive = survivors(cut[:r], delta=0.05, alpha=0.1)
        gone = [i for i in range(blocks.shape[1]) if i not in alive]
        cut[r:, gone] = np.nan
    assert survivors(cut, delta=0.05, alpha=0.1) == survivors(blocks, delta=0.05, alpha=0.1)
