from __future__ import annotations

import pytest
import torch
from torch import nn

from autotune_model.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("fp32", torch.float32), ("bf16_autocast", torch.bfloat16), ("fp16_autocast", torch.float16)],
)
def test_matrix_products_run_in_the_dtype_and_weights_stay_fp32(dtype: str, expected: torch.dtype) -> None:
    layer = nn.Linear(4, 4)
    seen: list[torch.dtype] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    precision = Precision(dtype, CPU)
    with precision.autocast():
        loss = layer(torch.ones(2, 4)).float().square().mean()
    precision.backward(loss)
    assert seen == [expected]
    assert layer.weight.dtype == torch.float32
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["fp32", "bf16_autocast", "fp16_autocast"])
def test_unscaled_gradients_have_their_true_size(dtype: str) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision = Precision(dtype, CPU)
    precision.backward((2.0 * weight).sum())
    precision.unscale(optimizer)
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    precision.step(optimizer)
    assert weight.tolist() == [-1.0, -1.0, -1.0]


@pytest.mark.parametrize(("dtype", "scale"), [("fp32", 1.0), ("bf16_autocast", 1.0), ("fp16_autocast", 65_536.0)])
def test_only_fp16_scales_losses(dtype: str, scale: float) -> None:
    assert Precision(dtype, CPU).scale == scale
