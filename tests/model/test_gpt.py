from __future__ import annotations

import math

import pytest
import torch

from autotune_model.config import GPTConfig, TrainingConfig
from autotune_model.gpt import GPT

VOCABULARY = 40
CONFIG = GPTConfig(layers=2, heads=2, width=16, sequence_length=12)


def make(*, tied: bool = False, attention: str = "math", seed: int = 0, dropout: float = 0.0) -> GPT:
    training = TrainingConfig(tied_head=tied, attention=attention, dropout=dropout)
    return GPT(CONFIG, training, vocab_size=VOCABULARY, seed=seed)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(VOCABULARY, (3, 13), generator=generator)
    return rows[:, :-1], rows[:, 1:]


def test_untrained_model_guesses_uniformly(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert make()(*batch).item() == pytest.approx(math.log(VOCABULARY), abs=0.05)


def test_forward_is_the_mean_of_the_token_losses(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    losses = make().token_losses(*batch)
    assert losses.shape == batch[1].shape
    torch.testing.assert_close(make()(*batch), losses.mean())


def test_attention_kernels_agree_in_logits_and_gradients(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    plain, fused = make(attention="math"), make(attention="sdpa")
    torch.testing.assert_close(plain.logits(batch[0]), fused.logits(batch[0]))
    plain(*batch).backward()
    fused(*batch).backward()
    for ours, theirs in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("attention", ["math", "sdpa"])
def test_a_token_sees_no_later_token(batch: tuple[torch.Tensor, torch.Tensor], attention: str) -> None:
    model, tokens = make(attention=attention), batch[0]
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % VOCABULARY
    before, after = model.logits(tokens), model.logits(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_tied_head_shares_storage_and_is_counted_once() -> None:
    tied, untied = make(tied=True), make(tied=False)
    assert tied.head.weight.data_ptr() == tied.token_embedding.weight.data_ptr()
    assert untied.parameter_count - tied.parameter_count == VOCABULARY * CONFIG.width
    assert tied.flops_per_token == untied.flops_per_token


def test_flops_follow_the_formula() -> None:
    in_matrices = CONFIG.layers * 12 * CONFIG.width**2 + VOCABULARY * CONFIG.width
    in_norms = (2 * CONFIG.layers + 1) * CONFIG.width
    attention = 12 * CONFIG.layers * CONFIG.width * CONFIG.sequence_length
    assert make().flops_per_token == 6 * (in_matrices + in_norms) + attention


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    first = make(seed=5, attention="math").state_dict()
    torch.manual_seed(2)
    second = make(seed=5, attention="sdpa", dropout=0.5).state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
    assert not torch.equal(first["head.weight"], make(seed=6).head.weight)


@pytest.mark.parametrize("tied", [False, True])
def test_initialising_again_sets_every_weight(tied: bool) -> None:
    model, fresh = make(tied=tied, seed=3), make(tied=tied, seed=3).state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.initialise(3)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, fresh[name]), name


def test_tied_model_starts_like_its_untied_twin() -> None:
    untied = make(tied=False).state_dict()
    for name, weight in make(tied=True).state_dict().items():
        if name != "head.weight":
            assert torch.equal(weight, untied[name]), name


def test_projections_onto_the_residual_start_smaller() -> None:
    config = GPTConfig(layers=8, heads=1, width=64, sequence_length=4)
    block = GPT(config, TrainingConfig(), vocab_size=10, seed=0).blocks[0]
    for name, expected in [
        ("attention.qkv", 0.02),
        ("attention.projection", 0.005),
        ("mlp_in", 0.02),
        ("mlp_out", 0.005),
    ]:
        assert block.get_submodule(name).weight.std().item() == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize("attention", ["math", "sdpa"])
def test_dropout_acts_in_training_only(batch: tuple[torch.Tensor, torch.Tensor], attention: str) -> None:
    model = make(attention=attention, dropout=0.3)
    assert model(*batch) != model(*batch)
    model.eval()
    assert model(*batch) == model(*batch)


@pytest.mark.parametrize("attention", ["math", "sdpa"])
def test_the_dropout_rate_can_be_changed(batch: tuple[torch.Tensor, torch.Tensor], attention: str) -> None:
    model, plain = make(attention=attention, dropout=0.3), make(attention=attention)
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}
    model.set_dropout(0.0)
    assert model(*batch) == plain(*batch)
    plain.set_dropout(0.3)
    assert plain(*batch) != plain(*batch)
