"""Ranges of whole numbers are tried at the numbers that are possible."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.errors import BadInput
from autotune.space.configuration import InvalidConfiguration
from autotune.space.document import parse_document
from autotune.space.knobs import Choice, IntRange
from autotune.workload.ranges import MOST_LISTED
from autotune.workload.space import SearchSpace, space_of

TEXT = """
[workload]
layers = 1
heads = 2
width = 32
sequence_length = 32
horizon_tokens = 4_000

[plan]
tokens = 20_000_000

[baseline]
micro_batch = {micro}
global_batch = {batch}

[knobs]
"""


def space(knobs: str, *, micro: int = 4, batch: int = 64) -> SearchSpace:
    text = TEXT.format(micro=micro, batch=batch) + knobs
    return space_of(parse_document(text, name="ranges", source="ranges", folder=Path()))


def tried(space: SearchSpace, name: str) -> tuple[int, ...]:
    (domain,) = (d.domain for d in space.dimensions if d.knob.name == name)
    assert isinstance(domain, IntRange)
    return domain.listed


def test_of_a_range_of_micro_batches_the_divisors_of_the_global_batch_are_tried() -> None:
    assert tried(space("micro_batch = { low = 1, high = 4096 }"), "micro_batch") == (1, 2, 4, 8, 16, 32, 64)
    assert tried(space("micro_batch = { low = 1, high = 65536 }", batch=96), "micro_batch") == (
        *(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96),
    )


def test_what_is_possible_with_another_value_of_another_knob_is_tried() -> None:
    both = space("micro_batch = { low = 1, high = 100 }\nglobal_batch = [64, 36]")
    assert tried(both, "micro_batch") == (1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 32, 36, 64)


def test_a_range_without_a_rule_is_tried_whole_or_spread_over_its_length() -> None:
    assert tried(space("threads = { low = 0, high = 9 }"), "threads") == tuple(range(10))
    spread = tried(space("vocab_multiple = { low = 1, high = 4096, log = true }"), "vocab_multiple")
    assert (spread[0], spread[-1]) == (1, 4_096)
    assert len(spread) <= MOST_LISTED
    assert sum(n <= 64 for n in spread) > len(spread) / 3, "by the logarithm"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3_000), st.booleans(), st.booleans())
def test_every_number_tried_is_possible_and_none_that_is_gets_lost(
    micro: int, passes: int, low: int, length: int, log: bool, beside: bool
) -> None:
    batch, low = micro * passes, min(low, micro)
    high = max(low + length, micro, low + 1)
    other = f"\nglobal_batch = [{batch}, {batch + 1}]" if beside else ""
    found = space(
        f"micro_batch = {{ low = {low}, high = {high}, log = {str(log).lower()} }}{other}", micro=micro, batch=batch
    )
    listed = tried(found, "micro_batch")
    assert list(listed) == sorted(set(listed))
    assert micro in listed
    batches = (batch, batch + 1) if beside else (batch,)
    possible = [n for n in range(low, high + 1) if any(b % n == 0 for b in batches)]
    assert set(listed) <= set(possible)
    assert len(possible) > MOST_LISTED or set(listed) == set(possible)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 200), st.integers(1, 400))
def test_the_workload_leaves_out_no_number_that_is_valid(micro: int, passes: int, low: int, length: int) -> None:
    found = space('attention = ["math", "sdpa"]', micro=micro, batch=micro * passes)
    micros, batches = (micro, micro + 1), (micro * passes, 60)
    for name, others in (("micro_batch", {"global_batch": batches}), ("global_batch", {"micro_batch": micros})):
        numbers = set(found.workload.whole_numbers(name, low, low + length, others))
        for n in range(low, low + length + 1):
            for other, values in others.items():
                for value in values:
                    try:
                        found.turned(found.baseline, {name: n, other: value})
                    except InvalidConfiguration:
                        continue
                    assert n in numbers


def test_a_list_is_for_values_worth_a_trial() -> None:
    listing = space(f"threads = {list(range(MOST_LISTED))}")
    assert listing.dimensions[0].domain == Choice(values=tuple(range(MOST_LISTED)))
    with pytest.raises(
        BadInput, match="a domain lists at most 64 values; got 65: list those worth a trial, or a range"
    ):
        space(f"threads = {list(range(MOST_LISTED + 1))}")
