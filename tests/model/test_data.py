from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_corpus import made_up_documents

from autotune_model.cache import CacheProblem
from autotune_model.config import DataConfig, InvalidConfiguration
from autotune_model.corpus import Source, Survey
from autotune_model.data import Batches, holdout_windows
from autotune_model.formats import Parts
from autotune_model.left_out import Reason
from autotune_model.tokenizer import byte_encoding
from autotune_model.tokens import Corpus, open_corpus

END = byte_encoding().eot_token


@pytest.fixture
def fresh(data: DataConfig, tmp_path: Path) -> DataConfig:
    """The corpus with an empty cache."""
    return dataclasses.replace(data, cache_dir=str(tmp_path / "cache"))


def texts(tokens: np.ndarray) -> list[str]:
    """The documents of a stream of byte tokens."""
    ends = np.flatnonzero(tokens == END)
    return [bytes(part[part != END].astype(np.uint8)).decode() for part in np.split(tokens, ends + 1)[:-1]]


def token_folder(config: DataConfig) -> Path:
    (folder,) = Path(config.cache_dir, "tokens").iterdir()
    return folder


def test_documents_are_split_whole_and_none_is_lost(corpus: Corpus) -> None:
    train, holdout = texts(corpus.train), texts(corpus.holdout)
    assert not set(train) & set(holdout)
    assert Counter(train + holdout) == Counter(made_up_documents())
    assert corpus.documents == len(made_up_documents())
    assert len(holdout) == 5  # a fifth of 24
    assert corpus.text_bytes == sum(len(text.encode()) for text in made_up_documents())
    assert corpus.vocab_wanted == corpus.vocab_size
    assert (corpus.left_out, corpus.cache_damage) == ((), "")


def test_passages_of_a_book_are_apart_only_where_one_is_held_out(fresh: DataConfig, tmp_path: Path) -> None:
    book = "".join(f"{document}\n" for document in made_up_documents(200))
    (tmp_path / "book.txt").write_text(book)
    corpus = open_corpus(dataclasses.replace(fresh, corpus=str(tmp_path / "book.txt")))
    train, holdout = texts(corpus.train), texts(corpus.holdout)
    assert all(text in book for text in train + holdout)
    assert len("".join(train + holdout)) == len(book)
    assert len(holdout) > 4
    assert len(train) <= len(holdout) + 1
    assert corpus.documents == 1


def test_what_was_left_out_is_known_from_the_cache_too(fresh: DataConfig, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(made_up_documents()):
        (folder / f"{number:02}.txt").write_text(document)
    (folder / "old.txt").write_bytes(b"caf\xe9")
    (folder / "gone").symlink_to("nowhere")
    config = dataclasses.replace(fresh, corpus=str(folder), tokenizer="bpe:5000")
    for corpus in (open_corpus(config), open_corpus(config)):
        assert [(row.reason, row.count) for row in corpus.left_out] == [(Reason.ENCODING, 1), (Reason.BROKEN_LINK, 1)]
        assert corpus.vocab_size < corpus.vocab_wanted == 5000


def test_split_does_not_depend_on_file_names(corpus: Corpus, fresh: DataConfig, tmp_path: Path) -> None:
    folder = tmp_path / "renamed"
    folder.mkdir()
    for number, document in enumerate(reversed(made_up_documents())):
        (folder / f"{number:02}.md").write_text(document)
    renamed = open_corpus(dataclasses.replace(fresh, corpus=str(folder)))
    assert set(texts(renamed.holdout)) == set(texts(corpus.holdout))


def test_tokens_take_the_smallest_type_and_know_their_bytes(corpus: Corpus, fresh: DataConfig) -> None:
    assert corpus.train.dtype == np.uint16  # 257 tokens
    assert corpus.vocab_size == 257
    for one in (corpus, open_corpus(dataclasses.replace(fresh, tokenizer="bpe:300"))):
        held_bytes = int(one.token_bytes[one.holdout].sum())
        assert held_bytes == sum(len(text.encode()) for text in texts(corpus.holdout))
        assert one.bytes_per_token == pytest.approx(held_bytes / len(one.holdout))


def test_known_corpus_opens_without_reading_text(fresh: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_corpus(fresh)
    monkeypatch.setattr(Source, "survey", lambda self: pytest.fail("read the text again"))
    again = open_corpus(fresh)
    assert np.array_equal(first.train, again.train)
    assert again.content_sha256 == first.content_sha256
    assert isinstance(again.train, np.memmap)


def test_touched_file_keeps_the_tokens_and_changed_text_does_not(fresh: DataConfig, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(made_up_documents()):
        (folder / f"{number}.txt").write_text(document)
    config = dataclasses.replace(fresh, corpus=str(folder))
    first = open_corpus(config)
    tokens = token_folder(config)
    written_at = (tokens / "train.bin").stat().st_mtime_ns
    os.utime(folder / "0.txt", ns=(1, 1))
    assert open_corpus(config).content_sha256 == first.content_sha256
    assert (token_folder(config) / "train.bin").stat().st_mtime_ns == written_at
    (folder / "0.txt").write_text("something else entirely")
    assert open_corpus(config).content_sha256 != first.content_sha256


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "torn": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: b"\0" * len(content),
    "longer": lambda content: content + b"\0\0",
    "flipped": lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
    "foreign": lambda content: b'{"sha256": "", "value": {"key": "another"}}',
    "a list": lambda content: b"[]",
}


@pytest.mark.parametrize("name", ["train.bin", "holdout.bin", "token_bytes.bin", "about.json"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("thorough", [True, False])
def test_damaged_tokens_are_made_again_and_said(fresh: DataConfig, name: str, damage: str, thorough: bool) -> None:
    config = dataclasses.replace(fresh, tokenizer="bpe:300")
    whole = np.array(open_corpus(config).train)
    damaged = token_folder(config) / name
    damaged.write_bytes(DAMAGES[damage](damaged.read_bytes()))
    again = open_corpus(config, thorough=thorough)
    assert np.array_equal(again.train, whole)
    assert again.cache_damage
    assert open_corpus(config).cache_damage == ""
    assert token_folder(config), "nothing else is left"


@pytest.mark.parametrize("place", ["sources", "vocabularies"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_other_damaged_files_of_the_cache_are_made_again(fresh: DataConfig, place: str, damage: str) -> None:
    config = dataclasses.replace(fresh, tokenizer="bpe:300")
    whole = np.array(open_corpus(config).train)
    (damaged,) = Path(config.cache_dir, place).iterdir()
    content = damaged.read_bytes()
    damaged.write_bytes(DAMAGES[damage](content))
    if place == "vocabularies":
        shutil.rmtree(token_folder(config))
    assert np.array_equal(open_corpus(config).train, whole)
    assert damaged.read_bytes() == content


def test_a_missing_file_of_the_cache_is_made_again(fresh: DataConfig) -> None:
    whole = np.array(open_corpus(fresh).train)
    (token_folder(fresh) / "holdout.bin").unlink()
    assert np.array_equal(open_corpus(fresh).train, whole)


def test_what_is_cached_is_for_this_user_alone(fresh: DataConfig) -> None:
    open_corpus(dataclasses.replace(fresh, tokenizer="bpe:300"))
    found = list(Path(fresh.cache_dir).rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}


def test_a_full_disk_is_a_problem_of_the_cache_and_leaves_nothing(
    fresh: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CacheProblem, match=r"have room; got No space left on device in '.*': free space"):
        open_corpus(fresh)
    assert not list(Path(fresh.cache_dir, "tokens").iterdir())
    monkeypatch.undo()
    assert len(open_corpus(fresh).holdout)


def test_text_that_changes_while_it_is_read_is_refused(
    fresh: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(made_up_documents()):
        (folder / f"{number:02}.txt").write_text(document)
    survey = Source.survey

    def changing(self: Source) -> Survey:
        found = survey(self)
        (folder / "00.txt").write_text("something else entirely")
        return found

    monkeypatch.setattr(Source, "survey", changing)
    with pytest.raises(InvalidConfiguration, match="must not change while it is read"):
        open_corpus(dataclasses.replace(fresh, corpus=str(folder)))


def test_interrupted_build_leaves_nothing_that_is_used(fresh: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Source.documents
    readings = iter(range(10))

    def interrupted(self: Source, paths: tuple[Path, ...]) -> Iterator[Parts]:
        if next(readings) == 2:  # while the tokens are being written
            yield iter((b"half of it",))
            raise KeyboardInterrupt
        yield from read(self, paths)

    config = dataclasses.replace(fresh, tokenizer="bpe:300")
    monkeypatch.setattr(Source, "documents", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_corpus(config)
    assert not list(Path(config.cache_dir, "tokens").iterdir())
    monkeypatch.undo()
    assert len(open_corpus(config).holdout)


def test_leftovers_of_a_killed_build_are_cleared(fresh: DataConfig) -> None:
    whole = np.array(open_corpus(fresh).train)
    folder = token_folder(fresh)
    left = folder.rename(folder.with_name(f".{folder.name}.unfinished"))
    os.utime(left, (1, 1))
    assert np.array_equal(open_corpus(fresh).train, whole)
    assert token_folder(fresh) == folder


def test_two_processes_at_once_make_one_cache(fresh: DataConfig) -> None:
    script = (
        "import json, sys\n"
        "from autotune_model.config import DataConfig\n"
        "from autotune_model.tokens import open_corpus\n"
        "config = DataConfig.from_mapping(json.loads(sys.argv[1]))\n"
        "print(open_corpus(config).train.sum())\n"
    )
    command = [sys.executable, "-P", "-c", script, json.dumps(fresh.to_mapping())]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert sums == {f"{open_corpus(fresh).train.sum()}\n"}
    assert token_folder(fresh)


def batches(corpus: Corpus, *, seed: int = 0, sequence_length: int = 16) -> Batches:
    return Batches(corpus, sequence_length=sequence_length, sequences_per_step=8, seed=seed)


def test_stream_is_the_same_however_it_is_grouped(corpus: Corpus) -> None:
    in_eights = [batches(corpus).take(first, 8) for first in range(0, 48, 8)]
    in_twos = [batches(corpus).take(first, 2) for first in range(0, 48, 2)]
    for eights, twos in zip(zip(*in_eights, strict=True), zip(*in_twos, strict=True), strict=True):
        assert torch.equal(torch.cat(eights), torch.cat(twos))


def test_targets_are_the_tokens_one_further_on(corpus: Corpus) -> None:
    tokens, targets = batches(corpus).take(0, 4)
    assert tokens.shape == targets.shape == (4, 16)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


def test_an_epoch_sees_every_window_once_and_the_next_in_another_order(corpus: Corpus) -> None:
    windows = (len(corpus.train) - 1) // 16
    source = batches(corpus)
    first, second = source.take(0, windows)[0], source.take(windows, windows)[0]
    expected = torch.from_numpy(corpus.train[: windows * 16].astype(np.int64)).view(windows, 16)
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(expected.tolist())
    assert not torch.equal(first, second)
    assert torch.equal(source.take(0, windows)[0], first)  # and back again


def test_seeds_differ(corpus: Corpus) -> None:
    assert not torch.equal(batches(corpus, seed=0).take(0, 8)[0], batches(corpus, seed=1).take(0, 8)[0])


def test_too_little_training_text_is_an_error(corpus: Corpus) -> None:
    with pytest.raises(InvalidConfiguration, match=r"one global batch of 8 sequences of 4096 tokens; got \d+ tokens"):
        batches(corpus, sequence_length=4096)


def test_held_out_windows_are_spread_over_the_held_out_text(corpus: Corpus) -> None:
    tokens, targets = holdout_windows(corpus, sequence_length=16, evaluation_tokens=16 * 8)
    assert tokens.shape == targets.shape == (8, 16)
    assert tokens[0].tolist() == corpus.holdout[:16].tolist()
    stride = (len(corpus.holdout) - 1) // 16 * 7 // 8
    assert tokens[7].tolist() == corpus.holdout[16 * stride : 16 * stride + 16].tolist()


def test_too_little_held_out_text_is_an_error(corpus: Corpus) -> None:
    with pytest.raises(InvalidConfiguration, match=r"must hold 62500 sequences of 16 tokens .*fewer evaluation_tokens"):
        holdout_windows(corpus, sequence_length=16, evaluation_tokens=1_000_000)
