from __future__ import annotations

import json
import threading
import tracemalloc
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import made_up_documents

from autotune_model import tokenizer
from autotune_model.config import InvalidConfiguration

AWKWARD = "the model — naïve, 東京 \U0001f642\n\n\ttoken<|endoftext|> \x00\r\n"


@pytest.fixture(scope="module")
def trained() -> tiktoken.Encoding:
    return tokenizer.train_bpe(made_up_documents(), 280)


def round_trip(encoding: tiktoken.Encoding, text: str) -> str:
    return encoding.decode(encoding.encode_ordinary(text))


def test_bytes_round_trip_one_token_a_byte() -> None:
    encoding = tokenizer.byte_encoding()
    assert encoding.n_vocab == 257
    assert tokenizer.encode(encoding, AWKWARD.encode()).tolist() == list(AWKWARD.encode())
    assert round_trip(encoding, AWKWARD) == AWKWARD


def test_trained_vocabulary_has_its_size_with_end_of_text_and_round_trips(trained: tiktoken.Encoding) -> None:
    assert trained.n_vocab == 280
    assert trained.eot_token == 279
    assert round_trip(trained, AWKWARD) == AWKWARD
    assert len(trained.encode_ordinary(" token")) < len(" token")


def test_a_vocabulary_is_smaller_where_the_text_has_no_more_pairs() -> None:
    assert tokenizer.train_bpe(["to be or not"], 5000).n_vocab < 300


def test_saved_vocabulary_encodes_alike(trained: tiktoken.Encoding, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text(tokenizer.saved_encoding(trained))
    loaded = tokenizer.load_encoding(tmp_path / "vocabulary.json")
    assert loaded.n_vocab == trained.n_vocab
    assert loaded.encode_ordinary(AWKWARD) == trained.encode_ordinary(AWKWARD)


def test_a_vocabulary_with_a_flipped_bit_is_not_loaded(trained: tiktoken.Encoding, tmp_path: Path) -> None:
    saved = tokenizer.saved_encoding(trained)
    token = json.loads(saved)["value"]["tokens"][270]
    (tmp_path / "vocabulary.json").write_text(saved.replace(f'"{token}"', '"YQ=="'))
    with pytest.raises(ValueError, match="not what was written"):
        tokenizer.load_encoding(tmp_path / "vocabulary.json")


RUNS = {
    "blanks": " " * 1_000_000,
    "blanks of all kinds": " \t\n\r" * 250_000,
    "lines": "\n" * 1_000_000,
    "one letter": "a" * 1_000_000,
    "digits": "7" * 1_000_000,
    "dashes": "-" * 1_000_000,
    "underscores": "_=" * 500_000,
    "another script": "東" * 300_000,
    "letters with accents": "a\u0301" * 300_000,
    "accents": "\u0301" * 300_000,
    "emoji": "\U0001f642" * 100_000,
    "no blank": "abc,def;" * 100_000,
}


@pytest.mark.parametrize("name", RUNS)
def test_text_of_one_kind_is_encoded_and_trained_on(trained: tiktoken.Encoding, name: str) -> None:
    text = f"before {RUNS[name]} after"
    assert trained.decode(tokenizer.encode(trained, text.encode()).tolist()) == text
    assert tokenizer.train_bpe([text], 260).n_vocab <= 260


@given(
    st.lists(st.sampled_from(["a", "the", " ", "\n", "-", "7", "東", "\u0301", "!"]), max_size=40), st.integers(1, 400)
)
def test_cuts_keep_the_text_and_touch_no_ordinary_run(parts: list[str], times: int) -> None:
    text = "".join(part * times for part in parts)
    cut = list(tokenizer.bounded(text))
    assert "".join(cut) == text
    if times * len(parts) * 3 < tokenizer.LONGEST_RUN:
        assert len(cut) == 1


def test_cuts_are_within_the_run(trained: tiktoken.Encoding) -> None:
    ordinary = " ".join(made_up_documents())
    text = ordinary + "=" * 3000 + ordinary
    before, *runs, after = tokenizer.bounded(text)
    assert before == ordinary + "=" * 1024
    assert runs == ["=" * 1024]
    assert after == "=" * 952 + ordinary
    assert list(tokenizer.bounded(ordinary * 50)) == [ordinary * 50]


def test_a_panic_of_the_tokenizer_is_an_error_of_ours(
    trained: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "bounded", lambda text: [text])
    with pytest.raises(
        InvalidConfiguration, match=r"it gave up \(.*\) on a passage of 1,000,001 bytes.*tokenizer \"bytes\""
    ):
        tokenizer.encode(trained, b" " * 1_000_000 + b"x")


def test_other_errors_pass(trained: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "bounded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode(trained, b"x")


def test_bytes_take_no_more_memory_for_an_emoji() -> None:
    text = b"a" * 1_000_000 + "\U0001f642".encode()
    tracemalloc.start()
    try:
        tokenizer.encode(tokenizer.byte_encoding(), text)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_published_vocabulary_comes_from_tiktoken(monkeypatch: pytest.MonkeyPatch, trained: tiktoken.Encoding) -> None:
    monkeypatch.setattr(tiktoken, "get_encoding", {"gpt2": trained}.__getitem__)
    assert tokenizer.published_encoding("gpt2") is trained


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidConfiguration, match=r"cl100k_base.*got 'gtp2'.*bpe:2048"):
        tokenizer.published_encoding("gtp2")


def test_unreachable_vocabulary_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> tiktoken.Encoding:
        raise ConnectionError(f"no route\nto {name}")

    monkeypatch.setattr(tiktoken, "get_encoding", refuse)
    with pytest.raises(InvalidConfiguration, match=r"'gpt2'.*ConnectionError.*TIKTOKEN_CACHE_DIR") as caught:
        tokenizer.published_encoding("gpt2")
    assert "\n" not in str(caught.value)


def test_a_network_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: answer.wait())
    monkeypatch.setattr(tokenizer, "_DOWNLOAD_SECONDS", 0.01)
    with pytest.raises(InvalidConfiguration, match="TimeoutError"):
        tokenizer.published_encoding("gpt2")
    answer.set()
