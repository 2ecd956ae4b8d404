"""What is done to a gradient before the update: each part by itself, and their order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from autotune_model.config import TrainingConfig
from autotune_model.gradients import condition_gradients

MATRIX = [[3.0, 0.0], [0.0, 4.0]]  # of norm 5
VECTOR = [12.0, 0.0]


def conditioned(*gradients: list[float] | list[list[float]], **knobs: float | str) -> list[torch.Tensor]:
    """The gradients afterwards; clipping by norm, on by default, is off."""
    parameters = [nn.Parameter(torch.zeros_like(torch.tensor(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    settings = {"clip_norm": 0.0, **knobs}
    condition_gradients([nn.Parameter(torch.zeros(2)), *parameters], TrainingConfig(**settings))  # type: ignore[arg-type]
    return [p.grad for p in parameters if p.grad is not None]


def test_nothing_is_done_unless_asked_for() -> None:
    matrix, vector = conditioned(MATRIX, VECTOR)
    assert matrix.tolist() == MATRIX
    assert vector.tolist() == VECTOR


def test_the_whole_gradient_is_divided_by_its_norm() -> None:
    matrix, vector = conditioned(MATRIX, VECTOR, gradient_normalization="global")
    torch.testing.assert_close(matrix, torch.tensor(MATRIX) / 13.0)
    torch.testing.assert_close(vector, torch.tensor(VECTOR) / 13.0)


def test_each_tensor_is_divided_by_its_own_norm() -> None:
    matrix, vector = conditioned(MATRIX, VECTOR, gradient_normalization="per_parameter")
    torch.testing.assert_close(matrix, torch.tensor(MATRIX) / 5.0)
    assert vector.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("how", ["global", "per_parameter"])
def test_a_gradient_of_zero_stays_zero(how: str) -> None:
    zero, other = conditioned([0.0, 0.0], VECTOR, gradient_normalization=how)
    assert zero.tolist() == [0.0, 0.0]
    assert other.tolist() == [1.0, 0.0]
    (alone,) = conditioned([0.0, 0.0], gradient_normalization=how)
    assert alone.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("how", ["global", "per_parameter"])
def test_what_is_no_number_stays_none(how: str) -> None:
    (broken,) = conditioned([math.inf, 1.0], gradient_normalization=how)
    assert not torch.isfinite(broken).all()


def test_elements_are_clipped_by_value() -> None:
    matrix, vector = conditioned(MATRIX, [-12.0, 0.5], clip_value=3.5)
    assert matrix.tolist() == [[3.0, 0.0], [0.0, 3.5]]
    assert vector.tolist() == [-3.5, 0.5]


def test_the_norm_is_clipped_after_normalisation_and_elements_after_that() -> None:
    (normalised,) = conditioned(VECTOR, gradient_normalization="global", clip_norm=2.0)
    assert normalised.tolist() == [1.0, 0.0]
    (clipped,) = conditioned(VECTOR, gradient_normalization="global", clip_norm=0.5)
    assert clipped.tolist() == pytest.approx([0.5, 0.0], rel=1e-5)
    (by_default,) = conditioned(VECTOR, gradient_normalization="global", clip_norm=TrainingConfig().clip_norm)
    assert by_default.tolist() == pytest.approx([1.0, 0.0], rel=1e-5), "let pass, and without effect"
    (both,) = conditioned([3.0, 4.0], clip_norm=1.0, clip_value=0.7)
    assert both.tolist() == pytest.approx([0.6, 0.7], rel=1e-5)  # by value first, the norm would be brought to 1
