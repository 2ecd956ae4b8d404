"""The value of a speed-up: device-seconds, break-even, and when to stop searching (docs/method.md, 5 and 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.quantity import Interval, Unknown


def plan_device_seconds(plan_tokens: float, runs: int, tokens_per_second: float) -> float:
    """Device-seconds of the plan: runs * tokens / rate, the rate in tokens per device-second; infinite at rate 0."""
    return runs * plan_tokens / tokens_per_second if tokens_per_second > 0 else math.inf


def break_even_seconds(search_seconds: float, speedup: Interval) -> Interval | Unknown:
    """The plan length, in seconds of the baseline, at which the search has paid back: T_search / (1 - 1 / S).

    `speedup` is a ratio. Unknown unless its whole interval is above 1 (docs/method.md, 7). The
    longest break-even belongs to the lowest speed-up.
    """
    if speedup.high < 1:
        return Unknown(reason="slower than the baseline: it never pays back")
    if not (speedup.low > 1 and speedup.estimate > 1 and speedup.high > 1):
        return Unknown(reason="the speed-up's interval contains 1: it may never pay back")
    return speedup.map_decreasing(lambda ratio: search_seconds / (1 - 1 / ratio))


def expected_gain_of_one_more(log_speedups: Sequence[float], *, floor: float) -> float:
    """The expected gain of one more draw over the best of n exchangeable draws, in log units.

    Each of n exchangeable draws is the largest with probability 1/n, whatever their values. If the last one
    is, it raised the maximum from x_(n-1) to x_(n), else it added nothing. So E[M_n - M_(n-1)] =
    E[x_(n) - x_(n-1)] / n, and the observed gap over n is an unbiased estimate of the latest draw's gain. The
    next draw gains no more in expectation (for independent draws E[M_n] is concave in n), so stopping errs
    on the late side. The value is at least floor / (n + 1), the chance that the next draw is the best times the
    smallest resolvable difference: a tie reflects noise, not exhaustion. A single draw is compared with
    the baseline, ln S = 0. Without draws: infinite.
    """
    known = sorted(x for x in log_speedups if math.isfinite(x))
    if not known:
        return math.inf
    count = len(known)
    draws = known if count > 1 else sorted([0.0, *known])
    return max((draws[-1] - draws[-2]) / len(draws), floor / (count + 1))


def worth_another_trial(
    *, log_speedups: Sequence[float], floor: float, baseline_cost: float, trial_cost: float
) -> tuple[bool, float]:
    """Whether one more trial is expected to save more than it costs, and the expected saving (docs/method.md, 5).

    `baseline_cost` is R * C_0, the whole plan at the baseline; costs and saving are in one currency. The
    saving is C_0 / S_inc * (1 - exp(-gain)). The baseline is the zeroth draw, so the incumbent is never
    worse than the baseline. Before the first trial, all of C_0 may be saved.
    """
    known = [x for x in log_speedups if math.isfinite(x)]
    gain = expected_gain_of_one_more([0.0, *known] if known else [], floor=floor)
    incumbent = max([0.0, *known])
    saving = baseline_cost * math.exp(-incumbent) * -math.expm1(-gain)
    return saving > trial_cost, saving
