"""A small made-up corpus and tiny sessions over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_corpus import made_up_documents

from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig
from autotune_model.tokens import Corpus, open_corpus
from autotune_model.trainer import Trainer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small are no work for two, and waiting threads only take the cores from other tests."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("corpus")
    for number, document in enumerate(made_up_documents()):
        (folder / f"{number:02}.txt").write_text(document)
    cache = tmp_path_factory.mktemp("cache")
    return DataConfig(corpus=str(folder), tokenizer="bytes", holdout_fraction=0.2, cache_dir=str(cache))


@pytest.fixture(scope="session")
def corpus(data: DataConfig) -> Corpus:
    return open_corpus(data)


@pytest.fixture(scope="session")
def tiny_gpt() -> GPTConfig:
    return GPTConfig(layers=2, heads=2, width=16, sequence_length=16)


@pytest.fixture(scope="session")
def make_session(data: DataConfig, tiny_gpt: GPTConfig) -> Callable[..., SessionConfig]:
    """A tiny session on the CPU that learns in few steps; keywords are knobs, or `gpt`, `seed`, `horizon_tokens`."""

    def make(
        *, gpt: GPTConfig = tiny_gpt, seed: int = 0, horizon_tokens: int = 16 * 8 * 20, **knobs: Any
    ) -> SessionConfig:
        return SessionConfig(
            gpt=gpt,
            data=data,
            training=TrainingConfig(**{"learning_rate": 1e-2, **knobs}),
            seed=seed,
            horizon_tokens=horizon_tokens,
            evaluation_tokens=16 * 8,
            device="cpu",
        )

    return make


@pytest.fixture
def make_trainer(make_session: Callable[..., SessionConfig], corpus: Corpus) -> Callable[..., Trainer]:
    def make(**settings: Any) -> Trainer:
        return Trainer(make_session(**settings), corpus, torch.device("cpu"))

    return make
