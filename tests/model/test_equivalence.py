"""The equivalence gate on real sessions: system knobs pass it, mistakes do not, and it leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from autotune.analysis.gates import equivalence
from autotune.space.configuration import Configuration
from autotune.workload.base import CompareSketches
from autotune.workload.gpt_gate import tolerances_of
from autotune_model.config import GPTConfig, TrainingConfig, default_knobs
from autotune_model.failures import Diverged
from autotune_model.gpt import Attention
from autotune_model.inspections import fingerprint, gradient_noise
from autotune_model.optim import build_optimizer
from autotune_model.precision import Precision
from autotune_model.protocol import Fingerprint
from autotune_model.sketch import sketch
from autotune_model.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
Break = Callable[[pytest.MonkeyPatch], None]

GPT = GPTConfig(layers=2, heads=2, width=64, sequence_length=64)


@pytest.fixture
def take(make_trainer: MakeTrainer) -> Callable[..., Fingerprint]:
    def take(*, gpt: GPTConfig = GPT, **knobs: Any) -> Fingerprint:
        return fingerprint(make_trainer(gpt=gpt, **knobs))

    return take


def gate(**knobs: Any) -> CompareSketches:
    """What two sessions may differ by, one with these knobs and one without."""
    return tolerances_of(Configuration(TrainingConfig(**knobs).to_mapping()), Configuration(default_knobs()))


@pytest.mark.parametrize("dtype", ["fp32", "fp16_autocast", "bf16_autocast", "bf16_master", "bf16_pure"])
@pytest.mark.parametrize(
    "knobs",
    [
        {"micro_batch": 2},
        {"attention": "sdpa"},
        {"attention": "flash", "checkpointing": True, "prefetch": True, "index_dtype": "int32"},
        {"vocab_multiple": 64, "tied_head": False},
        {"loss_kernel": "chunked", "qkv_layout": "contiguous", "set_to_none": False},
        {"optimizer_kernel": "foreach"},
        {"attention": "sdpa", "micro_batch": 1, "optimizer_kernel": "fused"},
        {"dropout": 0.2, "attention": "sdpa", "micro_batch": 4},
    ],
)
def test_system_knobs_and_dtypes_compute_the_same(
    take: Callable[..., Fingerprint], knobs: dict[str, Any], dtype: str
) -> None:
    baseline = take(dropout=knobs.get("dropout", 0.0))
    assert equivalence(take(dtype=dtype, **knobs), baseline, gate(dtype=dtype)) is None


def test_products_of_medium_precision_are_as_coarse_as_bf16(take: Callable[..., Fingerprint]) -> None:
    assert equivalence(take(matmul_precision="medium"), take(), gate(matmul_precision="medium")) is None


def test_an_update_in_the_backward_pass_is_the_same_update(take: Callable[..., Fingerprint]) -> None:
    plain = take(clip_norm=0.0)
    assert equivalence(take(clip_norm=0.0, optimizer_in_backward=True), plain, gate()) is None


@pytest.mark.parametrize("dtype", ["fp32", "bf16_autocast"])
@pytest.mark.parametrize("optimizer", ["muon", "adafactor"])
@pytest.mark.parametrize("kernel", ["foreach", "fused"])
def test_other_optimizers_compute_the_same(
    take: Callable[..., Fingerprint], optimizer: str, kernel: str, dtype: str
) -> None:
    ours = take(optimizer=optimizer, optimizer_kernel=kernel, dtype=dtype, attention="sdpa", micro_batch=2)
    assert equivalence(ours, take(optimizer=optimizer), gate(dtype=dtype, optimizer=optimizer)) is None


def without_causal_mask(patch: pytest.MonkeyPatch) -> None:
    sdpa = functional.scaled_dot_product_attention
    patch.setattr(functional, "scaled_dot_product_attention", lambda *qkv, is_causal, **rest: sdpa(*qkv, **rest))


def with_a_mask_off_by_one(patch: pytest.MonkeyPatch) -> None:
    exact = Attention.__init__

    def off_by_one(self: Attention, config: GPTConfig, kernel: str) -> None:
        exact(self, config, TrainingConfig())
        self.future = self.future.triu(diagonal=2)

    patch.setattr(Attention, "__init__", off_by_one)


def without_division_of_the_loss(patch: pytest.MonkeyPatch) -> None:
    exact = Precision.backward
    patch.setattr(Precision, "backward", lambda self, loss: exact(self, loss * 2))  # of two passes


def without_bias_correction(patch: pytest.MonkeyPatch) -> None:
    def long_since_started(model: torch.nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
        optimizer = build_optimizer(model, training)
        for p in model.parameters():
            moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.tensor(1e6), **moments}
        return optimizer

    patch.setattr("autotune_model.trainer.build_optimizer", long_since_started)


@pytest.mark.parametrize("dtype", ["fp32", "fp16_autocast", "bf16_autocast"])
@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (without_causal_mask, "logits"),
        (with_a_mask_off_by_one, "logits"),
        (without_division_of_the_loss, "gradient"),
        (without_bias_correction, "update"),
    ],
)
def test_mistakes_are_found_and_named(
    take: Callable[..., Fingerprint], monkeypatch: pytest.MonkeyPatch, break_it: Break, what: str, dtype: str
) -> None:
    baseline = take()
    knobs = {"dtype": dtype, "attention": "sdpa", "micro_batch": 4}
    assert equivalence(take(**knobs), baseline, gate(dtype=dtype)) is None
    break_it(monkeypatch)
    found = equivalence(take(**knobs), baseline, gate(dtype=dtype))
    assert found is not None
    assert found.what == what


def test_a_forgotten_weight_decay_is_found_in_fp32(take: Callable[..., Fingerprint]) -> None:
    found = equivalence(take(weight_decay=0.0), take(weight_decay=0.1), gate())
    assert found is not None
    assert found.what == "update"


def test_another_seed_is_another_fingerprint(take: Callable[..., Fingerprint]) -> None:
    assert equivalence(take(seed=1), take(), gate(dtype="bf16_autocast")) is not None


# -- what is measured --------------------------------------------------------------------------------


def test_the_update_is_one_step_at_the_peak_rate_after_clipping(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms, rates = [], []

    def watched(model: torch.nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
        def watch(optimizer: torch.optim.Optimizer, *_: object) -> None:
            rates.append(optimizer.param_groups[0]["lr"])
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())

        optimizer = build_optimizer(model, training)
        optimizer.register_step_pre_hook(watch)
        return optimizer

    monkeypatch.setattr("autotune_model.trainer.build_optimizer", watched)
    report = fingerprint(make_trainer(clip_norm=0.01, learning_rate=3e-3, warmup_fraction=0.5))
    assert rates == [3e-3]
    assert norms == [pytest.approx(0.01, rel=1e-3)]
    assert math.hypot(*report.gradient) > 0.1  # before clipping
    assert math.hypot(*report.update) > 0.0


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_the_update_is_that_of_the_optimizer(make_trainer: MakeTrainer, optimizer: str) -> None:
    knobs = {"optimizer": optimizer, "weight_decay": 1.0, "weight_decay_schedule": "linear"}
    taken = fingerprint(make_trainer(**knobs))
    trainer = make_trainer(**knobs)
    weights = list(trainer.model.parameters())
    before = [weight.detach().clone() for weight in weights]
    trainer.accumulate()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    build_optimizer(trainer.model, trainer.session.training).step()
    change = sketch([weight.detach() - old for weight, old in zip(weights, before, strict=True)])
    assert taken.update == pytest.approx(change, rel=1e-3, abs=1e-6)


def test_a_fingerprint_is_of_the_initial_weights(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.advance(1, round=-1)
    with pytest.raises(ValueError, match="before the first step; got it after 1"):
        fingerprint(trainer)


def test_fp16_that_overflows_is_tried_again_at_a_lower_scale(make_trainer: MakeTrainer) -> None:
    plain = fingerprint(make_trainer(dtype="fp16_autocast"))
    trainer = make_trainer(dtype="fp16_autocast")
    trainer.model.head.weight.register_hook(overflowing_above(100.0))
    report = fingerprint(trainer)
    assert report.gradient == pytest.approx(plain.gradient, rel=0.05, abs=1e-3)
    assert report.logits == plain.logits
    assert trainer.precision.scale == 65_536.0


@pytest.mark.parametrize("dtype", ["fp32", "fp16_autocast"])
def test_a_gradient_that_is_no_number_has_diverged(make_trainer: MakeTrainer, dtype: str) -> None:
    trainer = make_trainer(dtype=dtype)
    trainer.model.head.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(Diverged, match="first gradient"):
        fingerprint(trainer)
    with pytest.raises(Diverged, match="gradient must be finite"):
        gradient_noise(trainer, 1)


def test_logits_that_are_no_numbers_have_diverged(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(trainer.model, "logits", lambda tokens: torch.full((*tokens.shape, 3), math.nan))
    monkeypatch.setattr(trainer.parallel, "loss", lambda *_: sum(p.sum() for p in trainer.model.parameters()))
    with pytest.raises(Diverged, match="logits"):
        fingerprint(trainer)


def overflowing_above(largest: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A hook that makes a gradient infinite if it has been scaled up too far."""
    return lambda gradient: gradient if gradient.abs().max() < largest else gradient * math.inf


# -- no trace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16_autocast", "fp16_autocast"])
@pytest.mark.parametrize("dropout", [{}, {"dropout": 0.2}, {"dropout": 0.4, "dropout_schedule": "rising"}])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"optimizer_kernel": "fused", "attention": "sdpa", "tied_head": True},
        {"optimizer": "muon", "weight_decay_schedule": "linear", "gradient_normalization": "global"},
        {"optimizer": "adafactor", "decay_groups": "all", "clip_value": 0.01},
    ],
)
def test_a_fingerprint_leaves_no_trace(
    make_trainer: MakeTrainer, dropout: dict[str, Any], dtype: str, knobs: dict[str, Any]
) -> None:
    def losses(*, disturbed: bool) -> list[float]:
        trainer = make_trainer(gpt=GPT, dtype=dtype, micro_batch=4, **dropout, **knobs)
        trainer.first_pass()
        if disturbed:
            fingerprint(trainer)
        assert trainer.model.training
        assert trainer.skipped_steps == 0
        found = trainer.advance(3, round=-1).losses
        return [*found, trainer.evaluate().loss, trainer.precision.scale]

    assert losses(disturbed=True) == losses(disturbed=False)


def test_the_gradient_is_that_of_the_compiled_model(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_passes: list[bool] = []

    def fake_compile(model: torch.nn.Module, *, mode: str) -> Any:
        def compiled(*batch: torch.Tensor) -> Any:
            compiled_passes.append(model.training)
            return model(*batch)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    fingerprint(make_trainer(compile="default", micro_batch=4))
    assert compiled_passes == [True, True]  # in training's mode: another would be compiled once more
    compiled_passes.clear()
    fingerprint(make_trainer(compile="default", dropout=0.2))
    assert compiled_passes == [False]
