"""What an executor found out about the machine that trials run on, and about the text they train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.space.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The text as it is trained on: its size in tokens, split by whole documents."""

    train_tokens: int
    holdout_tokens: int
    documents: int
    bytes_per_token: float
    vocab_size: int
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a search stands on.

    `environment` names device, versions and memory; `peak_flops` is the measured rate of a matrix product in
    floating-point operations per second, by arithmetic ("fp32", "bf16", "fp16"); `limits` are what was found by
    trying; `available_bytes` is the memory that all sessions may use together, as it was when examined.
    """

    corpus: Corpus
    environment: Mapping[str, str]
    peak_flops: Mapping[str, float]
    limits: Limits = field(default_factory=dict)
    available_bytes: int = 0
