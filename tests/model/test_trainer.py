from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from autotune.trial.types import Evaluation, Slice
from model.config import GPTConfig, InvalidConfiguration, SessionConfig
from model.failures import Diverged
from model.schedule import lr_factor
from model.tokens import Corpus
from model.trainer import Trainer

MakeTrainer = Callable[..., Trainer]

GOLDEN_LOSSES = (5.55068, 5.4451, 5.23861, 4.99861, 4.77634)
"""Five steps of the plain configuration; a change of code that moves them changes what is trained."""


def losses(trainer: Trainer, steps: int = 5) -> list[float]:
    return trainer.advance(steps, round=-1)["losses"]


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    """The gradients of the first global batch, left in place."""
    trainer._add_gradient(0, trainer.session.training.global_batch)
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def test_golden_losses(make_trainer: MakeTrainer) -> None:
    assert losses(make_trainer()) == pytest.approx(GOLDEN_LOSSES, rel=1e-4)


@pytest.mark.parametrize("knobs", [{}, {"attention": "sdpa", "optimizer_kernel": "fused", "micro_batch": 2}])
def test_golden_losses_after_what_leaves_no_trace(make_trainer: MakeTrainer, knobs: dict[str, Any]) -> None:
    trainer = make_trainer(**knobs)
    trainer.first_pass()
    trainer.gradient_noise(2)
    trainer.fingerprint()
    trainer.gradient_noise(1)
    assert losses(trainer) == pytest.approx(GOLDEN_LOSSES, rel=1e-4)


def test_training_learns(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    before = trainer.evaluate()["loss"]
    trainer.advance(20, round=-1)
    assert trainer.evaluate()["loss"] < before - 1.0


def test_micro_batches_add_up_to_the_gradient_of_the_global_batch(make_trainer: MakeTrainer) -> None:
    at_once = gradients(make_trainer(micro_batch=8, global_batch=8))
    for micro_batch in (1, 4):
        accumulated = gradients(make_trainer(micro_batch=micro_batch, global_batch=8))
        for one, other in zip(at_once, accumulated, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "knobs",
    [
        {"micro_batch": 2, "global_batch": 8},
        {"attention": "sdpa"},
        {"optimizer_kernel": "foreach"},
        {"optimizer_kernel": "fused"},
        {"threads": 2},
    ],
)
def test_system_knobs_leave_the_losses_alone(make_trainer: MakeTrainer, knobs: dict[str, Any]) -> None:
    assert losses(make_trainer(**knobs)) == pytest.approx(GOLDEN_LOSSES, rel=1e-4)
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "knobs",
    [
        {"learning_rate": 2e-3},
        {"schedule": "linear", "warmup_fraction": 0.1},
        {"warmup_fraction": 0.0},
        {"clip_norm": 0.01},
        {"weight_decay": 10.0},
        {"tied_head": True},
        {"global_batch": 16},
        {"dtype": "bf16_autocast"},
        {"seed": 1},
    ],
)
def test_other_knobs_and_seeds_do_not(make_trainer: MakeTrainer, knobs: dict[str, Any]) -> None:
    assert losses(make_trainer(**knobs)) != pytest.approx(GOLDEN_LOSSES, rel=1e-6)


def test_dropout_is_the_same_for_a_seed(make_trainer: MakeTrainer) -> None:
    gpt = GPTConfig(layers=1, heads=1, width=8, sequence_length=16, dropout=0.2)
    assert losses(make_trainer(gpt=gpt)) == losses(make_trainer(gpt=gpt))


def test_rehearsal_and_evaluation_leave_no_trace(make_trainer: MakeTrainer) -> None:
    gpt = GPTConfig(layers=1, heads=1, width=8, sequence_length=16, dropout=0.2)
    undisturbed = losses(make_trainer(gpt=gpt), 4)
    trainer = make_trainer(gpt=gpt)
    assert trainer.first_pass() > 0.0
    disturbed = losses(trainer, 2)
    trainer.evaluate()
    assert trainer.model.training
    assert disturbed + losses(trainer, 2) == undisturbed


def test_slice_reports_what_was_trained(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(micro_batch=2, global_batch=4)
    report = trainer.advance(3, round=7)
    assert set(report) == {field.name for field in dataclasses.fields(Slice)}
    assert report["round"] == 7
    assert report["tokens"] == 3 * 4 * 16
    assert len(report["step_seconds"]) == len(report["losses"]) == 3
    assert sum(report["step_seconds"]) <= report["seconds"]
    assert report["peak_memory_bytes"] > 50e6


def test_evaluation_reports_loss_over_the_held_out_windows(make_trainer: MakeTrainer, corpus: Corpus) -> None:
    trainer = make_trainer(micro_batch=1, global_batch=8)
    trainer.advance(2, round=-1)
    report = trainer.evaluate()
    assert set(report) == {field.name for field in dataclasses.fields(Evaluation)}
    assert report["tokens_seen"] == 2 * 8 * 16
    assert report["tokens"] == 8 * 16
    with torch.no_grad():
        windows = trainer.model.token_losses(*trainer.holdout).mean(dim=1)
    assert report["loss"] == pytest.approx(windows.mean().item(), rel=1e-5)
    assert report["stderr"] == pytest.approx((windows.std() / math.sqrt(8)).item(), rel=1e-4)
    evaluated_bytes = (trainer.holdout[1] != corpus.vocab_size - 1).sum().item()  # all but the ends of text
    assert report["bits_per_byte"] == pytest.approx(report["loss"] * 128 / math.log(2) / evaluated_bytes)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_learning_rate_follows_the_schedule(make_trainer: MakeTrainer, schedule: str) -> None:
    trainer = make_trainer(schedule=schedule, warmup_fraction=0.1, learning_rate=0.5)
    rates = []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    for _ in range(22):  # two steps past the horizon
        trainer.step()
    expected = [0.5 * lr_factor(schedule, 0.1, (step + 0.5) / 20) for step in range(22)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("clip_norm", "clipped"), [(0.01, True), (0.0, False)])
def test_gradient_is_clipped_if_asked(make_trainer: MakeTrainer, clip_norm: float, clipped: bool) -> None:
    trainer = make_trainer(clip_norm=clip_norm)
    norms = []

    def measure(*_: object) -> None:
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in trainer.model.parameters()]).item())

    trainer.optimizer.register_step_pre_hook(measure)
    trainer.step()
    assert (norms[0] <= 0.01001) is clipped


def test_threads_are_set(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    make_trainer(threads=3)
    make_trainer(threads=0)
    assert asked == [3]


@pytest.mark.parametrize("mode", ["default", "max-autotune-no-cudagraphs"])
def test_compiled_model_is_trained_and_the_plain_one_evaluated(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    modes: list[str] = []
    passes: list[bool] = []

    def fake_compile(model: torch.nn.Module, *, mode: str) -> Any:
        modes.append(mode)

        def compiled(*batch: torch.Tensor) -> Any:
            passes.append(model.training)
            return model(*batch)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    trainer = make_trainer(compile=mode)
    assert modes == [mode]
    assert losses(trainer) == pytest.approx(GOLDEN_LOSSES, rel=1e-4)
    trainer.evaluate()
    assert passes == [True] * 5


def test_loss_beyond_a_uniform_guess_has_diverged(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(learning_rate=10.0, clip_norm=0.0, warmup_fraction=0.0, schedule="constant")
    with pytest.raises(Diverged, match=r"at most ln\(vocabulary\) \+ 2 = 7.55 after warm-up; got .* in step \d"):
        trainer.advance(20, round=-1)


def test_high_loss_is_forgiven_during_warmup_but_nan_is_not(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(warmup_fraction=0.5)
    trainer.steps_done = 2
    trainer._check([100.0, 100.0])
    with pytest.raises(Diverged, match="got nan in step 1"):
        trainer._check([5.0, math.nan])


def test_evaluation_that_is_no_number_has_diverged(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model.norm.weight.fill_(math.nan)
    with pytest.raises(Diverged, match="held-out loss must be a number"):
        trainer.evaluate()


def test_fp16_updates_that_overflow_are_skipped_and_counted(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(dtype="fp16_autocast")
    trainer.step()
    assert trainer.skipped_steps == 0
    before = trainer.model.head.weight.detach().clone()
    hook = trainer.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer.step()
    hook.remove()
    assert trainer.skipped_steps == 1
    assert torch.equal(trainer.model.head.weight, before)


def test_batch_that_the_text_cannot_fill_is_invalid(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InvalidConfiguration, match="one global batch"):
        make_trainer(micro_batch=4096, global_batch=4096)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, this machine has none")
@pytest.mark.parametrize("dtype", ["fp32", "bf16_autocast", "fp16_autocast"])
def test_cuda_trains_like_the_cpu(make_session: Any, corpus: Corpus, dtype: str) -> None:
    session: SessionConfig = make_session(dtype=dtype, attention="sdpa", optimizer_kernel="fused")
    trainer = Trainer(session, corpus, torch.device("cuda"))
    trainer.first_pass()
    report = trainer.advance(5, round=-1)
    assert report["losses"] == pytest.approx(GOLDEN_LOSSES, rel=1e-2)
    assert all(seconds > 0.0 for seconds in report["step_seconds"])
    assert trainer.evaluate()["loss"] > 0.0
