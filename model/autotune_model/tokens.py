"""The tokens of a corpus, cached on disk. Does not import torch.

A corpus is encoded once. Its tokens are in `<cache>/tokens/<key>/`, where the key is a digest of the
documents, the tokenizer and the split; a trained vocabulary is in `<cache>/vocabularies/`.
`<cache>/sources/` maps a fingerprint of the files (paths, sizes, times) to the key, so that opening
a known corpus reads no text. Everything is fsynced, then renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from numpy.typing import NDArray

from autotune_model import tokenizer
from autotune_model.config import DataConfig
from autotune_model.corpus import Source, find_source, hold_out

_FORMAT = 1
"""Incremented whenever the cache layout or the split changes; older caches are then left unused."""
_DOCUMENTS_AT_ONCE = 256
_STALE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a missing, torn or foreign cache raises."""

TokenArray = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """An encoded corpus, memory-mapped.

    `train` and `holdout` are token streams `(N,)`, each document followed by the end of text;
    `token_bytes` `(V,)` is the length of each token in bytes. `bytes_per_token` is of the
    held-out part; `documents` and `content_sha256` are of all documents.
    """

    train: TokenArray
    holdout: TokenArray
    token_bytes: TokenArray
    documents: int
    bytes_per_token: float
    vocab_size: int
    content_sha256: str


def open_corpus(config: DataConfig) -> Corpus:
    """The tokens of a corpus: from the cache, or encoded now. Safe to call from several processes at once.

    Raises:
        InvalidConfiguration: the corpus or the tokenizer cannot be used.
    """
    source = find_source(config.corpus, config.text_field)
    cache = _cache_dir(config)
    key = _digest(_FORMAT, source.fingerprint(), config.tokenizer, config.holdout_fraction)
    manifest = cache / "sources" / f"{key}.json"
    try:
        return _open_known(cache, manifest)
    except _STALE:
        pass
    with _exclusively(cache / "lock"):
        try:
            return _open_known(cache, manifest)  # another process was quicker
        except _STALE:
            return _build(source, config, cache, manifest)


def _open_known(cache: Path, manifest: Path) -> Corpus:
    return _open_tokens(cache / "tokens" / json.loads(manifest.read_text())["tokens"])


def _open_tokens(folder: Path) -> Corpus:
    """Memory-map a folder of tokens; raises one of `_STALE` if incomplete."""
    about = json.loads((folder / "about.json").read_text())
    if about["key"] != folder.name:
        raise ValueError("these tokens belong elsewhere")
    arrays: dict[str, Any] = {
        name: np.memmap(folder / f"{name}.bin", dtype=shape["dtype"], mode="r", shape=(shape["length"],))
        for name, shape in about["arrays"].items()
    }
    return Corpus(**arrays, **about["facts"])


def _build(source: Source, config: DataConfig, cache: Path, manifest: Path) -> Corpus:
    """Split, encode and cache a corpus. The text is read three times, so it never has to fit in memory."""
    document_bytes: dict[bytes, int] = {}
    content = hashlib.sha256()
    documents = 0
    for text in source.documents():
        digest = _document_digest(text)
        document_bytes[digest] = document_bytes.get(digest, 0) + len(text.encode())
        content.update(digest)
        documents += 1
    held = hold_out(document_bytes, config.holdout_fraction)
    holdout_bytes = sum(document_bytes[digest] for digest in held)
    key = _digest(_FORMAT, content.hexdigest(), config.tokenizer, config.holdout_fraction)
    folder = cache / "tokens" / key
    try:
        corpus = _open_tokens(folder)  # same text at another path, or touched
    except _STALE:
        train_texts = (text for text in source.documents() if _document_digest(text) not in held)
        encoding = _encoding(config.tokenizer, train_texts, cache / "vocabularies" / f"{key}.json")
        with _appearing(folder) as unfinished:
            unfinished.mkdir()
            arrays = _write_tokens(source, held, encoding, unfinished)
            facts = {
                "documents": documents,
                "bytes_per_token": holdout_bytes / arrays["holdout"]["length"],
                "vocab_size": encoding.n_vocab,
                "content_sha256": content.hexdigest(),
            }
            about = {"key": key, "arrays": arrays, "facts": facts}
            (unfinished / "about.json").write_text(json.dumps(about))
        corpus = _open_tokens(folder)
    with _appearing(manifest) as unfinished:
        unfinished.write_text(json.dumps({"tokens": key}))
    return corpus


def _write_tokens(source: Source, held: set[bytes], encoding: tiktoken.Encoding, folder: Path) -> dict[str, Any]:
    """Encode all documents into `train.bin` and `holdout.bin`; returns dtype and length of each file."""
    dtype = np.min_scalar_type(encoding.n_vocab - 1)
    end = np.array([encoding.eot_token], dtype=dtype)
    lengths = {"train": 0, "holdout": 0}
    documents = source.documents()
    with (
        ThreadPoolExecutor() as threads,
        (folder / "train.bin").open("wb") as train,
        (folder / "holdout.bin").open("wb") as holdout,
    ):
        files = {"train": train, "holdout": holdout}
        while texts := list(itertools.islice(documents, _DOCUMENTS_AT_ONCE)):
            encoded = threads.map(lambda text: encoding.encode_to_numpy(text, disallowed_special=()), texts)
            for text, tokens in zip(texts, encoded, strict=True):
                side = "holdout" if _document_digest(text) in held else "train"
                files[side].write(np.concatenate([tokens.astype(dtype), end]).tobytes())
                lengths[side] += len(tokens) + 1
    token_bytes = np.array([_bytes_of(encoding, token) for token in range(encoding.n_vocab)], dtype=np.uint16)
    token_bytes.tofile(folder / "token_bytes.bin")
    return {
        **{side: {"dtype": dtype.name, "length": length} for side, length in lengths.items()},
        "token_bytes": {"dtype": "uint16", "length": len(token_bytes)},
    }


def _encoding(name: str, train_texts: Iterator[str], kept: Path) -> tiktoken.Encoding:
    """The encoding `name`; one trained on this corpus is saved, and reused if its tokens were lost."""
    if name == "bytes":
        return tokenizer.byte_encoding()
    if not name.startswith("bpe:"):
        return tokenizer.published_encoding(name)
    try:
        return tokenizer.load_encoding(kept)
    except _STALE:
        encoding = tokenizer.train_bpe(train_texts, int(name.removeprefix("bpe:")))
        with _appearing(kept) as unfinished:
            tokenizer.save_encoding(encoding, unfinished)
        return encoding


def _bytes_of(encoding: tiktoken.Encoding, token: int) -> int:
    """How many bytes of text a token represents: 0 for the end of text and for unused token ids."""
    if token == encoding.eot_token:
        return 0
    try:
        return len(encoding.decode_single_token_bytes(token))
    except KeyError:
        return 0


def _document_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _cache_dir(config: DataConfig) -> Path:
    """`config.cache_dir`, or `autotune` in the user's cache folder (XDG Base Directory Specification)."""
    if config.cache_dir:
        return Path(config.cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autotune"


@contextmanager
def _exclusively(lock: Path) -> Iterator[None]:
    """Hold a lock file; the kernel releases it however the process ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Create a file or folder atomically: yields the path to write to. Only under the lock."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.parent / f".{target.name}.unfinished"
    _remove(unfinished)  # left by a process that was killed
    try:
        yield unfinished
        for path in [*unfinished.glob("*"), unfinished]:
            _sync(path)
        _remove(target)  # torn or foreign, else it would have been used
        unfinished.rename(target)
        _sync(target.parent)
    finally:
        _remove(unfinished)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
