"""Batches: which sequences are trained on, in which order, and which are evaluated."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autotune_model.tokens import Corpus, TokenArray


class Batches:
    """Training sequences in an order that depends only on seed and sequence number.

    The tokens are split into non-overlapping windows; each epoch visits all of them in a new random
    order. The stream is the same however sequences are grouped into micro-batches and steps.
    """

    def __init__(
        self, corpus: Corpus, *, sequence_length: int, sequences_per_step: int, seed: int, index_dtype: str = "int64"
    ) -> None:
        self._dtype = np.dtype(index_dtype)
        self._tokens = corpus.train
        self._length = sequence_length
        self._seed = seed
        self._windows = corpus.training_windows(sequence_length=sequence_length, sequences_per_step=sequences_per_step)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def take(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Sequences `first` to `first + count` as tokens and targets, `(count, T)` each."""
        windows = np.array([self._window(first + i) for i in range(count)])
        return _rows(self._tokens, windows, self._length, self._dtype)

    def _window(self, sequence: int) -> int:
        epoch, position = divmod(sequence, self._windows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._windows)
        return int(self._order[position])


class Prefetching:
    """Batches with the next one read in a background thread during the current one.

    Only that thread touches the source, which caches its epoch's order.
    """

    def __init__(self, batches: Batches, *, ranks: int = 1) -> None:
        """`ranks` processes read in turn, so the next read of this one starts that many takes later."""
        self._batches = batches
        self._ranks = ranks
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._next: tuple[int, int] = (-1, 0)
        self._read: Future[tuple[Tensor, Tensor]] | None = None

    def take(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """See `Batches.take`; the next batch is being read when it returns."""
        if self._read is None or self._next != (first, count):
            self._read = self._reader.submit(self._batches.take, first, count)
        rows = self._read.result()
        self._next = (first + count * self._ranks, count)
        self._read = self._reader.submit(self._batches.take, *self._next)
        return rows


def holdout_windows(corpus: Corpus, *, sequence_length: int, evaluation_tokens: int) -> tuple[Tensor, Tensor]:
    """The held-out windows that every evaluation uses, spread evenly: tokens and targets `(windows, T)`."""
    there, wanted = corpus.evaluation_windows(sequence_length=sequence_length, evaluation_tokens=evaluation_tokens)
    return _rows(corpus.holdout, np.arange(wanted) * there // wanted, sequence_length, np.dtype(np.int64))


def _rows(
    stream: TokenArray, windows: NDArray[np.int64], length: int, dtype: np.dtype[np.integer[Any]]
) -> tuple[Tensor, Tensor]:
    """Tokens of the windows and their targets, shifted by one: `(len(windows), length)` each."""
    positions = windows[:, None] * length + np.arange(length + 1)
    rows = stream[positions].astype(dtype)
    return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())
