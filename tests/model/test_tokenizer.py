from __future__ import annotations

import threading
from pathlib import Path

import pytest
import tiktoken
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
    assert bytes(encoding.encode_ordinary(AWKWARD)) == AWKWARD.encode()
    assert round_trip(encoding, AWKWARD) == AWKWARD


def test_trained_vocabulary_has_its_size_with_end_of_text_and_round_trips(trained: tiktoken.Encoding) -> None:
    assert trained.n_vocab == 280
    assert trained.eot_token == 279
    assert round_trip(trained, AWKWARD) == AWKWARD
    assert len(trained.encode_ordinary(" token")) < len(" token")


def test_a_vocabulary_is_smaller_where_the_text_has_no_more_pairs() -> None:
    assert tokenizer.train_bpe(["to be or not"], 5000).n_vocab < 300


def test_saved_vocabulary_encodes_alike(trained: tiktoken.Encoding, tmp_path: Path) -> None:
    tokenizer.save_encoding(trained, tmp_path / "vocabulary.json")
    loaded = tokenizer.load_encoding(tmp_path / "vocabulary.json")
    assert loaded.n_vocab == trained.n_vocab
    assert loaded.encode_ordinary(AWKWARD) == trained.encode_ordinary(AWKWARD)


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
