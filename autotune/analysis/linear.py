"""Gaussian beliefs about the coefficients of a linear model, and what a measurement would change. Pure.

(Bayesian linear regression: Rasmussen & Williams 2006, 2.1; value of a measurement: Frazier et al. 2009.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autotune.analysis.rates import FloatArray

_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """`mean`, shape (n,), and `covariance`, shape (n, n), of the coefficients."""

    mean: FloatArray
    covariance: FloatArray

    def given(self, rows: FloatArray, values: FloatArray, variances: FloatArray) -> Belief:
        """After the measurements `values` of `rows @ coefficients`, each with its noise variance; rows (m, n)."""
        if not len(values):
            return self
        gain = self.covariance @ rows.T
        total = rows @ gain + np.diag(np.maximum(variances, _LEAST_VARIANCE))
        solved = np.linalg.solve(total, gain.T).T
        covariance = self.covariance - solved @ gain.T
        return Belief(self.mean + solved @ (values - rows @ self.mean), (covariance + covariance.T) / 2)

    def misfit(self, rows: FloatArray, values: FloatArray, variances: FloatArray) -> float:
        """Squared residuals of measurements under this belief, in units of their expected variance; summed."""
        off = values - rows @ self.mean
        total = rows @ self.covariance @ rows.T + np.diag(np.maximum(variances, _LEAST_VARIANCE))
        return float(off @ np.linalg.solve(total, off))

    def of(self, row: FloatArray) -> tuple[float, float]:
        """Mean and standard deviation of `row @ coefficients`."""
        return float(row @ self.mean), math.sqrt(max(0.0, float(row @ self.covariance @ row)))
