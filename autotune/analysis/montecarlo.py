"""Propagates the uncertainty of speed, efficiency and baseline rate to savings and ROI (docs/method.md, 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from autotune.analysis.power import Power
from autotune.analysis.rates import FloatArray
from autotune.quantity import Interval, Unknown

_LARGEST_LOG = 100.0  # keeps exp finite in the far tails of t, beyond all quantiles used
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """The costs of a plan.

    `baseline_device_seconds` is R * C_0, uncertain by the factor exp(`baseline_log_sd` * normal).
    `device_price_per_second` (1/3600 if the currency is device-hours) excludes energy; `kwh_price` is added to
    it, and is 0 if the user does not pay for energy separately. `adoption_cost` is in the same currency. `pue` is
    facility energy over device energy.
    """

    baseline_device_seconds: float
    baseline_log_sd: float
    device_price_per_second: float
    kwh_price: float
    pue: float
    power: Power | Unknown
    one_off_device_seconds: float
    search_device_seconds: float
    adoption_cost: float

    @property
    def price_per_device_second(self) -> float:
        """The baseline's price per device-second, including energy if it is known and paid for."""
        if isinstance(self.power, Unknown):
            return self.device_price_per_second
        kwh_per_second = self.pue * math.exp(self.power.baseline.estimate) / _JOULES_PER_KWH
        return self.device_price_per_second + self.kwh_price * kwh_per_second

    @property
    def search_cost(self) -> float:
        """The cost of the search at the baseline's price."""
        return self.search_device_seconds * self.price_per_device_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the plan costs and saves.

    `plan_device_seconds` is C_w, the plan with the new configuration, including one-off costs.
    `saved_device_seconds` is before the cost of the search, `kwh` net of it; `net` (currency) and `roi` are net of
    search and adoption. `probability_positive` is P(net > 0).
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
    """The plan's saving by Monte Carlo: ln S = mean + stderr * t, with lognormal baseline cost.

    saved = C_0 - C_0 / S - one-off; energy = PUE * (P_0 * C_0 - P_w * (C_0 / S + one-off) - P_0 * search);
    net = price * (saved - search) + tariff * energy - adoption; ROI = net / (search + adoption). P_0 and
    P_w / P_0 are drawn independently from Student's t. Estimates are the values at the point estimates, intervals
    the quantiles at `level`. A NaN input makes every figure NaN, the probability included.
    """
    rng = np.random.default_rng(seed)
    log_speedup = _drawn(rng, draws, log_speedup_mean, log_speedup_stderr, degrees_of_freedom)
    baseline = economics.baseline_device_seconds * np.exp(
        np.append(0.0, economics.baseline_log_sd * rng.standard_normal(draws))
    )
    plan = baseline * np.exp(-log_speedup) + economics.one_off_device_seconds
    # C_0 * (1 - 1 / S) instead of a difference: small savings keep their precision.
    saved = baseline * -np.expm1(-log_speedup) - economics.one_off_device_seconds
    net = economics.device_price_per_second * (saved - economics.search_device_seconds) - economics.adoption_cost
    kwh: Interval | Unknown
    power = economics.power
    if isinstance(power, Unknown):
        kwh = power
    else:
        freedom = power.degrees_of_freedom
        log_watts, log_ratio = (
            _drawn(rng, draws, value.estimate, _stderr(value, freedom), freedom)
            for value in (power.baseline, power.ratio)
        )
        seconds = baseline * -np.expm1(log_ratio - log_speedup)  # of the baseline's draw
        seconds -= economics.one_off_device_seconds * np.exp(log_ratio) + economics.search_device_seconds
        energy = economics.pue * np.exp(log_watts) * seconds / _JOULES_PER_KWH
        kwh = _interval(energy, level)
        net = net + economics.kwh_price * energy
    spent = economics.search_cost + economics.adoption_cost
    return Forecast(
        plan_device_seconds=_interval(plan, level),
        saved_device_seconds=_interval(saved, level),
        kwh=kwh,
        net=_interval(net, level),
        roi=_interval(net / spent, level) if spent > 0 else Unknown(reason="nothing was spent"),
        probability_positive=math.nan if np.isnan(net).any() else float(np.mean(net[1:] > 0)),
    )


def _drawn(rng: np.random.Generator, draws: int, mean: float, stderr: float, freedom: float) -> FloatArray:
    """Draws of mean + stderr * t. The first value is the mean itself, so that it passes through the same arithmetic."""
    deviation = stats.t.ppf(rng.random(draws), freedom) * stderr
    return np.append(mean, np.clip(mean + deviation, -_LARGEST_LOG, _LARGEST_LOG))


def _stderr(value: Interval, freedom: float) -> float:
    """The standard error behind an interval by Student's t."""
    if value.low == value.high:
        return 0.0
    return (value.high - value.low) / (2.0 * float(stats.t.ppf(0.5 + value.level / 2, freedom)))


def _interval(values: FloatArray, level: float) -> Interval:
    """The first value is the estimate; the quantiles of the others are the interval."""
    low, high = np.quantile(values[1:], ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate=float(values[0]), low=float(low), high=float(high), level=level)
