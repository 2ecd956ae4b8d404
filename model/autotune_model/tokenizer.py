"""Text to token ids, always through tiktoken: a vocabulary trained here, a published one, or bytes.

| name | vocabulary |
|---|---|
| `bpe:<V>` | byte-pair encoding trained on the given texts; at most V tokens, including the end of text |
| `bytes` | the 256 bytes and the end of text |
| `gpt2`, `cl100k_base`, ... | tiktoken's, from its cache or the network |

Both tiktoken and rustbpe split a text by a regular expression and merge within each piece. On a piece of a megabyte
(blanks, one letter, a line of dashes) the expression overflows its stack, and merging takes hours. So a run of one kind
of character is cut after every `LONGEST_RUN`; all other text is encoded as it is.
"""

from __future__ import annotations

import base64
import itertools
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rustbpe
import tiktoken
from numpy.typing import NDArray

from autotune_model import seals
from autotune_model.config import InvalidConfiguration

END_OF_TEXT = "<|endoftext|>"
_BYTES = "bytes"
_DOWNLOAD_SECONDS = 30.0
"""Time limit for downloading a published vocabulary (the largest has 4 MB); tiktoken itself has none."""
LONGEST_RUN = 1024
"""Characters. Longer runs of letters, of blanks, or of what is neither nor a digit are no words."""
_KINDS = (r"[^\W\d_]", r"\d", r"\s", r"(?:[^\w\s]|_)")
"""Letters, digits, blanks, and the rest: what the expressions make pieces of, in all published vocabularies."""
_UNBROKEN = r"[^\s!-@\[-`{-~]"
"""Letters and marks of any kind: some expressions take letters and the accents between them as one piece."""
_RUN = re.compile(
    "|".join(
        f"(?<!{kind}){kind}{{{length},}}"
        for kind, length in (*((kind, LONGEST_RUN) for kind in _KINDS), (_UNBROKEN, 16 * LONGEST_RUN))
    )
)
_SUSPECT = re.compile("|".join(f"{kind}{{{LONGEST_RUN // 2}}}" for kind in (*_KINDS, _UNBROKEN)))
"""Half a run: every run has one that starts at a multiple of its length, so few places need a look."""
_TRAINED_AT_ONCE = 64
"""Texts that rustbpe holds in memory at once; each has some megabytes at most."""


def bounded(text: str) -> Iterator[str]:
    """The text in parts without a run that a tokenizer chokes on: nearly always one, the text itself.

    A cut is within a run, so all text outside of runs has the tokens it would have without cuts.
    """
    start = 0
    is_suspect = any(_SUSPECT.match(text, at) for at in range(0, len(text), LONGEST_RUN // 2))
    for run in _RUN.finditer(text) if is_suspect else ():
        for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]


def encode(encoding: tiktoken.Encoding, text: bytes) -> NDArray[np.unsignedinteger[Any]]:
    """The tokens of a text in UTF-8, in which special tokens are text like any other.

    Raises:
        InvalidConfiguration: the tokenizer cannot encode it.
    """
    if encoding.name == _BYTES:
        return np.frombuffer(text, dtype=np.uint8)
    with _translated(text):
        rows = [encoding.encode_to_numpy(part, disallowed_special=()) for part in bounded(text.decode())]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def train_bpe(texts: Iterable[str], vocab_size: int) -> tiktoken.Encoding:
    """A vocabulary of at most `vocab_size` tokens (fewer if the text has no more pairs), end of text included.

    Raises:
        InvalidConfiguration: the tokenizer cannot read the texts.
    """
    trainer = rustbpe.Tokenizer()
    parts = itertools.chain.from_iterable(map(bounded, texts))
    with _translated(b""):
        trainer.train_from_iterator(parts, vocab_size=vocab_size - 1, buffer_size=_TRAINED_AT_ONCE)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    return _encoding(trainer.get_pattern(), ranks)


@contextmanager
def _translated(text: bytes) -> Iterator[None]:
    """Turns what the tokenizers raise into our own error.

    They are written in Rust: older versions panic, which is no `Exception` and would pass every handler.
    """
    try:
        yield
    except InvalidConfiguration:  # from reading the text
        raise
    except BaseException as error:
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        place = f"a passage of {len(text):,} bytes that begins with {text[:40]!r}" if text else "the training text"
        raise InvalidConfiguration(
            f"a text must be such that the tokenizer can split it; it gave up ({_first_line(error)}) on {place}: "
            'leave that text out, or use tokenizer "bytes"'
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:80]


def byte_encoding() -> tiktoken.Encoding:
    """One token per byte. Encoding is `encode`'s, which needs no more memory than the text has bytes."""
    return _encoding(r"(?s:.)", {bytes([value]): value for value in range(256)}, name=_BYTES)


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


def saved_encoding(encoding: tiktoken.Encoding) -> str:
    """A trained encoding as sealed JSON: its pattern, and its tokens in base64 in order of rank."""
    tokens = [base64.b64encode(encoding.decode_single_token_bytes(rank)).decode() for rank in range(encoding.eot_token)]
    return seals.sealed({"pattern": encoding._pat_str, "tokens": tokens})


def load_encoding(path: Path) -> tiktoken.Encoding:
    """Read what `saved_encoding` gave.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is missing, torn or foreign.
    """
    saved = seals.unsealed(path.read_text())
    return _encoding(saved["pattern"], {base64.b64decode(token): rank for rank, token in enumerate(saved["tokens"])})


def _encoding(pattern: str, ranks: dict[bytes, int], name: str = "autotune") -> tiktoken.Encoding:
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)})
