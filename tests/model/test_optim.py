from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from autotune_model.config import GPTConfig, TrainingConfig
from autotune_model.gpt import GPT
from autotune_model.optim import MuonWithAdamW, build_optimizer, set_rates, updates_made

OPTIMIZERS = ("adamw", "muon", "adafactor")
LOOKED_UP = {"token_embedding.weight", "position_embedding.weight"}
HIDDEN = {f"blocks.0.{name}.weight" for name in ("attention.qkv", "attention.projection", "mlp_in", "mlp_out")}
VECTORS = {f"{name}.weight" for name in ("blocks.0.attention_norm", "blocks.0.mlp_norm", "norm")}


@pytest.fixture
def model() -> GPT:
    config = GPTConfig(layers=1, heads=1, width=8, sequence_length=4)
    return GPT(config, TrainingConfig(tied_head=True), vocab_size=11, seed=0)


def names(model: GPT, groups: Iterable[dict[str, Any]]) -> list[set[str]]:
    """The names of the parameters of each group."""
    by_parameter = {parameter: name for name, parameter in model.named_parameters()}
    return [{by_parameter[parameter] for parameter in group["params"]} for group in groups]


def step(model: GPT, training: TrainingConfig) -> torch.optim.Optimizer:
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


def test_adafactor_has_lists_for_a_fused_kernel_and_muon_turns_its_adamw(model: GPT) -> None:
    for kernel, in_lists in (("for_loop", False), ("foreach", True), ("fused", True)):
        adafactor = build_optimizer(model, TrainingConfig(optimizer="adafactor", optimizer_kernel=kernel))
        assert isinstance(adafactor, torch.optim.Adafactor)
        assert {group["foreach"] for group in adafactor.param_groups} == {in_lists}
        muon = build_optimizer(model, TrainingConfig(optimizer="muon", optimizer_kernel=kernel))
        assert isinstance(muon, MuonWithAdamW)
        for group in muon.parts[0].param_groups:
            assert (group["foreach"], group["fused"]) == (kernel == "foreach", kernel == "fused")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_kernels_make_the_same_update(model: GPT, optimizer: str) -> None:
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    updated = []
    for kernel in ("for_loop", "foreach", "fused"):
        model.load_state_dict(start)
        model.zero_grad()
        step(model, TrainingConfig(optimizer=optimizer, optimizer_kernel=kernel))
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


@pytest.mark.parametrize(
    ("decay_groups", "decayed"),
    [("matrices", HIDDEN | LOOKED_UP), ("all", HIDDEN | LOOKED_UP | VECTORS), ("no_embeddings", HIDDEN)],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_decays_is_what_was_asked_for(model: GPT, optimizer: str, decay_groups: str, decayed: set[str]) -> None:
    training = TrainingConfig(optimizer=optimizer, decay_groups=decay_groups, weight_decay=0.25)
    groups = build_optimizer(model, training).param_groups
    assert {group["weight_decay"] for group in groups if group["decays"]} == {0.25}
    assert set().union(*names(model, [group for group in groups if group["decays"]])) == decayed
    assert all(group["weight_decay"] == 0.0 for group in groups if not group["decays"])
    assert sum(len(group["params"]) for group in groups) == len(HIDDEN | LOOKED_UP | VECTORS)


def test_an_untied_head_is_no_hidden_matrix() -> None:
    config = GPTConfig(layers=1, heads=1, width=8, sequence_length=4)
    model = GPT(config, TrainingConfig(), vocab_size=11, seed=0)
    muon = build_optimizer(model, TrainingConfig(optimizer="muon"))
    assert isinstance(muon, MuonWithAdamW)
    assert names(model, muon.parts[0].param_groups) == [LOOKED_UP | {"head.weight"}, VECTORS]
    assert names(model, muon.parts[1].param_groups) == [HIDDEN]


def test_muon_and_its_adamw_step_as_one(model: GPT) -> None:
    training = TrainingConfig(optimizer="muon", weight_decay=0.0)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = torch.arange(8).view(2, 4)
    optimizer = build_optimizer(model, training)
    for rate, moves in ((0.0, False), (0.1, True)):
        set_rates(optimizer, learning_rate=rate, weight_decay=0.0)
        model(tokens, tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(weight, start[name]) is not moves for name, weight in model.state_dict().items())
    assert set(optimizer.state) == set(model.parameters())


def test_muon_makes_updates_as_large_as_those_of_adamw(model: GPT) -> None:
    """0.2 times the learning rate, root mean square, whatever the shape; its five iterations are off by a third."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    step(model, TrainingConfig(optimizer="muon", learning_rate=0.1, weight_decay=0.0))
    for name in HIDDEN:
        change = model.get_parameter(name).detach() - before[name]
        assert change.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.35), name


def test_beta2_is_that_of_adamw_and_of_the_adamw_beside_muon(model: GPT) -> None:
    for optimizer in ("adamw", "muon"):
        groups = build_optimizer(model, TrainingConfig(optimizer=optimizer, beta2=0.99)).param_groups
        assert {group["betas"] for group in groups if "betas" in group} == {(0.9, 0.99)}
    assert build_optimizer(model, TrainingConfig()).param_groups[0]["betas"] == (0.9, 0.95)


def test_rates_are_set_where_they_belong(model: GPT) -> None:
    for name in OPTIMIZERS:
        optimizer = build_optimizer(model, TrainingConfig(optimizer=name))
        set_rates(optimizer, learning_rate=0.5, weight_decay=0.75)
        for group in optimizer.param_groups:
            assert (group["lr"], group["weight_decay"]) == (0.5, 0.75 if group["decays"] else 0.0)


@pytest.mark.parametrize("kernel", ["for_loop", "foreach", "fused"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_updates_are_counted(model: GPT, optimizer: str, kernel: str) -> None:
    training = TrainingConfig(optimizer=optimizer, optimizer_kernel=kernel)
    assert updates_made(build_optimizer(model, training)) == 0
    assert updates_made(step(model, training)) == 1
