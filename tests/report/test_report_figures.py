import re
from xml.etree import ElementTree

import pytest

from autotune.report.figures import Bar, Part, common_range, curve, interval_bar, interval_chart, stacked_bar


def bar(low: float, estimate: float, high: float, label: str = "over your baseline") -> Bar:
    return Bar(label=label, text=f"{estimate:.2f}x", low=low, estimate=estimate, high=high)


def numbers(svg: str, element: str, attribute: str) -> list[float]:
    root = ElementTree.fromstring(svg)  # noqa: S314 (our own drawing)
    return [float(e.attrib[attribute].rstrip("%")) for e in root.iter(element) if attribute in e.attrib]


@pytest.mark.parametrize("bars", [(1.35, 1.42, 1.49), (0.03, 0.04, 0.05), (0.999, 1.0, 1.001), (20.0, 30.0, 55.0)])
def test_an_interval_lies_in_the_figure_in_order(bars: tuple[float, float, float]) -> None:
    svg = interval_chart([bar(*bars)], floor=0.02, title="Speed-up")
    (estimate,) = numbers(svg, "circle", "cx")
    band, spread = numbers(svg, "rect", "x"), numbers(svg, "rect", "width")
    assert 0 <= band[1] <= estimate <= band[1] + spread[1] + 0.31 <= 100.4
    assert 1 <= len(re.findall('class="tick"', svg)) <= 8
    assert "1\u00d7<" in svg


def test_a_faster_configuration_stands_to_the_right_of_a_slower_one() -> None:
    fast, slow = numbers(
        interval_chart([bar(1.35, 1.42, 1.49), bar(0.8, 0.9, 1.0)], floor=0.0, title="t"), "circle", "cx"
    )
    assert fast > slow


def test_small_bars_share_an_axis_and_are_clipped_to_it() -> None:
    low, high = common_range([bar(0.9, 1.1, 1.3), bar(1.0, 1.2, 2.0)])
    assert low < 0.9 < 2.0 < high
    (inside,) = numbers(interval_bar(bar(0.1, 1.0, 9.0), low=low, high=high), "circle", "cx")
    assert 0 < inside < 100


def test_a_curve_puts_lower_losses_lower_and_later_tokens_further_right() -> None:
    svg = curve([(25_000, 7.0), (50_000, 6.5), (100_000, 6.1)], (2.0, 21.0, 0.15), title="Loss")
    xs, ys = numbers(svg, "circle", "cx"), numbers(svg, "circle", "cy")
    assert xs == sorted(xs)
    assert ys == sorted(ys)
    assert svg.count("<polyline") == 1


def test_a_curve_of_one_flat_point_can_be_drawn() -> None:
    assert "<circle" in curve([(1_000, 3.0)], (3.0, 0.0, 0.5), title="Loss")


def test_a_stacked_bar_fills_the_width() -> None:
    widths = numbers(
        stacked_bar([Part(label="a", text="1 s", size=1), Part(label="b", text="3 s", size=3)], title="t"),
        "rect",
        "width",
    )
    assert widths == pytest.approx([25, 75])


def test_texts_are_escaped() -> None:
    evil = '<script>"&'
    for svg in (
        interval_chart([bar(1.0, 1.1, 1.2, evil)], floor=0.0, title=evil),
        interval_bar(bar(1.0, 1.1, 1.2, evil), low=0.9, high=1.3),
        stacked_bar([Part(label=evil, text=evil, size=1)], title=evil),
        curve([(10, 1.0), (20, 0.9)], (0.1, 1.0, 0.1), title=evil),
    ):
        assert "<script" not in svg
        ElementTree.fromstring(svg)  # noqa: S314 (our own drawing)
