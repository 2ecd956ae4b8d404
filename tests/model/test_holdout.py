"""Holding text out: the asked share, of the same mixture, whatever the corpus is like."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_model.config import InvalidConfiguration
from autotune_model.holdout import Split, digest_of, largest_whole, passages

WORDS = ("the", "model", "learns", "naïve", "東京", "token", "by")


def prose(seed: int, size: int) -> bytes:
    """Some `size` bytes of lines and paragraphs that no other seed gives."""
    chance = random.Random(seed)
    text, length = [], 0
    while length < size:
        line = f"{seed} " + " ".join(chance.choices(WORDS, k=8)) + chance.choice(("\n", "\n", "\n\n"))
        text.append(line)
        length += len(line.encode())
    return "".join(text).encode()


def split(documents: Sequence[bytes], fraction: float) -> list[list[tuple[bool, bytes]]]:
    """Each document as passages, with whether they are held out."""
    whole = largest_whole(sum(map(len, documents)), fraction)
    cut = [list(passages((document,), whole)) for document in documents]
    chosen = Split(fraction)
    for document in cut:
        chosen.add([(digest_of(passage), len(passage)) for passage in document])
    held = chosen.held_out()
    return [[(digest_of(passage) in held, passage) for passage in document] for document in cut]


def share(rows: Sequence[Sequence[tuple[bool, bytes]]]) -> float:
    held = sum(len(text) for row in rows for is_held, text in row if is_held)
    return held / sum(len(text) for row in rows for _, text in row)


@given(
    st.lists(st.one_of(st.integers(100, 2_000), st.integers(2_000, 100_000)), min_size=1, max_size=30),
    st.sampled_from([0.02, 0.1, 0.3, 0.5]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_share_is_near_the_asked_one_and_order_does_not_matter(
    sizes: list[int], fraction: float, order: random.Random
) -> None:
    documents = [prose(seed, size) for seed, size in enumerate(sizes)]
    if sum(map(len, documents)) * fraction < 500:
        return  # less than a few lines
    rows = split(documents, fraction)
    assert fraction / 1.5 <= share(rows) <= fraction * 1.5
    sides = {text: is_held for row in rows for is_held, text in row}
    order.shuffle(documents)
    assert {text: is_held for row in split(documents, fraction) for is_held, text in row} == sides
    assert ["".join(text.decode() for _, text in row).encode() for row in split(documents, fraction)] == documents


CORPORA: dict[str, list[bytes]] = {
    "one book": [prose(0, 400_000)],
    "two books": [prose(0, 200_000), prose(1, 200_000)],
    "a book and a readme": [prose(0, 400_000), b"A short readme, of 155 bytes. " * 5],
    "a book and a licence": [prose(0, 400_000), prose(1, 35_000)],
    "a book and many pages": [prose(0, 200_000), *(prose(seed, 1_000) for seed in range(1, 200))],
    "pages short and long": [prose(seed, 200 if seed % 2 else 4_000) for seed in range(200)],
}


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2])
def test_every_large_part_of_a_corpus_gives_its_share(name: str, fraction: float) -> None:
    rows = split(CORPORA[name], fraction)
    assert share(rows) == pytest.approx(fraction, rel=0.1)
    for row in rows:
        if sum(len(text) for _, text in row) > 100_000:
            assert share([row]) == pytest.approx(fraction, rel=0.25)
            halves = row[: len(row) // 2], row[len(row) // 2 :]
            assert all(share([half]) == pytest.approx(fraction, rel=0.5) for half in halves), "spread over the text"


def test_long_and_short_pages_have_the_same_chance() -> None:
    rows = split(CORPORA["pages short and long"], 0.1)
    assert share([row for row in rows if len(row[0][1]) < 1_000]) == pytest.approx(0.1, rel=0.3)
    assert share([row for row in rows if len(row[0][1]) > 1_000]) == pytest.approx(0.1, rel=0.3)


def test_small_documents_stay_whole_and_large_ones_are_cut_at_paragraphs() -> None:
    rows = split(CORPORA["a book and many pages"], 0.1)
    assert all(len(row) == 1 for row in rows[1:])
    assert len(rows[0]) > 10
    assert all(text.endswith(b"\n\n") for _, text in rows[0][:-1])


def test_a_text_that_repeats_itself_takes_no_other_text_out_of_training() -> None:
    rows = split([*(prose(seed, 5_000) for seed in range(200)), b"a" * 5_000_000], 0.1)
    assert share(rows[:-1]) == pytest.approx(0.1, rel=0.1)
    assert not any(is_held for is_held, _ in rows[-1][:-1])


def test_copies_are_on_one_side_whatever_their_line_ends() -> None:
    documents = [prose(seed, 1_000) for seed in range(50)]
    copies = [document.replace(b"\n", b"\r\n") + b"\n" for document in documents]
    rows = split(documents + copies, 0.1)
    assert [row[0][0] for row in rows[:50]] == [row[0][0] for row in rows[50:]]
    held = {digest_of(text) for row in rows for is_held, text in row if is_held}
    trained = {digest_of(text) for row in rows for is_held, text in row if not is_held}
    assert held
    assert not held & trained


@pytest.mark.parametrize(
    "documents",
    [
        [b"one text"],
        [b"one", b"two"],
        [b"a" * 5_000_000],
        [b"the same page\n"] * 1_000,
        [b"all work and no play\n" * 9999],
    ],
    ids=["tiny", "two words", "one letter", "copies", "one line"],
)
def test_a_corpus_that_cannot_be_split_is_refused(documents: list[bytes]) -> None:
    with pytest.raises(InvalidConfiguration, match=r"different passages to hold out 10% of it; got .*use more text"):
        split(documents, 0.1)


@given(st.text(alphabet="ab \n\r東\U0001f642", max_size=3_000), st.integers(64, 400), st.integers(1, 500))
@settings(deadline=None)
def test_passages_depend_on_the_text_alone(text: str, whole: int, part: int) -> None:
    data = text.encode()
    cut = list(passages((data,), whole))
    assert b"".join(cut) == data
    assert all(len(passage) <= whole for passage in cut)
    assert "".join(passage.decode() for passage in cut) == text, "no character is cut"
    assert list(passages((data[i : i + part] for i in range(0, len(data), part)), whole)) == cut
