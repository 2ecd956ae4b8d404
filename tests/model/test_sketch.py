from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_model import sketch as sketch_module
from autotune_model.sketch import BUCKETS, sketch

shapes = st.lists(st.integers(1, 700), min_size=1, max_size=3)


def tensors(sizes: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in sizes]


def norm(numbers: list[float]) -> float:
    return math.hypot(*numbers)


@given(shapes, st.floats(-100.0, 100.0), st.integers(0, 1_000))
@settings(max_examples=30)
def test_a_sketch_is_linear(sizes: list[int], factor: float, seed: int) -> None:
    ours, theirs = tensors(sizes, seed), tensors(sizes, seed + 1)
    both = [a.double() + factor * b.double() for a, b in zip(ours, theirs, strict=True)]
    expected = [a + factor * b for a, b in zip(sketch(ours), sketch(theirs), strict=True)]
    assert sketch(both) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("sizes", [[20_000], [100, 5_000, 3], [256]])
def test_norms_and_distances_are_kept(sizes: list[int]) -> None:
    """The square is unbiased; single ratios of norms spread by 1 / sqrt(2 * 256) = 4.4 % or less."""
    ratios = []
    for seed in range(60):
        ours, theirs = tensors(sizes, 2 * seed), tensors(sizes, 2 * seed + 1)
        distance = norm([a - b for a, b in zip(sketch(ours), sketch(theirs), strict=True)])
        true = math.sqrt(sum(float((a - b).double().square().sum()) for a, b in zip(ours, theirs, strict=True)))
        ratios.append(distance / true)
    assert all(0.8 < ratio < 1.2 for ratio in ratios)
    assert math.fsum(ratio**2 for ratio in ratios) / 60 == pytest.approx(1.0, abs=0.04)


def test_an_element_goes_with_its_sign_to_its_bucket() -> None:
    for index in (0, 5, BUCKETS, 3 * BUCKETS + 7):
        one_hot = torch.zeros(4 * BUCKETS)
        one_hot[index] = 2.0
        found = sketch([one_hot])
        assert len(found) == BUCKETS
        assert abs(found[index % BUCKETS]) == 2.0
        assert norm(found) == 2.0


def test_tensors_and_their_order_are_told_apart() -> None:
    first, second = tensors([500, 500], 3)
    assert sketch([first, second]) != sketch([second, first])
    assert sketch([first, second]) == sketch([first, second])


def test_shape_dtype_and_the_size_of_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(-1_500, 1_500).float()
    whole = sketch([values])
    assert sketch([values.view(30, 100)]) == whole
    assert sketch([values.double()]) == whole
    monkeypatch.setattr(sketch_module, "_CHUNK", 2 * BUCKETS)
    assert sketch([values]) == whole


def test_what_is_no_number_shows() -> None:
    assert not all(map(math.isfinite, sketch([torch.tensor([1.0, math.nan])])))
    assert not all(map(math.isfinite, sketch([torch.tensor([1.0, math.inf])])))
