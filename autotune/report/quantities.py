"""Numbers formatted for readers: three significant digits, sensible units, each with its interval.

A `Printer` turns every `Quantity` into a `Shown`, so that HTML, Markdown and terminal print the same
characters. An interval is printed with the decimals of its estimate, and left out if it has no width (a
quantity that is exact, or equal by an equivalence gate). Text is ASCII throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from autotune.quantity import Interval, Quantity, Unknown

NOT_KNOWN = "not known"
_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
_BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_TOKEN_UNITS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A quantity ready to print.

    `text` says everything in one line; `value` and `interval` are its two halves ("1.42x" and
    "1.35-1.49"). If the quantity is not known, `value` says so, `reason` says why, and `bounds`
    is empty; otherwise `bounds` is (low, estimate, high) for a figure to draw.
    """

    text: str
    value: str
    interval: str
    reason: str
    bounds: tuple[float, ...]

    @property
    def is_known(self) -> bool:
        return bool(self.bounds)


def finite(quantity: Quantity) -> Quantity:
    """`quantity`, or Unknown if it is an interval without finite ends, which is not printed as a number."""
    match quantity:
        case Interval(estimate=estimate, low=low, high=high) if not all(map(math.isfinite, (estimate, low, high))):
            return Unknown(reason=f"no finite interval (estimate {estimate:.3g}, from {low:.3g} to {high:.3g})")
        case _:
            return quantity


def significant(value: float, digits: int = 3) -> str:
    """`value` to that many significant digits, thousands grouped: 1,240, 12.4, 0.0334."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return _fixed(value, _decimals(value, digits), digits)


def _trimmed(value: float) -> str:
    """`value` to three significant digits without trailing zeros: for figures printed without an interval."""
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def percent(share: float) -> str:
    """A share as a percentage: 0.021 is "2.1 %", 1 is "100 %"."""
    return f"{significant(share * 100, 2 if abs(share) < 0.995 else 3)} %"


def size(number: float) -> str:
    """A number of bytes: "155 bytes", "12.6 MB"."""
    unit = 0
    while number >= 1000 and unit < len(_BYTE_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g} {_BYTE_UNITS[unit]}" if unit else f"{number:.0f} bytes"


def probability(value: float) -> str:
    """A probability as a whole percentage that never claims certainty."""
    if not math.isfinite(value):
        return NOT_KNOWN
    if value > 0.99:
        return "over 99 %"
    return "under 1 %" if value < 0.01 else f"{value * 100:.0f} %"


def tokens(count: float) -> str:
    """A number of tokens: 512, 98.3 k, 20 M, 1.2 B."""
    divisor, unit = _token_unit(count)
    return _trimmed(count / divisor) + unit


def duration(seconds: float) -> str:
    """A time span in the units people use: 50 ms, 38.2 s, 2 min 14 s, 2 h 14 min, 3 d 4 h, 580 days."""
    sign, size = ("-" if seconds < 0 else ""), abs(seconds)
    if size == 0:
        return "0 s"
    if size < 0.1:
        return f"{sign}{_trimmed(size * 1e3)} ms"
    if size < 59.95:
        return f"{sign}{_trimmed(size)} s"
    for limit, big, big_unit, small, small_unit in (
        (_HOUR, _MINUTE, "min", 1.0, "s"),
        (2 * _DAY, _HOUR, "h", _MINUTE, "min"),
        (10 * _DAY, _DAY, "d", _HOUR, "h"),
    ):
        rounded = round(size / small) * small
        if rounded < limit:
            whole, rest = divmod(rounded, big)
            tail = f" {rest / small:.0f} {small_unit}" if rest else ""
            return f"{sign}{whole:.0f} {big_unit}{tail}"
    return f"{sign}{significant(size / _DAY)} days"


def money(amount: float, currency: str) -> str:
    """An amount in the plan's currency: "1,240 USD", "1.24 M USD", "31.5 device-hours"."""
    divisor, unit = _money_unit(amount)
    return f"{_trimmed(amount / divisor)}{unit} {currency}"


class Printer:
    """Prints quantities. Intervals at `level` are printed without their level."""

    def __init__(self, level: float) -> None:
        self.level = level

    def ratio(self, quantity: Quantity) -> Shown:
        """A ratio: "1.42x (1.35-1.49)"."""
        return self._scaled(quantity, lambda _: (1.0, "x"))

    def plain(self, quantity: Quantity, *, unit: str = "", digits: int = 3) -> Shown:
        """A number with its unit as it is: "41.2 kWh (38-45)"."""
        return self._scaled(quantity, lambda _: (1.0, f" {unit}" if unit else ""), digits)

    def percent(self, quantity: Quantity) -> Shown:
        """A share as a percentage: "2.1 % (1.6-2.9)"."""
        return self._scaled(quantity, lambda _: (0.01, " %"), 2)

    def tokens(self, quantity: Quantity) -> Shown:
        """A number of tokens: "20.0 M tokens (15.1-31.2)"."""

        def unit(count: float) -> tuple[float, str]:
            divisor, suffix = _token_unit(count)
            return divisor, f"{suffix} tokens"

        return self._scaled(quantity, unit)

    def money(self, quantity: Quantity, currency: str) -> Shown:
        """An amount: "1,240 USD (980-1,510)"."""

        def unit(amount: float) -> tuple[float, str]:
            divisor, suffix = _money_unit(amount)
            return divisor, f"{suffix} {currency}"

        return self._scaled(quantity, unit)

    def seconds(self, quantity: Quantity) -> Shown:
        """A time span: "0.110 s (0.090-0.130)", "2 h 14 min (1 h 50 min to 2 h 40 min)"."""
        match finite(quantity):
            case Unknown(reason=reason):
                return _not_known(reason)
            case Interval(estimate=estimate, low=low, high=high, level=level):
                largest = max(abs(estimate), abs(low), abs(high))
                if largest < 0.1:
                    return self._scaled(quantity, lambda _: (1e-3, " ms"))
                if largest < _MINUTE:
                    return self._scaled(quantity, lambda _: (1.0, " s"))
                if abs(estimate) >= 10 * _DAY:
                    return self._scaled(quantity, lambda _: (_DAY, " days"))
                interval = f"{duration(low)} to {duration(high)}"
                return self._shown(duration(estimate), interval, (low, estimate, high), level)

    def hours(self, quantity: Quantity) -> Shown:
        """A time span given in hours."""
        match quantity:
            case Unknown():
                return self.seconds(quantity)
            case Interval(estimate=estimate, low=low, high=high, level=level):
                return self.seconds(
                    Interval(estimate=estimate * _HOUR, low=low * _HOUR, high=high * _HOUR, level=level)
                )

    def _scaled(self, quantity: Quantity, unit: Callable[[float], tuple[float, str]], digits: int = 3) -> Shown:
        match finite(quantity):
            case Unknown(reason=reason):
                return _not_known(reason)
            case Interval(estimate=estimate, low=low, high=high, level=level):
                divisor, suffix = unit(estimate)
                scaled = (estimate / divisor, low / divisor, high / divisor)
                centre, lower, upper = _alike(scaled, digits)
                separator = " to " if "-" in lower + upper else "-"
                return self._shown(f"{centre}{suffix}", f"{lower}{separator}{upper}", (low, estimate, high), level)

    def _shown(self, value: str, interval: str, bounds: tuple[float, float, float], level: float) -> Shown:
        low, _, high = bounds
        if low == high:
            return Shown(text=value, value=value, interval="", reason="", bounds=bounds)
        if not math.isclose(level, self.level):
            interval = f"{interval} at {level * 100:g} %"
        return Shown(text=f"{value} ({interval})", value=value, interval=interval, reason="", bounds=bounds)


def _not_known(reason: str) -> Shown:
    return Shown(text=f"{NOT_KNOWN}: {reason}", value=NOT_KNOWN, interval="", reason=reason, bounds=())


def _token_unit(count: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in _TOKEN_UNITS if abs(count) >= size * 0.9995), (1.0, ""))


def _money_unit(amount: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in _TOKEN_UNITS[:-1] if abs(amount) >= size * 0.9995), (1.0, ""))


def _decimals(value: float, digits: int) -> int:
    """Decimals that show `value` to that many significant digits."""
    if value == 0:
        return 0
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return max(0, digits - 1 - magnitude)


def _fixed(value: float, decimals: int, digits: int) -> str:
    if decimals == 0 and value:
        value = float(f"{value:.{digits - 1}e}")
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def _alike(values: tuple[float, float, float], digits: int) -> tuple[str, str, str]:
    """An estimate and its bounds with equal decimals: the estimate's, or more if the three would look equal.

    If the interval is wider than the estimate itself, its larger bound sets the decimals.
    """
    estimate, low, high = values
    decimals = _decimals(estimate if high - low <= abs(estimate) else max(abs(low), abs(high)), digits)
    for more in range(3):
        texts = tuple(_fixed(v, min(decimals + more, 6), digits + more) for v in values)
        if len(set(texts)) == len(set(values)):
            break
    return texts[0], texts[1], texts[2]
