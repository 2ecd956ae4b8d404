"""The precision of forward and backward: fp32, autocast to bf16 or fp16 with weights in fp32, or weights in bf16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autotune_model.optim import InBackward

_AUTOCAST_DTYPES = {"bf16_autocast": torch.bfloat16, "fp16_autocast": torch.float16}


class MasterWeights:
    """An fp32 copy of a bf16 model, which the optimizer updates (Micikevicius et al., arXiv 1710.03740)."""

    def __init__(self, model: nn.Module, master: nn.Module) -> None:
        """`master` is `model` before its weights were rounded to bf16."""
        self._weights: list[Tensor] = list(model.parameters())
        self._masters: list[Tensor] = list(master.parameters())

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Move the gradients of a backward pass to the copy, summed in fp32."""
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight.grad is not None:
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                weight.grad = None

    @torch.no_grad()
    def give_weights(self) -> None:
        """Copy the updated weights to the model."""
        torch._foreach_copy_(self._weights, self._masters)


class Precision:
    """A value of the knob `dtype` on a device; fp16 with dynamic loss scaling."""

    def __init__(self, dtype: str, device: torch.device) -> None:
        self._device = device
        self._dtype = _AUTOCAST_DTYPES.get(dtype)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Context manager for a forward pass."""
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None)

    @property
    def scale(self) -> float:
        """The current loss scale: 1 except in fp16."""
        return float(self._scaler.get_scale())

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss, scaled up if fp16 would lose small values."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer | InBackward) -> None:
        """Unscale the gradients, as clipping needs their true size."""
        if isinstance(optimizer, Optimizer):
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer | InBackward) -> None:
        """Update the weights, unless a scaled gradient overflowed: that step is skipped and the scale lowered."""
        if isinstance(optimizer, InBackward):
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()
