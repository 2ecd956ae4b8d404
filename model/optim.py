"""AdamW as torch has it, its kernel chosen by the knob `optimizer_kernel`."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW

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


def updates_made(optimizer: AdamW) -> int:
    """How often the weights were really changed: AdamW's own count, which leaves out steps lost to overflow."""
    first = optimizer.param_groups[0]["params"][0]
    return int(optimizer.state[first]["step"].item()) if first in optimizer.state else 0
