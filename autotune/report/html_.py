"""The report as one self-contained page: no script, nothing fetched, figures drawn inline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from autotune.report import figures
from autotune.report.figures import Bar, Part
from autotune.report.quantities import Shown
from autotune.report.view import Share, View


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawings:
    """The figures of a page as SVG; an empty string if there is nothing to draw."""

    comparisons: str
    curve: str
    stages: str
    activities: str
    speeds: tuple[str, ...]
    qualities: tuple[str, ...]


def render_html(view: View) -> str:
    """The text of `report.html`."""
    return _environment().get_template("report.html.j2").render(view=view, draw=_drawings(view))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("autotune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    return environment


def typeset(text: str) -> str:
    """The same text, typeset: multiplication and minus signs, unbroken ranges, units beside their numbers."""
    text = re.sub(r"(?<![\w.])(\d[\d,.]*)x\b", "\\1\u00d7", text)
    text = re.sub(r"(?<=[\d\u00d7])-(?=\d)", "\u2060\u2013\u2060", text)  # between word joiners: no break there
    text = re.sub(r"(?<![\w\u2060])-(?=\d)", "\u2212", text)
    return re.sub(r"(?<=\d) (?=(%|s|ms|min|h|d|[kMBT])\b|%)", "\u00a0", text)


def _bars(label: str, shown: Shown) -> tuple[Bar, ...]:
    """The bar of a known ratio; none if a logarithmic axis cannot show it."""
    if not shown.bounds or min(shown.bounds) <= 0:
        return ()
    low, estimate, high = shown.bounds
    return (Bar(label=label, text=typeset(shown.text), low=low, estimate=estimate, high=high),)


def _drawings(v: View) -> _Drawings:
    floor = v.noise_floor.bounds[1] if v.noise_floor.bounds else 0.0
    compared = [bar for c in v.comparisons for bar in _bars(c.label, c.speedup)]
    speeds, qualities = _columns(
        [
            [(f"{t.title}, throughput", t.speed) for t in v.techniques],
            [(f"{t.title}, token efficiency", t.quality) for t in v.techniques],
        ]
    )
    return _Drawings(
        comparisons=figures.interval_chart(compared, floor=max(floor, 0.0), title="Speed-up to the same loss")
        if compared
        else "",
        curve=figures.curve(
            v.curve.points,
            (v.curve.fit[0], v.curve.fit[1], v.curve.fit[2]),
            title="Validation loss of the baseline over training tokens",
        )
        if v.curve.fit and v.curve.points
        else "",
        stages=_stacked(v.stages, "Search time by stage"),
        activities=_stacked(v.activities, "Search time by activity"),
        speeds=speeds,
        qualities=qualities,
    )


def _stacked(shares: tuple[Share, ...], title: str) -> str:
    parts = [Part(label=s.label, text=s.text, size=s.seconds) for s in shares]
    return figures.stacked_bar(parts, title=title) if parts else ""


def _columns(columns: list[list[tuple[str, Shown]]]) -> list[tuple[str, ...]]:
    """One small bar per cell of these columns, all on one axis."""
    bars = [[_bars(label, shown) for label, shown in cells] for cells in columns]
    low, high = figures.common_range([bar for column in bars for cell in column for bar in cell])
    return [
        tuple("".join(figures.interval_bar(bar, low=low, high=high) for bar in cell) for cell in column)
        for column in bars
    ]
