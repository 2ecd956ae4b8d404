"""What an executor finds out about the machine that trials run on, and about the text they train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.space.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The tokenized text: its size in tokens, split into training and held-out parts by whole documents."""

    train_tokens: int
    holdout_tokens: int
    documents: int
    bytes_per_token: float
    vocab_size: int
    content_sha256: str


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
