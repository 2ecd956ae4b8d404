"""Measures what a session computes; the state of training is restored afterwards."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from autotune_model.device import to_device
from autotune_model.failures import Diverged
from autotune_model.protocol import Fingerprint, GradientNoise
from autotune_model.sketch import sketch
from autotune_model.trainer import Trainer

_LOGIT_WINDOWS = 2
_EXACT_NORM = 1 << 16  # elements whose squares fp32 can still sum to six digits


def fingerprint(trainer: Trainer) -> Fingerprint:
    """What a session computes before its first step, as sketches. The session then starts from scratch.

    The logits of two held-out windows; the unscaled gradient of the first global batch, before
    normalisation and clipping; the weight change from one step with it at the peak learning rate and
    weight decay. All without dropout: its masks depend on kernel and micro-batch, although the
    mathematics is the same.

    Raises:
        Diverged: one of them is not finite.
        ValueError: the session has been advanced.
    """
    if trainer.steps_done:
        raise ValueError(
            f"a fingerprint must be taken before the first step; got it after {trainer.steps_done}: ask earlier"
        )
    training = trainer.session.training
    weights = list(trainer.updated.parameters())
    logits = _sketch_logits(trainer)
    # Without dropout, stay in training mode: switching would recompile the model.
    trainer.model.train(training.dropout == 0.0)
    gradient = _sketch_gradient(trainer, weights)
    before = _sketch(trainer, weights)
    trainer.set_rates(training.learning_rate, training.weight_decay)
    trainer.update()
    after = _sketch(trainer, weights)
    update = [new - old for new, old in zip(after, before, strict=True)]  # sketches are linear
    trainer.model.train()
    trainer.start_over()
    if not all(map(math.isfinite, (*logits, *update))):
        raise Diverged("logits and first update must be finite; got nan or inf: use another dtype or kernel")
    return Fingerprint(logits=tuple(logits), gradient=tuple(gradient), update=tuple(update))


def gradient_noise(trainer: Trainer, batches: int) -> GradientNoise:
    """Squared norms of the gradients of the next `batches` global batches, without training on them.

    The smaller batch is one pass: a micro-batch, or one per process if each has different sequences. Two
    norms at different batch sizes give the noise scale (McCandlish et al. 2018, arXiv 1812.06162, appendix
    A.1). Besides one pass's gradient, the mean of all is held in memory.

    Raises:
        Diverged: a gradient is not finite.
    """
    training = trainer.session.training
    weights = list(trainer.updated.parameters())
    mean = [torch.zeros_like(weight) for weight in weights]
    first, batch = trainer.steps_done * training.global_batch, batches * training.global_batch
    square_norms = []
    with _randomness_kept(trainer.device):
        for sequence in range(first, first + batch, training.pass_sequences):
            gradient = _true_gradient(trainer, sequence, weights)
            square_norms.append(_norm(trainer, gradient) ** 2)
            torch._foreach_add_(mean, gradient, alpha=training.pass_sequences / batch)
    trainer.optimizer.zero_grad(set_to_none=True)
    return GradientNoise(
        tokens_seen=trainer.steps_done * trainer.session.tokens_per_step,
        micro_batch=training.pass_sequences,
        batch=batch,
        micro_square_norm=math.fsum(square_norms) / len(square_norms),
        square_norm=_norm(trainer, mean) ** 2,
    )


@torch.no_grad()
def _sketch_logits(trainer: Trainer) -> list[float]:
    windows = torch.split(trainer.holdout[0][:_LOGIT_WINDOWS], trainer.session.training.micro_batch)
    trainer.model.eval()
    logits = [trainer.parallel.logits(to_device(tokens, trainer.device)) for tokens in windows]
    trainer.model.train()
    return sketch([torch.cat(logits)])


def _sketch_gradient(trainer: Trainer, weights: Sequence[Tensor]) -> list[float]:
    """Sketch the gradient of the first global batch and leave it in place; if fp16 overflows, lower its scale."""
    trainer.set_rates(0.0, 0.0)
    trainer.accumulate()
    while not math.isfinite(_norm(trainer, _gradients(weights))):
        scale = trainer.precision.scale
        trainer.update()  # skips the step and lowers the scale, if any
        if not 1.0 <= trainer.precision.scale < scale:
            raise Diverged("the first gradient must be finite; got nan or inf: use another dtype or kernel")
        trainer.accumulate()
    return _sketch(trainer, _gradients(weights))


def _true_gradient(trainer: Trainer, first_sequence: int, weights: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the mean loss of one pass; it replaces any other gradient.

    If fp16 overflows, it is recomputed at a lower scale. The scale of training is unchanged.
    """
    scale = trainer.precision.scale
    while True:
        trainer.optimizer.zero_grad(set_to_none=True)
        backward = functools.partial(_backward, trainer, scale)
        trainer.add_gradient(first_sequence, trainer.session.training.pass_sequences, backward)
        gradient = _gradients(weights)
        if math.isfinite(_norm(trainer, gradient)):
            torch._foreach_div_(gradient, scale)
            return gradient
        if scale <= 1.0:
            raise Diverged("the gradient must be finite; got nan or inf: lower learning_rate")
        scale /= 2.0


def _backward(trainer: Trainer, scale: float, loss: Tensor) -> None:
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    if trainer.masters:
        trainer.masters.take_gradients()


def _gradients(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]


def _sketch(trainer: Trainer, tensors: Sequence[Tensor]) -> list[float]:
    """Sketch the whole tensors, from this process's parts."""
    return sketch(trainer.parallel.whole(tensors))


def _norm(trainer: Trainer, tensors: Sequence[Tensor]) -> float:
    """The norm of the whole tensors, in fp64: an fp32 sum over tens of millions would be off by 0.1 %."""
    return _exact_norm(trainer.parallel.whole(tensors))


def _exact_norm(tensors: Iterable[Tensor]) -> float:
    norms = [torch.stack(torch._foreach_norm(torch.split(t.flatten(), _EXACT_NORM))).cpu() for t in tensors]
    return float(torch.cat(norms).double().norm())


@contextmanager
def _randomness_kept(device: torch.device) -> Iterator[None]:
    """Restore torch's RNG state afterwards; dropout draws its masks from it."""
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        if mps is not None:
            torch.mps.set_rng_state(mps)
