"""Gaussian beliefs about a linear model: closed forms, and what every measurement must do to them."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.linear import Belief
from autotune.analysis.rates import FloatArray

sizes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**32 - 1))


def drawn(size: tuple[int, int, int]) -> tuple[Belief, FloatArray, FloatArray, FloatArray]:
    """A prior of n coefficients and m measurements of them: rows, values, variances."""
    n, m, seed = size
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    prior = Belief(rng.normal(size=n), root @ root.T + 0.1 * np.eye(n))
    return prior, rng.normal(size=(m, n)), rng.normal(size=m), rng.uniform(0.01, 2.0, m)


def test_one_measurement_of_one_coefficient_is_the_conjugate_normal() -> None:
    prior = Belief(np.array([1.0]), np.array([[4.0]]))
    mean, sd = prior.given(np.array([[1.0]]), np.array([3.0]), np.array([1.0])).of(np.array([1.0]))
    assert mean == pytest.approx((1.0 / 4.0 + 3.0 / 1.0) / (1.0 / 4.0 + 1.0))
    assert sd == pytest.approx(math.sqrt(1.0 / (1.0 / 4.0 + 1.0)))


@given(sizes)
def test_measurements_add_their_precision(size: tuple[int, int, int]) -> None:
    prior, rows, values, variances = drawn(size)
    found = prior.given(rows, values, variances)
    weighted = rows.T / variances
    precision = np.linalg.inv(prior.covariance) + weighted @ rows
    mean = np.linalg.solve(precision, np.linalg.solve(prior.covariance, prior.mean) + weighted @ values)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(precision), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6, atol=1e-8)


@given(sizes, st.floats(0.1, 10.0))
def test_with_a_prior_at_zero_it_is_ridge_regression(size: tuple[int, int, int], penalty: float) -> None:
    _, rows, values, _ = drawn(size)
    n = rows.shape[1]
    found = Belief(np.zeros(n), np.eye(n) / penalty).given(rows, values, np.ones(len(values)))
    ridge = np.linalg.solve(rows.T @ rows + penalty * np.eye(n), rows.T @ values)
    np.testing.assert_allclose(found.mean, ridge, rtol=1e-6, atol=1e-8)


@given(sizes)
def test_no_measurement_widens_any_prediction(size: tuple[int, int, int]) -> None:
    prior, rows, values, variances = drawn(size)
    before, after = prior, prior.given(rows[:1], values[:1], variances[:1])
    for n in range(2, len(values) + 2):
        assert np.linalg.eigvalsh(before.covariance - after.covariance).min() >= -1e-9
        assert np.linalg.eigvalsh(after.covariance).min() >= -1e-9
        before, after = after, prior.given(rows[:n], values[:n], variances[:n])


@given(sizes, st.randoms(use_true_random=False))
def test_neither_the_order_of_measurements_nor_their_grouping_matters(
    size: tuple[int, int, int], shuffle: Random
) -> None:
    prior, rows, values, variances = drawn(size)
    at_once, one_by_one = prior.given(rows, values, variances), prior
    order = list(range(len(values)))
    shuffle.shuffle(order)
    for i in order:
        one_by_one = one_by_one.given(rows[i : i + 1], values[i : i + 1], variances[i : i + 1])
    np.testing.assert_allclose(one_by_one.mean, at_once.mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one_by_one.covariance, at_once.covariance, rtol=1e-6, atol=1e-8)


def test_without_measurements_nothing_changes() -> None:
    prior = Belief(np.array([1.0, 2.0]), np.eye(2))
    assert prior.given(np.zeros((0, 2)), np.zeros(0), np.zeros(0)) is prior
    assert prior.of(np.zeros(2)) == (0.0, 0.0)


def test_exact_measurements_are_believed_without_breaking_the_arithmetic() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    found = Belief(np.zeros(2), np.eye(2)).given(rows, np.array([2.0, 5.0, 5.0]), np.zeros(3))
    mean, sd = found.of(np.array([0.0, 1.0]))
    assert mean == pytest.approx(3.0, abs=1e-6)
    assert 0.0 <= sd < 1e-4


def test_the_misfit_of_data_from_the_model_is_their_number_on_average_and_larger_for_others() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 3))
    covariance, variances = np.diag([1.0, 0.5, 2.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    belief = Belief(np.array([1.0, -1.0, 0.5]), covariance)
    misfits, foreign = [], []
    for _ in range(2_000):
        coefficients = rng.multivariate_normal(belief.mean, covariance)
        values = rows @ coefficients + rng.normal(0.0, np.sqrt(variances))
        misfits.append(belief.misfit(rows, values, variances))
        foreign.append(belief.misfit(rows, values + rng.normal(0.0, 1.0, 5), variances))
    assert np.mean(misfits) == pytest.approx(5.0, abs=4 * math.sqrt(2 * 5 / 2_000))
    assert np.mean(foreign) > 7.0
