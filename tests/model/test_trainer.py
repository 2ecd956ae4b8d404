from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from autotune_model.config import InvalidConfiguration, SessionConfig
from autotune_model.failures import Diverged
from autotune_model.inspections import fingerprint, gradient_noise
from autotune_model.schedule import dropout_factor, lr_factor, weight_decay_factor
from autotune_model.tokens import Corpus
from autotune_model.trainer import Trainer

MakeTrainer = Callable[..., Trainer]

GOLDEN_LOSSES = (5.56693, 5.45645, 5.23661, 5.01045, 4.81966)
"""Five steps of the plain configuration; a change of code that moves them changes what is trained."""


def losses(trainer: Trainer, steps: int = 5) -> tuple[float, ...]:
    return trainer.advance(steps, round=-1).losses


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    """The gradients of the first global batch, left in place."""
    trainer.add_gradient(0, trainer.session.training.global_batch)
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def test_golden_losses(make_trainer: MakeTrainer) -> None:
    assert losses(make_trainer()) == pytest.approx(GOLDEN_LOSSES, rel=1e-4)


@pytest.mark.parametrize("knobs", [{}, {"attention": "sdpa", "optimizer_kernel": "fused", "micro_batch": 2}])
def test_golden_losses_after_what_leaves_no_trace(make_trainer: MakeTrainer, knobs: dict[str, Any]) -> None:
    trainer = make_trainer(**knobs)
    trainer.first_pass()
    gradient_noise(trainer, 2)
    fingerprint(trainer)
    gradient_noise(trainer, 1)
    assert losses(trainer) == pytest.approx(GOLDEN_LOSSES, rel=1e-4)


def test_training_learns(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    before = trainer.evaluate().loss
    trainer.advance(20, round=-1)
    assert trainer.evaluate().loss < before - 1.0


@pytest.mark.parametrize("kernel", ["for_loop", "foreach", "fused"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16_autocast"])
@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adamw", 0.03), ("muon", 0.03), ("adafactor", 0.3)])
def test_every_optimizer_learns(
    make_trainer: MakeTrainer, optimizer: str, learning_rate: float, dtype: str, kernel: str
) -> None:
    trainer = make_trainer(optimizer=optimizer, learning_rate=learning_rate, dtype=dtype, optimizer_kernel=kernel)
    before = trainer.evaluate().loss
    trainer.advance(20, round=-1)
    assert trainer.evaluate().loss < before - 2.0
    assert trainer.skipped_steps <= (dtype == "fp16_autocast"), "its scale may be halved once"


@pytest.mark.parametrize("how", ["global", "per_parameter"])
def test_training_learns_from_normalised_gradients(make_trainer: MakeTrainer, how: str) -> None:
    trainer = make_trainer(gradient_normalization=how, clip_value=0.5)
    before = trainer.evaluate().loss
    trainer.advance(20, round=-1)
    assert trainer.evaluate().loss < before - 1.0


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
        {"optimizer": "muon"},
        {"optimizer": "adafactor"},
        {"beta2": 0.9},
        {"clip_value": 0.01},
        {"gradient_normalization": "global"},
        {"gradient_normalization": "per_parameter"},
        {"decay_groups": "all"},
        {"weight_decay_schedule": "cosine"},
        {"dropout": 0.1},
        {"tied_head": True},
        {"global_batch": 16},
        {"dtype": "bf16_autocast"},
        {"seed": 1},
    ],
)
def test_other_knobs_and_seeds_do_not(make_trainer: MakeTrainer, knobs: dict[str, Any]) -> None:
    assert losses(make_trainer(**knobs)) != pytest.approx(GOLDEN_LOSSES, rel=1e-6)


def test_dropout_is_the_same_for_a_seed(make_trainer: MakeTrainer) -> None:
    assert losses(make_trainer(dropout=0.2)) == losses(make_trainer(dropout=0.2))


def test_rehearsal_and_evaluation_leave_no_trace(make_trainer: MakeTrainer) -> None:
    knobs = {"dropout": 0.2, "dropout_schedule": "falling"}
    undisturbed = losses(make_trainer(**knobs), 4)
    trainer = make_trainer(**knobs)
    assert trainer.first_pass() > 0.0
    disturbed = losses(trainer, 2)
    trainer.evaluate()
    assert trainer.model.training
    assert disturbed + losses(trainer, 2) == undisturbed


def test_slice_reports_what_was_trained(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(micro_batch=2, global_batch=4)
    report = trainer.advance(3, round=7)
    assert report.round == 7
    assert report.tokens == 3 * 4 * 16
    assert len(report.step_seconds) == len(report.losses) == 3
    assert sum(report.step_seconds) <= report.seconds
    assert report.peak_memory_bytes > 50e6
    assert report.energy_joules is None, "there is no meter"


class Watched:
    """A meter that counts 2.5 joules more at each reading."""

    name = "counting"

    def __init__(self) -> None:
        self.readings = 0

    def read_joules(self) -> float:
        self.readings += 1
        return 2.5 * self.readings


def test_the_energy_of_a_slice_is_the_difference_of_two_readings(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.meter = Watched()
    assert [trainer.advance(2, round=r).energy_joules for r in range(3)] == [2.5, 2.5, 2.5]
    trainer.evaluate()
    assert trainer.meter.readings == 6, "nothing but slices is charged"


def test_evaluation_reports_loss_over_the_held_out_windows(make_trainer: MakeTrainer, corpus: Corpus) -> None:
    trainer = make_trainer(micro_batch=1, global_batch=8)
    trainer.advance(2, round=-1)
    report = trainer.evaluate()
    assert report.tokens_seen == 2 * 8 * 16
    assert report.tokens == 8 * 16
    with torch.no_grad():
        windows = trainer.model.token_losses(*trainer.holdout).mean(dim=1)
    assert report.loss == pytest.approx(windows.mean().item(), rel=1e-5)
    assert report.stderr == pytest.approx((windows.std() / math.sqrt(8)).item(), rel=1e-4)
    evaluated_bytes = (trainer.holdout[1] != corpus.vocab_size - 1).sum().item()  # all but the ends of text
    assert report.bits_per_byte == pytest.approx(report.loss * 128 / math.log(2) / evaluated_bytes)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd", "inverse_sqrt"])
def test_learning_rate_follows_the_schedule(make_trainer: MakeTrainer, schedule: str, optimizer: str) -> None:
    trainer = make_trainer(schedule=schedule, warmup_fraction=0.1, learning_rate=0.5, optimizer=optimizer)
    rates = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        rates.append(rate)

    trainer.optimizer.register_step_pre_hook(note)
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


@pytest.mark.parametrize(
    ("knobs", "norm", "largest"),
    [
        ({"gradient_normalization": "global", "clip_norm": 0.0}, 1.0, 1.0),
        ({"gradient_normalization": "per_parameter", "clip_norm": 0.0}, math.sqrt(16), 1.0),
        ({"gradient_normalization": "global", "clip_norm": 0.5}, 0.5, 1.0),
    ],
)
def test_gradient_is_normalised_if_asked(
    make_trainer: MakeTrainer, knobs: dict[str, Any], norm: float, largest: float
) -> None:
    trainer = make_trainer(**knobs)
    norms = []

    def measure(*_: object) -> None:
        norms.append([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None])

    trainer.optimizer.register_step_pre_hook(measure)
    trainer.step()
    assert torch.stack(norms[0]).norm().item() == pytest.approx(norm, rel=1e-4)
    assert max(norms[0]).item() <= largest + 1e-4


def test_elements_of_the_gradient_are_clipped_if_asked(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(clip_value=1e-4)
    largest = []

    def measure(*_: object) -> None:
        largest.append(max(p.grad.abs().max().item() for p in trainer.model.parameters() if p.grad is not None))

    trainer.optimizer.register_step_pre_hook(measure)
    trainer.step()
    assert largest == [pytest.approx(1e-4)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_weight_decay_follows_its_schedule(make_trainer: MakeTrainer, schedule: str, optimizer: str) -> None:
    trainer = make_trainer(weight_decay=0.3, weight_decay_schedule=schedule, optimizer=optimizer)
    decays = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        decays.append({group["weight_decay"] for group in optimizer.param_groups})

    trainer.optimizer.register_step_pre_hook(note)
    for _ in range(22):  # two steps past the horizon
        trainer.step()
    expected = [{0.3 * weight_decay_factor(schedule, (step + 0.5) / 20), 0.0} for step in range(22)]
    assert decays == expected  # matrices, and vectors that never decay


@pytest.mark.parametrize(
    ("schedule", "first", "last"), [("constant", 0.4, 0.4), ("falling", 0.39, 0.0), ("rising", 0.01, 0.4)]
)
def test_dropout_rate_follows_its_schedule(make_trainer: MakeTrainer, schedule: str, first: float, last: float) -> None:
    trainer = make_trainer(dropout=0.4, dropout_schedule=schedule)
    rates = []

    def note(model: torch.nn.Module, _: object) -> None:
        (rate,) = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        rates.append(rate)

    trainer.model.register_forward_pre_hook(note)
    for _ in range(22):  # two steps past the horizon
        trainer.step()
    assert rates == pytest.approx([0.4 * dropout_factor(schedule, (step + 0.5) / 20) for step in range(22)])
    assert (rates[0], rates[-1]) == pytest.approx((first, last))


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
    with pytest.raises(Diverged, match="held-out loss must be finite"):
        trainer.evaluate()


@pytest.mark.parametrize("where", ["head.weight", "blocks.0.mlp_in.weight", "norm.weight"])
@pytest.mark.parametrize("kernel", ["for_loop", "fused"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_fp16_updates_that_overflow_are_skipped_and_counted(
    make_trainer: MakeTrainer, optimizer: str, kernel: str, where: str
) -> None:
    trainer = make_trainer(dtype="fp16_autocast", optimizer=optimizer, optimizer_kernel=kernel)
    trainer.step()
    assert trainer.skipped_steps == 0
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    hook = trainer.model.get_parameter(where).register_hook(lambda gradient: gradient * math.inf)
    trainer.step()
    hook.remove()
    assert trainer.skipped_steps == 1
    assert trainer.precision.scale == 65_536.0 / 2  # one step, one look at the scale
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    trainer.step()
    assert trainer.skipped_steps == 1
    hook = trainer.model.get_parameter(where).register_hook(lambda gradient: gradient * math.inf)
    assert trainer.advance(2, round=-1).skipped_steps == 2
    hook.remove()
    assert trainer.advance(1, round=-1).skipped_steps == 0


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
    assert report.losses == pytest.approx(GOLDEN_LOSSES, rel=1e-2)
    assert all(seconds > 0.0 for seconds in report.step_seconds)
    assert trainer.evaluate().loss > 0.0
