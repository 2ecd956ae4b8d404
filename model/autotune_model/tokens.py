"""The tokens of a corpus, cached on disk. Does not import torch.

A corpus is encoded once. Its tokens are in `<cache>/tokens/<key>/`, where the key is a digest of the
documents, the tokenizer and the split; a trained vocabulary is in `<cache>/vocabularies/`.
`<cache>/sources/` maps a fingerprint of the files to the key, so that opening a known corpus reads no text.
Everything carries its checksum, and is made anew where that does not hold.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from numpy.typing import NDArray

from autotune_model import cache, seals, tokenizer
from autotune_model.config import DataConfig, InvalidConfiguration
from autotune_model.corpus import Source, Survey, changed, find_source
from autotune_model.formats import Parts
from autotune_model.holdout import Split, digest_of, largest_whole, passages
from autotune_model.left_out import LeftOut, Reason

_FORMAT = 2
"""Incremented whenever the cache layout or the split changes; older caches are then left unused."""
_AT_ONCE, _AT_ONCE_BYTES = 256, 16 << 20
"""How many passages, and of how many bytes, are encoded in parallel."""
_CHECKED_BLOCKS, _CHECKED_BLOCK_BYTES = 16, 4 << 20
"""What is checked of an array whenever it is opened: all of 64 MiB, or that many blocks of a larger one."""
_STALE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a missing, torn or foreign cache raises."""

TokenArray = NDArray[np.unsignedinteger[Any]]


class _DamagedError(ValueError):
    """Something in the cache is not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """An encoded corpus, memory-mapped.

    `train` and `holdout` are token streams `(N,)`, in which the end of text ends each document and each gap where a
    passage is held out; `token_bytes` `(V,)` is the length of each token in bytes. `bytes_per_token` is of the
    held-out part; `documents`, `text_bytes` and `content_sha256` are of all documents. `vocab_wanted` is the asked
    size of the vocabulary, which a short text cannot fill. `left_out` is what is no text. `cache_damage` says what of
    the cache was damaged and made anew, "" if nothing.
    """

    train: TokenArray
    holdout: TokenArray
    token_bytes: TokenArray
    documents: int
    text_bytes: int
    bytes_per_token: float
    vocab_size: int
    vocab_wanted: int
    content_sha256: str
    left_out: tuple[LeftOut, ...]
    cache_damage: str

    def training_windows(self, *, sequence_length: int, sequences_per_step: int) -> int:
        """How many sequences the training text holds.

        Raises:
            InvalidConfiguration: less than one step needs.
        """
        there = (len(self.train) - 1) // sequence_length
        if there < sequences_per_step:
            raise InvalidConfiguration(
                f"the training text must hold one global batch of {sequences_per_step} sequences of {sequence_length} "
                f"tokens; got {len(self.train)} tokens, {there} sequences: use more text or a smaller batch"
            )
        return there

    def evaluation_windows(self, *, sequence_length: int, evaluation_tokens: int) -> tuple[int, int]:
        """How many sequences the held-out text holds, and how many of them an evaluation needs.

        At least two, or there would be no standard error.

        Raises:
            InvalidConfiguration: there are fewer than needed.
        """
        there = (len(self.holdout) - 1) // sequence_length
        wanted = max(2, evaluation_tokens // sequence_length)
        if there < wanted:
            raise InvalidConfiguration(
                f"the held-out text must hold {wanted} sequences of {sequence_length} tokens for an evaluation; got "
                f"{len(self.holdout)} tokens, {max(0, there)} sequences: use more text or fewer evaluation_tokens"
            )
        return there, wanted


def open_corpus(config: DataConfig, *, thorough: bool = False) -> Corpus:
    """The tokens of a corpus: from the cache, or encoded now. Safe to call from several processes at once.

    `thorough` checks all of the cached arrays, which takes a second for each gigabyte or two; otherwise of arrays of
    more than 64 MiB a sample is checked.

    Raises:
        InvalidConfiguration: the corpus or the tokenizer cannot be used.
        CacheProblem: the cache cannot be written.
    """
    source = find_source(config.corpus, config.text_field)
    root = _cache_dir(config)
    fingerprint = source.fingerprint()
    manifest = root / "sources" / f"{_digest(_FORMAT, fingerprint, config.tokenizer, config.holdout_fraction)}.json"
    damage = ""
    try:
        known = seals.unsealed(manifest.read_text())
        left_out = tuple(_row(row) for row in known["left_out"])
        return _open_tokens(root / "tokens" / known["tokens"], left_out, damage, thorough=thorough)
    except FileNotFoundError:
        pass
    except _STALE as problem:
        damage = _in_words(problem)
    survey = source.survey()
    try:
        return _build(source, survey, config, root, manifest, damage, fingerprint, thorough=thorough)
    except OSError as error:
        raise cache.CacheProblem(
            f"the cache of tokens must be writable and have room; got {error.strerror or error} in {str(root)!r}: "
            "free space there, or set XDG_CACHE_HOME to another folder"
        ) from None


def _open_tokens(folder: Path, left_out: tuple[LeftOut, ...], damage: str, *, thorough: bool) -> Corpus:
    """Memory-map a folder of tokens; raises one of `_STALE` if incomplete or damaged."""
    about = seals.unsealed((folder / "about.json").read_text())
    if about["key"] != folder.name:
        raise _DamagedError("about.json belongs elsewhere")
    arrays: dict[str, Any] = {}
    for name, facts in about["arrays"].items():
        path = folder / f"{name}.bin"
        is_whole = seals.whole(path) == facts["sha256"] if thorough else _sample_of(path) == facts["sample_sha256"]
        if not is_whole:
            raise _DamagedError(f"{path.name} is not what was written")
        arrays[name] = np.memmap(path, dtype=facts["dtype"], mode="r", shape=(facts["length"],))
    return Corpus(**arrays, **about["facts"], left_out=left_out, cache_damage=damage)


def _build(
    source: Source,
    survey: Survey,
    config: DataConfig,
    root: Path,
    manifest: Path,
    damage: str,
    fingerprint: str,
    *,
    thorough: bool,
) -> Corpus:
    """Split, encode and cache a corpus. The text is read again for each step, so it never has to fit in memory."""
    key = _digest(_FORMAT, survey.content_sha256, config.tokenizer, config.holdout_fraction)
    folder = root / "tokens" / key
    try:
        corpus = _open_tokens(folder, survey.left_out, damage, thorough=thorough)  # same text elsewhere, or touched
    except _STALE as problem:
        if folder.exists():
            damage = damage or _in_words(problem)
            cache.remove(folder)
        reading = _Reading.of(source, survey, config.holdout_fraction)
        encoding = _encoding(config.tokenizer, reading, root / "vocabularies" / f"{key}.json")
        with cache.appearing(folder) as unfinished:
            arrays, holdout_bytes = _write_tokens(reading, encoding, unfinished)
            if source.fingerprint() != fingerprint:
                raise changed(config.corpus) from None
            facts = {
                "documents": survey.documents,
                "text_bytes": survey.text_bytes,
                "bytes_per_token": holdout_bytes / arrays["holdout"]["length"],
                "vocab_size": encoding.n_vocab,
                "vocab_wanted": _wanted(config.tokenizer) or encoding.n_vocab,
                "content_sha256": survey.content_sha256,
            }
            cache.write(unfinished / "about.json", seals.sealed({"key": key, "arrays": arrays, "facts": facts}))
        corpus = _open_tokens(folder, survey.left_out, damage, thorough=False)
    rows = [asdict(row) for row in survey.left_out]
    cache.write(manifest, seals.sealed({"tokens": key, "left_out": rows}))
    return corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """Reads the passages of a corpus, each with its side, as often as wanted."""

    source: Source
    paths: tuple[Path, ...]
    whole: int
    held: frozenset[bytes]

    @classmethod
    def of(cls, source: Source, survey: Survey, fraction: float) -> _Reading:
        whole = largest_whole(survey.text_bytes, fraction)
        split = Split(fraction)
        for document in source.documents(survey.paths):
            split.add([(digest_of(passage), len(passage)) for passage in _filled(document, whole)])
        return cls(source=source, paths=survey.paths, whole=whole, held=split.held_out())

    def documents(self) -> Iterator[list[tuple[bool, bytes]] | Iterator[tuple[bool, bytes]]]:
        """Documents as passages, each with whether it is held out."""
        for document in self.source.documents(self.paths):
            yield ((digest_of(passage) in self.held, passage) for passage in _filled(document, self.whole))

    def train_texts(self) -> Iterator[str]:
        for document in self.documents():
            for is_held, passage in document:
                if not is_held:
                    yield passage.decode()


def _filled(document: Parts, whole: int) -> Iterator[bytes]:
    """The passages of a document that are not blank."""
    return (passage for passage in passages(document, whole) if not passage.isspace())


def _write_tokens(reading: _Reading, encoding: tiktoken.Encoding, folder: Path) -> tuple[dict[str, Any], int]:
    """Encode all documents into `train.bin` and `holdout.bin`.

    Returns dtype, length and checksums of each file, and the bytes of text held out.
    """
    dtype = np.min_scalar_type(encoding.n_vocab - 1)
    end = np.array([encoding.eot_token], dtype=dtype)
    lengths, holdout_bytes = {"train": 0, "holdout": 0}, 0
    with (
        ThreadPoolExecutor() as threads,
        cache.private_file(folder / "train.bin") as train,
        cache.private_file(folder / "holdout.bin") as holdout,
    ):
        for batch in _batches(_ended(reading)):
            encoded = threads.map(lambda text: tokenizer.encode(encoding, text), [text for _, text, _ in batch])
            for (is_held, text, ends), tokens in zip(batch, encoded, strict=True):
                side, file = ("holdout", holdout) if is_held else ("train", train)
                row = np.concatenate([tokens.astype(dtype), end]) if ends else tokens.astype(dtype)
                _write(file, row.tobytes())
                lengths[side] += len(row)
                holdout_bytes += len(text) if is_held else 0
    token_bytes = np.array([_bytes_of(encoding, token) for token in range(encoding.n_vocab)], dtype=np.uint16)
    with cache.private_file(folder / "token_bytes.bin") as file:
        _write(file, token_bytes.tobytes())
    shapes = {
        **{side: {"dtype": dtype.name, "length": length} for side, length in lengths.items()},
        "token_bytes": {"dtype": "uint16", "length": len(token_bytes)},
    }
    arrays = {name: shape | _checksums(folder / f"{name}.bin") for name, shape in shapes.items()}
    return arrays, holdout_bytes


def _ended(reading: _Reading) -> Iterator[tuple[bool, bytes, bool]]:
    """Side and text of each passage, and whether the end of text follows: the document ends, or its side does."""
    for document in reading.documents():
        before: tuple[bool, bytes] | None = None
        for is_held, text in document:
            if before:
                yield *before, before[0] is not is_held
            before = (is_held, text)
        if before:
            yield *before, True


def _batches(rows: Iterable[tuple[bool, bytes, bool]]) -> Iterator[list[tuple[bool, bytes, bool]]]:
    batch: list[tuple[bool, bytes, bool]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[1])
        if len(batch) >= _AT_ONCE or size >= _AT_ONCE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _encoding(name: str, reading: _Reading, kept: Path) -> tiktoken.Encoding:
    """The encoding `name`; one trained on this corpus is saved, and reused if its tokens were lost."""
    if name == "bytes":
        return tokenizer.byte_encoding()
    size = _wanted(name)
    if not size:
        return tokenizer.published_encoding(name)
    try:
        return tokenizer.load_encoding(kept)
    except _STALE:
        encoding = tokenizer.train_bpe(reading.train_texts(), size)
        cache.write(kept, tokenizer.saved_encoding(encoding))
        return encoding


def _wanted(name: str) -> int:
    """The size of the vocabulary to train; 0 if none is trained."""
    return int(name.removeprefix("bpe:")) if name.startswith("bpe:") else 0


def _bytes_of(encoding: tiktoken.Encoding, token: int) -> int:
    """How many bytes of text a token represents: 0 for the end of text and for unused token ids."""
    if token == encoding.eot_token:
        return 0
    try:
        return len(encoding.decode_single_token_bytes(token))
    except KeyError:
        return 0


def _checksums(path: Path) -> dict[str, str]:
    return {"sha256": seals.whole(path), "sample_sha256": _sample_of(path)}


def _sample_of(path: Path) -> str:
    return seals.sampled(path, blocks=_CHECKED_BLOCKS, block_bytes=_CHECKED_BLOCK_BYTES)


def _row(plain: dict[str, Any]) -> LeftOut:
    return LeftOut(**plain | {"reason": Reason(plain["reason"]), "examples": tuple(plain["examples"])})


def _in_words(problem: BaseException) -> str:
    return str(problem) if isinstance(problem, _DamagedError) else "a file of it was missing or torn"


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _cache_dir(config: DataConfig) -> Path:
    """`config.cache_dir`, or `autotune` in the user's cache folder (XDG Base Directory Specification)."""
    if config.cache_dir:
        return Path(config.cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotune"
