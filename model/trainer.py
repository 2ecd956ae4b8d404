"""One training session in this process: a model, its data and optimizer, advanced in timed slices."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch._dynamo  # the first optimizer would import it, a second or two in the middle of the set-up
from torch import Tensor

from model.config import InvalidConfiguration, SessionConfig
from model.data import Batches, Prefetching, holdout_windows
from model.device import StepTimer, peak_memory_bytes, synchronize, to_device
from model.failures import Diverged
from model.gpt import GPT
from model.gradients import condition_gradients
from model.optim import InBackward, build_optimizer, set_rates, updates_made
from model.precision import MasterWeights, Precision
from model.protocol import EvaluationReport, FingerprintReport, GradientNoiseReport, SliceReport
from model.schedule import dropout_factor, lr_factor, weight_decay_factor
from model.sketch import sketch
from model.tokens import Corpus

_LOGIT_WINDOWS = 2
_EXACT_NORM = 1 << 16  # elements whose squares fp32 can still add up to six digits


class Trainer:
    """Trains one configuration, deterministically for a seed: same weights, same data order, same dropout."""

    def __init__(self, session: SessionConfig, corpus: Corpus, device: torch.device) -> None:
        training = session.training
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.set_float32_matmul_precision(training.matmul_precision)
        if training.pinned_memory and device.type != "cuda":
            raise InvalidConfiguration(
                f"pinned_memory serves copies to a GPU; got device {device.type}: use pinned_memory false"
            )
        self.session = session
        self.device = device
        self.steps_done = 0
        batches = Batches(
            corpus,
            sequence_length=session.gpt.sequence_length,
            sequences_per_step=training.global_batch,
            seed=session.seed,
            index_dtype=training.index_dtype,
        )
        self.batches = Prefetching(batches) if training.prefetch else batches
        self.holdout = holdout_windows(
            corpus, sequence_length=session.gpt.sequence_length, evaluation_tokens=session.evaluation_tokens
        )
        self.holdout_bytes = int(corpus.token_bytes[self.holdout[1].numpy()].sum())
        self.worst_loss = math.log(corpus.vocab_size) + 2.0
        self.model = GPT(session.gpt, training, vocab_size=corpus.vocab_size, seed=session.seed).to(device)
        self.updated = self.model  # what the optimizer works on
        self.masters: MasterWeights | None = None
        if training.dtype == "bf16_master":
            self.model = copy.deepcopy(self.updated).bfloat16()
            self.masters = MasterWeights(self.model, self.updated)
        elif training.dtype == "bf16_pure":
            self.model.bfloat16()
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.model
        if training.compile == "regional":
            self.model.compile_blocks()
        elif training.compile != "off":
            self.loss = torch.compile(self.model, mode=training.compile)
        # Held until the next, as the variable of a plain loop is: where the nodes of its graph die with the pass,
        # glibc gives the pages around them back to the kernel, and a small model's next step has to ask anew.
        self._last_loss: Tensor | None = None
        self._begin()

    def first_pass(self) -> float:
        """Forward and backward over real data as a rehearsal that leaves no trace; returns its seconds.

        It compiles what is to be compiled, and runs out of memory if the session is going to.
        """
        started = time.perf_counter()
        self._micro_step(0, self.session.training.micro_batch)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(self.session.seed)
        return seconds

    def step(self) -> Tensor:
        """One optimizer step over the next global batch; returns its mean loss, a scalar on the device."""
        training = self.session.training
        progress = self._progress(self.steps_done)
        if training.dropout_schedule != "constant":
            self.model.set_dropout(training.dropout * dropout_factor(training.dropout_schedule, progress))
        self._set_rates(
            training.learning_rate * lr_factor(training.schedule, training.warmup_fraction, progress),
            training.weight_decay * weight_decay_factor(training.weight_decay_schedule, progress),
        )
        if isinstance(self.optimizer, InBackward):
            self.optimizer.is_armed = True
            loss = self._accumulate()
            self.optimizer.is_armed = False
        else:
            loss = self._accumulate()
            self._update()
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
        synchronize(self.device)
        seconds = time.perf_counter() - started
        loss_values: list[float] = torch.stack(losses).tolist()
        self._check(loss_values)
        return SliceReport(
            round=round,
            tokens=steps * self.session.tokens_per_step,
            seconds=seconds,
            step_seconds=timer.step_seconds(),
            losses=loss_values,
            peak_memory_bytes=peak_memory_bytes(self.device),
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
            with self.precision.autocast():
                losses = self.model.token_losses(to_device(tokens, self.device), to_device(targets, self.device))
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
        normalisation and clipping; the change of the weights by one step with it at the peak learning rate
        and weight decay. All without dropout, whose masks differ with kernel and micro-batch where the
        mathematics does not.

        Raises:
            Diverged: one of them is no number.
            ValueError: the session has been advanced.
        """
        if self.steps_done:
            raise ValueError(
                f"a fingerprint must be taken before the first step; got it after {self.steps_done}: ask earlier"
            )
        training = self.session.training
        logits = self._sketch_logits()
        # A model without dropout stays as it is: a compiled one would be compiled once more.
        self.model.train(training.dropout == 0.0)
        gradient = self._sketch_gradient()
        before = self._sketch(self.updated.parameters())
        self._set_rates(training.learning_rate, training.weight_decay)
        self._update()
        after = self._sketch(self.updated.parameters())
        update = [new - old for new, old in zip(after, before, strict=True)]  # sketches are linear
        self.model.train()
        self.updated.initialise(self.session.seed)
        if self.masters:
            self.masters.give_weights()
        if isinstance(self.optimizer, InBackward):
            self.optimizer.release()
        self._begin()
        if not all(map(math.isfinite, (*logits, *update))):
            raise Diverged("logits and first update must be numbers; got nan or inf: use another dtype or kernel")
        return FingerprintReport(logits=logits, gradient=gradient, update=update)

    def gradient_noise(self, batches: int) -> GradientNoiseReport:
        """Squared norms of the gradients of the next `batches` global batches, not trained on; leaves no trace.

        Two norms at different batch sizes give the noise scale (McCandlish et al. 2018, arXiv 1812.06162,
        appendix A.1). Besides one micro-batch's gradient it holds the mean of all, in memory as well.

        Raises:
            Diverged: a gradient is no number.
        """
        training = self.session.training
        weights = list(self.updated.parameters())
        mean = [torch.zeros_like(weight) for weight in weights]
        first, batch = self.steps_done * training.global_batch, batches * training.global_batch
        square_norms = []
        with _randomness_kept(self.device):
            for sequence in range(first, first + batch, training.micro_batch):
                gradient = self._true_gradient(sequence, weights)
                square_norms.append(_norm(gradient) ** 2)
                torch._foreach_add_(mean, gradient, alpha=training.micro_batch / batch)
        self.optimizer.zero_grad(set_to_none=True)
        return GradientNoiseReport(
            tokens_seen=self.steps_done * self.session.tokens_per_step,
            micro_batch=training.micro_batch,
            batch=batch,
            micro_square_norm=math.fsum(square_norms) / len(square_norms),
            square_norm=_norm(mean) ** 2,
        )

    @property
    def skipped_steps(self) -> int:
        """Steps whose update fp16's loss scaling threw away because a gradient overflowed."""
        return self.steps_done - updates_made(self.optimizer)

    def _begin(self) -> None:
        """Everything that training changes, but for the weights, as it is before the first step."""
        optimizer = build_optimizer(self.updated, self.session.training)
        self.optimizer = InBackward(optimizer) if self.session.training.optimizer_in_backward else optimizer
        self.precision = Precision(self.session.training.dtype, self.device)
        torch.manual_seed(self.session.seed)  # of dropout; the weights have a generator of their own

    def _accumulate(self) -> Tensor:
        """The gradient of the next global batch, left at its true size; returns its mean loss, a scalar."""
        training = self.session.training
        first = self.steps_done * training.global_batch
        loss = torch.zeros((), device=self.device)
        for sequence in range(first, first + training.global_batch, training.micro_batch):
            loss += self._micro_step(sequence, training.micro_batch)
        self.precision.unscale(self.optimizer)
        return loss

    def _set_rates(self, learning_rate: float, weight_decay: float) -> None:
        set_rates(self.optimizer, learning_rate=learning_rate, weight_decay=weight_decay)

    def _update(self) -> None:
        """Change the weights by the gradient there is, which is gone then."""
        training = self.session.training
        condition_gradients(self.updated.parameters(), training)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=training.set_to_none)
        if self.masters:
            self.masters.give_weights()

    def _micro_step(self, first_sequence: int, count: int) -> Tensor:
        """Add the gradient of `count` sequences; returns their share of the step's mean loss."""
        loss = self._mean_loss(first_sequence, count)
        if self.session.training.accumulation_steps > 1:  # a division is one more node of the graph to walk
            loss = loss / self.session.training.accumulation_steps
        self.precision.backward(loss)
        if self.masters:
            self.masters.take_gradients()
        self._last_loss = loss
        return loss.detach()

    def _mean_loss(self, first_sequence: int, count: int) -> Tensor:
        """The mean loss of `count` sequences, with its graph."""
        tokens, targets = self.batches.take(first_sequence, count)
        pinned = self.session.training.pinned_memory
        tokens, targets = (to_device(rows, self.device, pinned=pinned) for rows in (tokens, targets))
        with self.precision.autocast():
            return self.loss(tokens, targets.long())

    @torch.no_grad()
    def _sketch_logits(self) -> list[float]:
        size = self.session.training.micro_batch
        self.model.eval()
        with self.precision.autocast():
            windows = torch.split(self.holdout[0][:_LOGIT_WINDOWS], size)
            logits = [self.model.logits(to_device(tokens, self.device)) for tokens in windows]
        self.model.train()
        return sketch([torch.cat(logits)])

    def _sketch(self, tensors: Iterable[Tensor]) -> list[float]:
        """Of one tensor for each weight."""
        return sketch(self.updated.without_padding(tensors))

    def _sketch_gradient(self) -> list[float]:
        """Of the gradient of the first global batch, left in place; fp16 that overflows is tried at lower scales."""
        weights = list(self.updated.parameters())
        self._set_rates(0.0, 0.0)
        self._accumulate()
        while not math.isfinite(_norm(_gradients(weights))):
            scale = self.precision.scale
            self._update()  # is skipped and lowers the scale, if there is one
            if not 1.0 <= self.precision.scale < scale:
                raise Diverged("the first gradient must be a number; got nan or inf: use another dtype or kernel")
            self._accumulate()
        return self._sketch(_gradients(weights))

    def _true_gradient(self, first_sequence: int, weights: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the mean loss of one micro-batch, in place of any other.

        An overflow of fp16 is tried again at a lower scale, and the scale of training is left alone.
        """
        scale = self.precision.scale
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._mean_loss(first_sequence, self.session.training.micro_batch)
            (loss * scale).backward()  # type: ignore[no-untyped-call]
            if self.masters:
                self.masters.take_gradients()
            gradient = _gradients(weights)
            if math.isfinite(_norm(gradient)):
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


def _norm(tensors: Sequence[Tensor]) -> float:
    """Of all elements together; an fp32 sum over tens of millions would lose a thousandth."""
    pieces = [piece for tensor in tensors for piece in torch.split(tensor.flatten(), _EXACT_NORM)]
    return float(torch.stack(torch._foreach_norm(pieces)).cpu().double().norm())


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
