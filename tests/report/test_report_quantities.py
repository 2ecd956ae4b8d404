import math

import pytest

from autotune.quantity import Interval, Quantity, Unknown
from autotune.report.quantities import Printer, duration, finite, money, percent, probability, significant, tokens

from .search_examples import interval

P = Printer(0.9)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.4213, "1.42"), (9.999, "10.0"), (1_243.2, "1,240"), (0.0334, "0.0334"), (-12.34, "-12.3")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(512, "512"), (98_304, "98.3 k"), (20_000_000, "20 M"), (1.2e9, "1.2 B"), (999_960, "1 M"), (1.5e13, "15 T")],
)
def test_tokens(count: float, text: str) -> None:
    assert tokens(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.05, "50 ms"),
        (0.11, "0.11 s"),
        (38.24, "38.2 s"),
        (59.97, "1 min"),
        (134, "2 min 14 s"),
        (3_599.7, "1 h"),
        (8_040, "2 h 14 min"),
        (273_600, "3 d 4 h"),
        (5e7, "579 days"),  # 0.05 s over 1e9 iterations
        (-8_040, "-2 h 14 min"),
    ],
)
def test_durations_are_said_as_one_would(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_shares_probabilities_and_money() -> None:
    assert percent(0.0213) == "2.1 %"
    assert percent(1.0) == "100 %"
    assert [probability(p) for p in (0.9971, 1.0, 0.5, 0.0, math.nan)] == [
        "over 99 %",
        "over 99 %",
        "50 %",
        "under 1 %",
        "not known",
    ]
    assert money(1_243.0, "USD") == "1,240 USD"
    assert money(1.24e6, "USD") == "1.24 M USD"
    assert money(31.5, "device-hours") == "31.5 device-hours"


def test_every_unit_prints_an_interval_with_equal_decimals() -> None:
    assert P.ratio(interval(1.4213, 1.3479, 1.4892)).text == "1.42x (1.35-1.49)"
    assert P.percent(interval(0.0213, 0.0154, 0.0291)).text == "2.1 % (1.5-2.9)"
    assert P.tokens(interval(12.3e6, 8.14e6, 20.44e6)).text == "12.3 M tokens (8.1-20.4)"
    assert P.money(interval(38.4, 18.9, 55.7), "USD").text == "38.4 USD (18.9-55.7)"
    assert P.money(interval(0.9, -1.6, 3.3), "USD").text == "0.90 USD (-1.60 to 3.30)"
    assert P.seconds(interval(0.11, 0.09, 0.13)).text == "0.110 s (0.090-0.130)"
    assert P.hours(interval(2.2333, 1.8333, 2.6667)).text == "2 h 14 min (1 h 50 min to 2 h 40 min)"
    assert P.hours(interval(13_920, 12_000, 15_000)).text == "580 days (500-625)"
    assert P.plain(interval(6.3412, 6.301, 6.382), digits=4).text == "6.341 (6.301-6.382)"


def test_an_interval_that_would_look_like_a_point_gets_more_decimals() -> None:
    assert P.ratio(interval(1.003, 0.998, 1.008)).text == "1.003x (0.998-1.008)"


def test_a_quantity_without_width_is_printed_without_interval() -> None:
    assert P.ratio(interval(1.0, 1.0, 1.0)).text == "1.00x"


def test_an_unusual_level_is_named() -> None:
    assert P.ratio(interval(1.42, 1.3, 1.5, level=0.95)).text == "1.42x (1.30-1.50 at 95 %)"


@pytest.mark.parametrize("printer", [P.ratio, P.percent, P.tokens, P.seconds, P.hours, P.plain])
def test_what_is_not_known_says_why(printer) -> None:
    shown = printer(Unknown(reason="no meter"))
    assert shown.text == "not known: no meter"
    assert not shown.is_known


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["estimate", "low", "high"])
def test_nothing_that_is_not_finite_is_printed_as_a_number(bad: float, place: str) -> None:
    values = {"estimate": 1.0, "low": 1.0, "high": 1.0, place: bad}
    quantity: Quantity = Interval(**values, level=0.9)
    assert isinstance(finite(quantity), Unknown)
    for printer in (P.ratio, P.percent, P.tokens, P.seconds, P.hours):
        assert printer(quantity).text.startswith("not known: no finite interval")
