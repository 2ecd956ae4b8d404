"""Inline SVG figures: pure functions from numbers to text, styled by the page that contains them.

Horizontal positions are percentages, so a figure stretches with its column while its text keeps its
size: the same drawing works on a wide screen, a phone and paper. Colours come from CSS classes. Texts
are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _WIDTH = 3.0, 94.0  # the plot's share of the figure, in per cent


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An estimate with its interval, all ratios above zero; `text` is printed beside it."""

    label: str
    text: str
    low: float
    estimate: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a whole; `text` gives its size."""

    label: str
    text: str
    size: float


def interval_chart(bars: Sequence[Bar], *, floor: float, title: str) -> str:
    """Ratios with their intervals on a logarithmic axis, the line of no change and the noise floor behind them."""
    low, high = _ratio_range(bars, floor)
    row, top = 52, 8
    bottom = top + row * len(bars)

    def x(ratio: float) -> float:
        return _LEFT + _WIDTH * _share(math.log(ratio), math.log(low), math.log(high))

    parts = [_open(title, bottom + 40, "; ".join(f"{b.label}: {b.text}" for b in bars))]
    if floor > 0:
        left, right = x(max(low, 1 / (1 + floor))), x(min(high, 1 + floor))
        parts.append(
            f'<rect class="floor" x="{left:.2f}%" y="{top}" width="{right - left:.2f}%" height="{bottom - top}"/>'
        )
    for tick in _ratio_ticks(low, high):
        kind = "unity" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(tick):.2f}%" x2="{x(tick):.2f}%" y1="{top}" y2="{bottom + 6}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.2f}%" y="{bottom + 22}" text-anchor="middle">{tick:g}\u00d7</text>'
        )
    for i, bar in enumerate(bars):
        y = top + row * i
        parts.append(f'<text class="label" x="{_LEFT}%" y="{y + 18}">{escape(bar.label)}</text>')
        parts.append(
            f'<text class="value" x="{_LEFT + _WIDTH}%" y="{y + 18}" text-anchor="end">{escape(bar.text)}</text>'
        )
        parts.append(_whisker(x(bar.low), x(bar.estimate), x(bar.high), y + 34))
    return "".join([*parts, "</svg>"])


def interval_bar(bar: Bar, *, low: float, high: float) -> str:
    """One small interval on the logarithmic axis from `low` to `high`, for a cell of a table."""

    def x(ratio: float) -> float:
        clipped = min(max(ratio, low), high)
        return _LEFT + _WIDTH * _share(math.log(clipped), math.log(low), math.log(high))

    unity = f'<line class="unity" x1="{x(1):.2f}%" x2="{x(1):.2f}%" y1="0" y2="16"/>' if low <= 1 <= high else ""
    whisker = _whisker(x(bar.low), x(bar.estimate), x(bar.high), 8, small=True)
    return f"{_open(bar.label, 16, bar.text)}{unity}{whisker}</svg>"


def curve(points: Sequence[tuple[int, float]], fit: tuple[float, float, float], *, title: str) -> str:
    """Losses over tokens (logarithmic), with the fit irreducible + amplitude * D**-exponent behind them."""
    irreducible, amplitude, exponent = fit
    xs = [d for d, _ in points]
    start, end = min(xs) / 1.25, max(xs) * 1.25
    steps = [start * (end / start) ** (i / 60) for i in range(61)]
    fitted = [irreducible + amplitude * d**-exponent for d in steps]
    ys = [loss for _, loss in points] + fitted
    margin = 0.08 * (max(ys) - min(ys)) or 0.1
    low, high = min(ys) - margin, max(ys) + margin
    top, height, left = 10, 220, 8.0

    def x(d: float) -> float:
        return left + (100 - left) * _share(math.log(d), math.log(start), math.log(end))

    def y(loss: float) -> float:
        return top + height * (1 - _share(loss, low, high))

    parts = [_open(title, top + height + 30, "; ".join(f"{d:,} tokens: {loss:.3f}" for d, loss in points))]
    for tick in _nice_ticks(low, high):
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="0" y="{y(tick) - 4:.1f}">{tick:g}</text>')
    path = " ".join(f"{x(d) * 10:.1f},{y(loss):.2f}" for d, loss in zip(steps, fitted, strict=True))
    total = top + height
    parts.append(
        f'<svg x="0" y="0" width="100%" height="{total}" viewBox="0 0 1000 {total}" preserveAspectRatio="none">'
        f'<polyline class="fit" points="{path}"/></svg>'
    )
    for d, loss in points:
        parts.append(f'<circle class="dot" cx="{x(d):.2f}%" cy="{y(loss):.1f}" r="4.5"/>')
    for d in sorted(set(xs)):
        anchor = "middle" if 6 < x(d) < 94 else "start" if x(d) <= 6 else "end"
        label = escape(_tokens(d))
        parts.append(f'<text class="tick" x="{x(d):.2f}%" y="{total + 20}" text-anchor="{anchor}">{label}</text>')
    return "".join([*parts, "</svg>"])


def stacked_bar(parts: Sequence[Part], *, title: str) -> str:
    """Parts of a whole in one bar; the n-th part has the class `c<n>`, which the page's legend repeats."""
    total = sum(p.size for p in parts)
    pieces = [_open(title, 30, "; ".join(f"{p.label}: {p.text}" for p in parts))]
    at = 0.0
    for i, part in enumerate(parts):
        width = 100 * part.size / total if total > 0 else 0.0
        hint = f"<title>{escape(part.label)}: {escape(part.text)}</title>"
        pieces.append(f'<rect class="part c{i % 8}" x="{at:.3f}%" y="0" width="{width:.3f}%" height="30">{hint}</rect>')
        at += width
    return "".join([*pieces, "</svg>"])


def common_range(bars: Sequence[Bar]) -> tuple[float, float]:
    """An axis range with all of `bars` and the line of no change."""
    return _ratio_range(bars, 0.0)


def _open(title: str, height: int, description: str) -> str:
    text = escape(f"{title}. {description}" if description else title)
    return f'<svg class="figure" role="img" width="100%" height="{height}" aria-label="{text}">'


def _whisker(low: float, estimate: float, high: float, y: int, *, small: bool = False) -> str:
    width = max(high - low, 0.3)
    radius, thickness = (3.5, 6) if small else (5, 8)
    return (
        f'<rect class="range" x="{low:.2f}%" y="{y - thickness / 2:g}" width="{width:.2f}%" height="{thickness}" '
        f'rx="{thickness / 2:g}"/><circle class="dot" cx="{estimate:.2f}%" cy="{y}" r="{radius}"/>'
    )


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _ratio_range(bars: Sequence[Bar], floor: float) -> tuple[float, float]:
    values = [v for b in bars for v in (b.low, b.estimate, b.high)] + [1.0, 1 + floor, 1 / (1 + floor)]
    low, high = min(values), max(values)
    pad = max((high / low) ** 0.06, 1.01)
    return low / pad, high * pad


def _ratio_ticks(low: float, high: float) -> list[float]:
    """At most seven round ratios in the range, always including 1."""
    if high / low > 5:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**k for k in decades for m in (1, 2, 5) if low <= m * 10.0**k <= high]
        ticks = [t for t in ticks if f"{t:.0e}"[0] == "1"] if len(ticks) > 7 else ticks
    else:
        ticks = _nice_ticks(low, high)
    return sorted({*ticks, 1.0})


def _nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between `low` and `high`."""
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tokens(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
