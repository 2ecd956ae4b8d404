"""The value of a speed-up: device-seconds and break-even (docs/method.md, 7)."""

from __future__ import annotations

import math

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
