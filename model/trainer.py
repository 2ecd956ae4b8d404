"""One training session in this process: a model, its data and optimizer, advanced in timed slices."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch._dynamo  # the first optimizer would import it, a second or two in the middle of the set-up
from torch import Tensor

from model.config import SessionConfig
from model.data import Batches, holdout_windows
from model.device import StepTimer, peak_memory_bytes, synchronize, to_device
from model.failures import Diverged
from model.gpt import GPT
from model.optim import build_optimizer, updates_made
from model.parallel import STRATEGIES, share_threads
from model.precision import Precision
from model.protocol import EvaluationReport, FingerprintReport, GradientNoiseReport, SliceReport
from model.schedule import lr_factor
from model.sketch import sketch
from model.tokens import Corpus

_LOGIT_WINDOWS = 2
_EXACT_NORM = 1 << 16  # elements whose squares fp32 can still add up to six digits


class Trainer:
    """Trains one configuration, deterministically for a seed: same weights, same data order, same dropout."""

    def __init__(self, session: SessionConfig, corpus: Corpus, device: torch.device) -> None:
        training = session.training
        share_threads(training)
        self.session = session
        self.device = device
        self.steps_done = 0
        self.batches = Batches(
            corpus,
            sequence_length=session.gpt.sequence_length,
            sequences_per_step=training.global_batch,
            seed=session.seed,
        )
        self.holdout = holdout_windows(
            corpus, sequence_length=session.gpt.sequence_length, evaluation_tokens=session.evaluation_tokens
        )
        self.holdout_bytes = int(corpus.token_bytes[self.holdout[1].numpy()].sum())
        self.worst_loss = math.log(corpus.vocab_size) + 2.0
        self.model = GPT(
            session.gpt,
            vocab_size=corpus.vocab_size,
            tied_head=training.tied_head,
            attention=training.attention,
            seed=session.seed,
        ).to(device)
        self.parameter_count = self.model.parameter_count  # of the whole: from here on this process has its part
        self.flops_per_token = self.model.flops_per_token
        strategy = STRATEGIES[training.parallelism]
        self.parallel = strategy(self.model, training, device, lambda: self.precision.autocast())
        self._begin()

    def first_pass(self) -> float:
        """Forward and backward over real data as a rehearsal that leaves no trace; returns its seconds.

        It compiles what is to be compiled, and runs out of memory if the session is going to.
        """
        started = time.perf_counter()
        self._add_gradient(0, self.session.training.pass_sequences)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        self.optimizer.zero_grad(set_to_none=True)
        self._seed_dropout()
        return seconds

    def step(self) -> Tensor:
        """One optimizer step over the next global batch; returns this process's part in its mean loss, a scalar."""
        training = self.session.training
        factor = lr_factor(training.schedule, training.warmup_fraction, self._progress(self.steps_done))
        loss = self._accumulate()
        self._update(training.learning_rate * factor)
        self.steps_done += 1
        return loss

    def advance(self, steps: int, round: int) -> SliceReport:
        """Train a slice of `steps` optimizer steps and time it, stalls included.

        Raises:
            Diverged: a loss is no number, or above ln(vocabulary) + 2 after warm-up.
        """
        losses = []
        synchronize(self.device)
        timer = StepTimer(self.device)
        started = time.perf_counter()
        timer.mark()
        for _ in range(steps):
            losses.append(self.step())
            timer.mark()
        mean_losses = self.parallel.whole_losses(torch.stack(losses))
        synchronize(self.device)
        seconds = time.perf_counter() - started
        loss_values: list[float] = mean_losses.tolist()
        self._check(loss_values)
        return SliceReport(
            round=round,
            tokens=steps * self.session.tokens_per_step,
            seconds=seconds,
            step_seconds=timer.step_seconds(),
            losses=loss_values,
            peak_memory_bytes=self.peak_memory(),
        )

    @torch.no_grad()
    def evaluate(self) -> EvaluationReport:
        """Loss on the held-out windows, in the arithmetic of training; changes nothing of the training's state.

        It runs the model uncompiled: compiling a second time for inference costs more than it saves.

        Raises:
            Diverged: the loss is no number.
        """
        size = self.session.training.micro_batch
        self.model.eval()
        windows = []
        for tokens, targets in zip(*(torch.split(rows, size) for rows in self.holdout), strict=True):
            losses = self.parallel.token_losses(to_device(tokens, self.device), to_device(targets, self.device))
            windows.append(losses.mean(dim=1).cpu())
        self.model.train()
        window_losses = torch.cat(windows).double()  # (windows,)
        loss = window_losses.mean().item()
        if not math.isfinite(loss):
            raise Diverged(f"the held-out loss must be a number; got {loss}: lower learning_rate")
        tokens_evaluated = self.holdout[1].numel()
        return EvaluationReport(
            tokens_seen=self.steps_done * self.session.tokens_per_step,
            loss=loss,
            stderr=window_losses.std().item() / math.sqrt(len(window_losses)),
            tokens=tokens_evaluated,
            bits_per_byte=loss * tokens_evaluated / math.log(2) / self.holdout_bytes,
        )

    def fingerprint(self) -> FingerprintReport:
        """What this session computes before its first step, as sketches; then it starts over as if nothing had been.

        The logits of two held-out windows; the gradient of the first global batch at its true size, before
        clipping; the change of the weights by one step with it at the peak learning rate. All without
        dropout, whose masks differ with kernel and micro-batch where the mathematics does not.

        Raises:
            Diverged: one of them is no number.
            ValueError: the session has been advanced.
        """
        if self.steps_done:
            raise ValueError(
                f"a fingerprint must be taken before the first step; got it after {self.steps_done}: ask earlier"
            )
        weights = list(self.model.parameters())
        logits = self._sketch_logits()
        # A model without dropout stays as it is: a compiled one would be compiled once more.
        self.model.train(self.session.gpt.dropout == 0.0)
        gradient = self._sketch_gradient(weights)
        before = self._sketch(weights)
        self._update(self.session.training.learning_rate)
        update = [new - old for new, old in zip(self._sketch(weights), before, strict=True)]  # sketches are linear
        self.model.train()
        self.parallel.initialise(self.session.seed)
        self._begin()
        if not all(map(math.isfinite, (*logits, *update))):
            raise Diverged("logits and first update must be numbers; got nan or inf: use another dtype or kernel")
        return FingerprintReport(logits=logits, gradient=gradient, update=update)

    def gradient_noise(self, batches: int) -> GradientNoiseReport:
        """Squared norms of the gradients of the next `batches` global batches, not trained on; leaves no trace.

        The smaller batch is one pass: a micro-batch, or one for each process with sequences of its own. Two
        norms at different batch sizes give the noise scale (McCandlish et al. 2018, arXiv 1812.06162,
        appendix A.1). Besides one pass's gradient it holds the mean of all, in memory as well.

        Raises:
            Diverged: a gradient is no number.
        """
        training = self.session.training
        weights = list(self.model.parameters())
        mean = [torch.zeros_like(weight) for weight in weights]
        first, batch = self.steps_done * training.global_batch, batches * training.global_batch
        square_norms = []
        with _randomness_kept(self.device):
            for sequence in range(first, first + batch, training.pass_sequences):
                gradient = self._true_gradient(sequence, weights)
                square_norms.append(self._norm(gradient) ** 2)
                torch._foreach_add_(mean, gradient, alpha=training.pass_sequences / batch)
        self.optimizer.zero_grad(set_to_none=True)
        return GradientNoiseReport(
            tokens_seen=self.steps_done * self.session.tokens_per_step,
            micro_batch=training.pass_sequences,
            batch=batch,
            micro_square_norm=math.fsum(square_norms) / len(square_norms),
            square_norm=self._norm(mean) ** 2,
        )

    @property
    def skipped_steps(self) -> int:
        """Steps whose update fp16's loss scaling threw away because a gradient overflowed."""
        return self.steps_done - updates_made(self.optimizer)

    def peak_memory(self) -> int:
        """The most bytes held so far, by all processes on a CPU, by the fullest device elsewhere."""
        return self.parallel.peak_memory(peak_memory_bytes(self.device))

    def _begin(self) -> None:
        """Everything that training changes, but for the weights, as it is before the first step."""
        self.optimizer = build_optimizer(self.model, self.session.training)
        self.precision = Precision(self.session.training.dtype, self.device)
        self._seed_dropout()

    def _seed_dropout(self) -> None:
        torch.manual_seed(self.parallel.seed_of_dropout(self.session.seed))  # the weights have their own generator

    def _accumulate(self) -> Tensor:
        """The gradient of the next global batch, left at its true size; returns this process's part in its loss."""
        batch = self.session.training.global_batch
        loss = self._add_gradient(self.steps_done * batch, batch)
        self.precision.unscale(self.optimizer)
        return loss

    def _update(self, learning_rate: float) -> None:
        """Change the weights by the gradient there is, which is gone then."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.session.training.clip_norm:
            self.parallel.clip_gradient(self.session.training.clip_norm)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)

    def _add_gradient(self, first_sequence: int, count: int) -> Tensor:
        """Add the gradient of the mean loss of `count` sequences; returns this process's part in that loss."""
        return self.parallel.add_gradient(self._take, self.precision.backward, first_sequence, count)

    def _take(self, first_sequence: int, count: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets `(count, T)` on the device."""
        tokens, targets = self.batches.take(first_sequence, count)
        return to_device(tokens, self.device), to_device(targets, self.device)

    @torch.no_grad()
    def _sketch_logits(self) -> list[float]:
        size = self.session.training.micro_batch
        self.model.eval()
        windows = torch.split(self.holdout[0][:_LOGIT_WINDOWS], size)
        logits = [self.parallel.logits(to_device(tokens, self.device)) for tokens in windows]
        self.model.train()
        return sketch([torch.cat(logits)])

    def _sketch_gradient(self, weights: Sequence[Tensor]) -> list[float]:
        """Of the gradient of the first global batch, left in place; fp16 that overflows is tried at lower scales."""
        self._accumulate()
        while not math.isfinite(self._norm(_gradients(weights))):
            scale = self.precision.scale
            self._update(0.0)  # is skipped and lowers the scale, if there is one
            if not 1.0 <= self.precision.scale < scale:
                raise Diverged("the first gradient must be a number; got nan or inf: use another dtype or kernel")
            self._accumulate()
        return self._sketch(_gradients(weights))

    def _sketch(self, tensors: Sequence[Tensor]) -> list[float]:
        """Of the whole tensors that these, one for each parameter here, are this process's part of."""
        return sketch(self.parallel.whole(tensors))

    def _norm(self, tensors: Sequence[Tensor]) -> float:
        """Of the whole tensors that these, one for each parameter here, are this process's part of."""
        return _norm(self.parallel.whole(tensors))

    def _true_gradient(self, first_sequence: int, weights: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the mean loss of one pass, in place of any other.

        An overflow of fp16 is tried again at a lower scale, and the scale of training is left alone.
        """
        scale = self.precision.scale
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            backward = functools.partial(_backward, scale=scale)
            self.parallel.add_gradient(self._take, backward, first_sequence, self.session.training.pass_sequences)
            gradient = _gradients(weights)
            if math.isfinite(self._norm(gradient)):
                torch._foreach_div_(gradient, scale)
                return gradient
            if scale <= 1.0:
                raise Diverged("the gradient must be a number; got nan or inf: lower learning_rate")
            scale /= 2.0

    def _progress(self, step: int) -> float:
        """The share of the horizon at the middle of a step, so that neither the first nor the last has rate zero."""
        return (step + 0.5) / self.session.horizon_steps

    def _check(self, losses: list[float]) -> None:
        """Raise `Diverged` if a loss of the slice that just ended is beyond recovery."""
        for step, loss in enumerate(losses, start=self.steps_done - len(losses)):
            warmed_up = self._progress(step) >= self.session.training.warmup_fraction
            if not math.isfinite(loss) or (warmed_up and loss > self.worst_loss):
                raise Diverged(
                    f"the training loss must be at most ln(vocabulary) + 2 = {self.worst_loss:.2f} after warm-up; "
                    f"got {loss:.2f} in step {step}: lower learning_rate"
                )


def _gradients(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]


def _backward(loss: Tensor, *, scale: float) -> None:
    (loss * scale).backward()  # type: ignore[no-untyped-call]


def _norm(tensors: Iterable[Tensor]) -> float:
    """Of all elements together; an fp32 sum over tens of millions would lose a thousandth."""
    norms = [torch.stack(torch._foreach_norm(torch.split(t.flatten(), _EXACT_NORM))).cpu() for t in tensors]
    return float(torch.cat(norms).double().norm())


@contextmanager
def _randomness_kept(device: torch.device) -> Iterator[None]:
    """Put the state of torch's random numbers back, as if nothing had been drawn; dropout draws its masks."""
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
