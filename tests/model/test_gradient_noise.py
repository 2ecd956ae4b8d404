from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from autotune_model.config import GPTConfig
from autotune_model.inspections import _exact_norm, gradient_noise
from autotune_model.trainer import Trainer

MakeTrainer = Callable[..., Trainer]

SMALL = GPTConfig(layers=1, heads=1, width=8, sequence_length=16)


def square_norm(trainer: Trainer, first: int, count: int) -> float:
    """Of the gradient of the mean loss of `count` sequences in one pass."""
    trainer.model.zero_grad()
    trainer.model(*trainer.batches.take(first, count)).backward()
    return sum(p.grad.double().square().sum().item() for p in trainer.model.parameters() if p.grad is not None)


def test_norms_are_those_of_the_next_batches(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(micro_batch=4, global_batch=8)
    trainer.advance(2, round=-1)
    report = gradient_noise(trainer, 3)
    assert report.tokens_seen == 2 * 8 * 16
    assert (report.micro_batch, report.batch) == (4, 24)
    micro = [square_norm(trainer, first, 4) for first in range(16, 40, 4)]
    assert report.micro_square_norm == pytest.approx(math.fsum(micro) / 6, rel=1e-4)
    assert report.square_norm == pytest.approx(square_norm(trainer, 16, 24), rel=1e-4)
    assert report.square_norm < report.micro_square_norm


@pytest.mark.parametrize(("dtype", "rel"), [("bf16_autocast", 0.03), ("fp16_autocast", 0.003)])
def test_norms_have_their_true_size_in_every_dtype(make_trainer: MakeTrainer, dtype: str, rel: float) -> None:
    exact, rounded = (gradient_noise(trainer, 2) for trainer in (make_trainer(), make_trainer(dtype=dtype)))
    assert rounded.square_norm == pytest.approx(exact.square_norm, rel=rel)
    assert rounded.micro_square_norm == pytest.approx(exact.micro_square_norm, rel=rel)


def test_an_overflow_is_tried_again_and_the_scale_of_training_stays(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(dtype="fp16_autocast", micro_batch=4, global_batch=8)
    undisturbed = gradient_noise(trainer, 2)
    overflows = iter([True, True, False, True, False, False, False])
    hook = trainer.model.head.weight.register_hook(lambda g: g * math.inf if next(overflows) else g)
    report = gradient_noise(trainer, 2)
    hook.remove()
    assert next(overflows, None) is None
    assert report.square_norm == pytest.approx(undisturbed.square_norm, rel=0.003)
    assert trainer.precision.scale == 65_536.0


@pytest.mark.parametrize("dtype", ["fp32", "bf16_autocast", "fp16_autocast"])
def test_measuring_leaves_no_trace(make_trainer: MakeTrainer, dtype: str) -> None:
    def losses(*, disturbed: bool) -> list[float]:
        trainer = make_trainer(gpt=SMALL, dropout=0.2, dtype=dtype, micro_batch=2, global_batch=4)
        found = []
        for _ in range(3):
            if disturbed:
                gradient_noise(trainer, 2)
                assert all(p.grad is None for p in trainer.model.parameters())
            found += trainer.advance(1, round=-1).losses
        return [*found, trainer.evaluate().loss]

    assert losses(disturbed=True) == losses(disturbed=False)


def test_long_gradients_are_measured_to_six_digits() -> None:

    values = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))
    assert _exact_norm([values, values]) == pytest.approx(math.sqrt(2) * values.double().norm().item(), rel=1e-6)
