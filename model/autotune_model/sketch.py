"""Sketches: a few numbers that summarise tensors of millions, so that two processes can compare what they compute."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

BUCKETS = 256
_CHUNK = 1 << 20  # elements projected at a time, a multiple of BUCKETS: bounds the size of copies


def sketch(tensors: Iterable[Tensor]) -> list[float]:
    """A linear random projection of all elements together onto `BUCKETS` numbers.

    Element i of each tensor, times a random sign determined by the tensor's position and i, is added
    to bucket i mod `BUCKETS`. The norm of the difference of two sketches estimates the norm of the
    difference of the tensors: its square is unbiased, with a relative standard deviation of
    sqrt(2 / BUCKETS) = 9 % if the difference is spread over the buckets. Summed in fp64 on the CPU, so
    linear to the last digits that matter. (Count-sketch: Charikar, Chen & Farach-Colton 2002;
    signed hashing: Weinberger et al. 2009, arXiv 0902.2206.)
    """
    buckets = torch.zeros(BUCKETS, dtype=torch.float64)
    for position, tensor in enumerate(tensors):
        generator = torch.Generator().manual_seed(position)
        for chunk in torch.split(tensor.detach().flatten(), _CHUNK):
            buckets += _project(chunk.cpu().double(), generator)  # in that order: MPS has no fp64
    return buckets.tolist()


def _project(values: Tensor, generator: torch.Generator) -> Tensor:
    """Values `(n,)` with random signs, added up by bucket: `(BUCKETS,)`."""
    signs = torch.randint(0, 2, values.shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1)
    signed = pad(values * signs, (0, -len(values) % BUCKETS))
    return signed.view(-1, BUCKETS).sum(dim=0)
