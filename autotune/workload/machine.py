"""What an executor finds out about the machine that trials run on, and about the text they train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.space.limits import Limits
from autotune_model.left_out import LeftOut as LeftOut


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The tokenized text: its size in tokens, split into training and held-out parts, and what was left out.

    `text_bytes` is the size of all documents as UTF-8; `vocab_wanted` is the vocabulary that was asked for, of which a
    short text fills a part. Both are 0 in old studies. `cache_damage` says what of the cached tokens was damaged and
    made again, "" if nothing.
    """

    train_tokens: int
    holdout_tokens: int
    documents: int
    bytes_per_token: float
    vocab_size: int
    content_sha256: str
    text_bytes: int = 0
    vocab_wanted: int = 0
    left_out: tuple[LeftOut, ...] = ()
    cache_damage: str = ""

    @property
    def is_vocabulary_short(self) -> bool:
        """Whether the text has fewer different tokens than were asked for."""
        return self.vocab_size < self.vocab_wanted


def epochs_of(corpus: Corpus, tokens: int) -> float:
    """How often training on `tokens` reads the training text."""
    return tokens / max(1, corpus.train_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine and the text of a search.

    `environment` names device, versions and memory; `peak_flops` is the measured rate of a matrix product in
    FLOP/s, by arithmetic ("fp32", "bf16", "fp16"); `limits` are the values that probing ruled out;
    `available_bytes` is the memory available to all sessions together, when examined. `examined_seconds` is what that
    took, most of it for the text.
    """

    corpus: Corpus
    environment: Mapping[str, str]
    peak_flops: Mapping[str, float]
    limits: Limits = field(default_factory=dict)
    available_bytes: int = 0
    examined_seconds: float = 0.0
