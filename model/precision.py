"""The arithmetic of forward and backward: fp32, or autocast to bf16 or fp16. Weights and update stay fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

_AUTOCAST_DTYPES = {"bf16_autocast": torch.bfloat16, "fp16_autocast": torch.float16}


class Precision:
    """One of `fp32`, `bf16_autocast` and `fp16_autocast` on a device; fp16 with dynamic loss scaling."""

    def __init__(self, dtype: str, device: torch.device) -> None:
        self._device = device
        self._dtype = _AUTOCAST_DTYPES.get(dtype)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None)

    @property
    def scale(self) -> float:
        """What losses are multiplied by now: one, but for fp16."""
        return float(self._scaler.get_scale())

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss, scaled up where fp16 would lose small values."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients back to their true size, as clipping needs them."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights, unless a scaled gradient overflowed: that step is skipped and the scale lowered."""
        self._scaler.step(optimizer)
        self._scaler.update()
