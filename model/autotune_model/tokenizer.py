"""Text to token ids, always through tiktoken: a vocabulary trained here, a published one, or bytes.

| name | vocabulary |
|---|---|
| `bpe:<V>` | byte-pair encoding trained on the given texts; at most V tokens, including the end of text |
| `bytes` | the 256 bytes and the end of text |
| `gpt2`, `cl100k_base`, ... | tiktoken's, from its cache or the network |
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable
from pathlib import Path

import rustbpe
import tiktoken

from autotune_model.config import InvalidConfiguration

END_OF_TEXT = "<|endoftext|>"
_DOWNLOAD_SECONDS = 30.0
"""Time limit for downloading a published vocabulary (the largest has 4 MB); tiktoken itself has none."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> tiktoken.Encoding:
    """A vocabulary of at most `vocab_size` tokens (fewer if the text has no more pairs), end of text included."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), vocab_size=vocab_size - 1)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    return _encoding(trainer.get_pattern(), ranks)


def byte_encoding() -> tiktoken.Encoding:
    """One token per byte."""
    # Without merges any pattern gives the same tokens; pieces of 16 are encoded faster than single characters.
    return _encoding(r"(?s:.{1,16})", {bytes([value]): value for value in range(256)})


def published_encoding(name: str) -> tiktoken.Encoding:
    """The encoding that tiktoken publishes under `name`.

    Raises:
        InvalidConfiguration: there is no such encoding, or it is neither cached nor available from the network.
    """
    known = tiktoken.list_encoding_names()
    if name not in known:
        raise InvalidConfiguration(
            f'tokenizer must be "bpe:<vocabulary>", "bytes" or one of {", ".join(known)}; got {name!r}: try "bpe:2048"'
        )
    outcome: list[tiktoken.Encoding | Exception] = []

    def fetch() -> None:
        try:
            outcome.append(tiktoken.get_encoding(name))
        except Exception as error:  # any network error; it is shown below
            outcome.append(error)

    fetcher = threading.Thread(target=fetch, daemon=True)
    fetcher.start()
    fetcher.join(_DOWNLOAD_SECONDS)
    result = outcome[0] if outcome else TimeoutError(f"no answer in {_DOWNLOAD_SECONDS:.0f} s")
    if isinstance(result, Exception):
        raise InvalidConfiguration(
            f"the vocabulary {name!r} must be in tiktoken's cache or on the network; got {type(result).__name__}: "
            'set TIKTOKEN_CACHE_DIR to a folder that holds it, or train one with tokenizer "bpe:2048"'
        ) from result
    return result


def save_encoding(encoding: tiktoken.Encoding, path: Path) -> None:
    """Write a trained encoding as JSON: its pattern, and its tokens in base64 in order of rank."""
    tokens = [base64.b64encode(encoding.decode_single_token_bytes(rank)).decode() for rank in range(encoding.eot_token)]
    path.write_text(json.dumps({"pattern": encoding._pat_str, "tokens": tokens}))


def load_encoding(path: Path) -> tiktoken.Encoding:
    """Read what `save_encoding` wrote.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is missing, torn or foreign.
    """
    saved = json.loads(path.read_text())
    return _encoding(saved["pattern"], {base64.b64decode(token): rank for rank, token in enumerate(saved["tokens"])})


def _encoding(pattern: str, ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "autotune", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )
