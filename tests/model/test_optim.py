from __future__ import annotations

import pytest
import torch

from model.config import GPTConfig, TrainingConfig
from model.gpt import GPT
from model.optim import build_optimizer, updates_made


@pytest.fixture
def model() -> GPT:
    config = GPTConfig(layers=1, heads=1, width=8, sequence_length=4)
    return GPT(config, TrainingConfig(tied_head=True), vocab_size=11, seed=0)


def step(model: GPT, training: TrainingConfig) -> torch.optim.AdamW:
    optimizer = build_optimizer(model, training)
    tokens = torch.arange(8).view(2, 4)
    model(tokens, tokens).backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("kernel", "foreach", "fused"), [("for_loop", False, False), ("foreach", True, False), ("fused", False, True)]
)
def test_kernel_is_the_one_asked_for(model: GPT, kernel: str, foreach: bool, fused: bool) -> None:
    optimizer = build_optimizer(model, TrainingConfig(optimizer_kernel=kernel))
    for group in optimizer.param_groups:
        assert (group["foreach"], group["fused"]) == (foreach, fused)


def test_kernels_make_the_same_update(model: GPT) -> None:
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    updated = []
    for kernel in ("for_loop", "foreach", "fused"):
        model.load_state_dict(start)
        model.zero_grad()
        step(model, TrainingConfig(optimizer_kernel=kernel))
        updated.append({name: weight.clone() for name, weight in model.state_dict().items()})
    for name in start:
        torch.testing.assert_close(updated[0][name], updated[1][name])
        torch.testing.assert_close(updated[0][name], updated[2][name])


def test_only_matrices_decay_and_nothing_is_left_out(model: GPT) -> None:
    matrices, vectors = build_optimizer(model, TrainingConfig(weight_decay=0.25)).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.25, 0.0)
    assert all(p.dim() >= 2 for p in matrices["params"])
    assert all(p.dim() < 2 for p in vectors["params"])
    assert sum(p.numel() for p in matrices["params"] + vectors["params"]) == model.parameter_count


def test_updates_are_counted(model: GPT) -> None:
    training = TrainingConfig()
    assert updates_made(build_optimizer(model, training)) == 0
    assert updates_made(step(model, training)) == 1
