"""Carries the uncertainty of speed, efficiency and baseline rate into savings and ROI (METHOD 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from autotune.analysis.rates import FloatArray
from autotune.recommendation import Interval, Unknown

_LARGEST_LOG_SPEEDUP = 100.0  # keeps exp finite in the far tails of t; no quantile of use lies there


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """The money side of a plan.

    `baseline_device_seconds` is R * C_0, uncertain by the factor exp(`baseline_log_sd` * normal).
    `price_per_device_second` (1/3600 where the currency is device-hours) includes energy where the user
    pays for it. `search_cost` and `adoption_cost` are in the same currency; `kilowatts` is the draw per
    device, facility included, 0 when unknown.
    """

    baseline_device_seconds: float
    baseline_log_sd: float
    price_per_device_second: float
    one_off_device_seconds: float
    search_cost: float
    adoption_cost: float
    kilowatts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the plan costs and saves.

    `plan_device_seconds` is C_w, the plan with the new configuration, its one-off costs included; savings
    are device-seconds and kWh before, `net` (currency) and `roi` after search and adoption.
    `probability_positive` is P(net > 0).
    """

    plan_device_seconds: Interval
    saved_device_seconds: Interval
    kwh: Interval | Unknown
    net: Interval
    roi: Interval | Unknown
    probability_positive: float


def forecast(
    *,
    economics: Economics,
    log_speedup_mean: float,
    log_speedup_stderr: float,
    degrees_of_freedom: float,
    level: float,
    draws: int = 20000,
    seed: int = 0,
) -> Forecast:
    """The plan's saving by Monte Carlo: ln S = mean + stderr * t, the baseline's cost lognormal about its median.

    saved = C_0 - C_0 / S - one-off; net = price * saved - search - adoption; ROI = net / (search +
    adoption). Estimates are the values at the point estimates, intervals the quantiles at `level`. An
    input that is NaN makes every figure NaN, the probability included.
    """
    rng = np.random.default_rng(seed)
    deviation = stats.t.ppf(rng.random(draws), degrees_of_freedom) * log_speedup_stderr
    log_speedup = np.clip(log_speedup_mean + deviation, -_LARGEST_LOG_SPEEDUP, _LARGEST_LOG_SPEEDUP)
    log_baseline = economics.baseline_log_sd * rng.standard_normal(draws)
    # The point estimate rides along as the first row, so that it goes through the same arithmetic.
    baseline = economics.baseline_device_seconds * np.exp(np.append(0.0, log_baseline))
    plan = baseline * np.exp(-np.append(log_speedup_mean, log_speedup)) + economics.one_off_device_seconds
    # C_0 * (1 - 1 / S) rather than a difference: small savings keep their digits.
    saved = baseline * -np.expm1(-np.append(log_speedup_mean, log_speedup)) - economics.one_off_device_seconds
    spent = economics.search_cost + economics.adoption_cost
    net = economics.price_per_device_second * saved - spent
    kilowatts = economics.kilowatts
    return Forecast(
        plan_device_seconds=_interval(plan, level),
        saved_device_seconds=_interval(saved, level),
        kwh=_interval(saved * kilowatts / 3600, level) if kilowatts > 0 else Unknown(reason="the power is not known"),
        net=_interval(net, level),
        roi=_interval(net / spent, level) if spent > 0 else Unknown(reason="nothing was spent"),
        probability_positive=math.nan if np.isnan(net).any() else float(np.mean(net[1:] > 0)),
    )


def _interval(values: FloatArray, level: float) -> Interval:
    """The first value as estimate, the quantiles of the others as interval."""
    low, high = np.quantile(values[1:], ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate=float(values[0]), low=float(low), high=float(high), level=level)
