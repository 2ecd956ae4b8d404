"""AdamW as torch has it, its kernel chosen by the knob `optimizer_kernel`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from model.config import TrainingConfig

BETAS = (0.9, 0.95)
"""GPT-3's (arXiv 2005.14165, appendix B): a second moment that forgets within 20 steps suits short runs."""


def build_optimizer(model: nn.Module, training: TrainingConfig) -> AdamW:
    """AdamW over all parameters of `model`, with decoupled weight decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return AdamW(
        groups,
        lr=training.learning_rate,
        betas=BETAS,
        foreach=training.optimizer_kernel == "foreach",
        fused=training.optimizer_kernel == "fused",
    )


class InBackward:
    """An optimizer for each parameter by itself, which steps it the moment its gradient is complete.

    The gradient is freed at once, so that never more than one of them stands in memory. While `is_armed`
    is False gradients are left in place, and `step` makes the same update from them.
    """

    def __init__(self, whole: AdamW) -> None:
        """`whole` is an optimizer over all parameters, which is taken apart and not used itself."""
        self.is_armed = False
        self._parts: dict[Tensor, Optimizer] = {
            parameter: AdamW([{**group, "params": [parameter]}])
            for group in whole.param_groups
            for parameter in group["params"]
        }
        self._hooks = [p.register_post_accumulate_grad_hook(self._update) for p in self._parts]  # type: ignore[no-untyped-call]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all parts; what is set in one holds from the next update on."""
        return [group for part in self._parts.values() for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        """Of each parameter that was updated."""
        return {p: part.state[p] for p, part in self._parts.items() if p in part.state}

    def step(self) -> None:
        """Update from the gradients that are in place."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients that are in place."""
        for part in self._parts.values():
            part.zero_grad(set_to_none)

    def release(self) -> None:
        """Leave the parameters alone from now on."""
        for hook in self._hooks:
            hook.remove()

    def _update(self, parameter: Tensor) -> None:
        if self.is_armed:
            self._parts[parameter].step()
            parameter.grad = None


def updates_made(optimizer: AdamW | InBackward) -> int:
    """How often the weights were really changed: AdamW's own count, which leaves out steps lost to overflow."""
    first = optimizer.param_groups[0]["params"][0]
    return int(optimizer.state[first]["step"].item()) if first in optimizer.state else 0
