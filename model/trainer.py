"""One training session in this process: a model, its data and optimizer, advanced in timed slices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch._dynamo  # the first optimizer would import it, a second or two in the middle of the set-up
from torch import Tensor

from model.config import SessionConfig
from model.data import Batches, holdout_windows
from model.device import StepTimer, peak_memory_bytes, synchronize, to_device
from model.failures import Diverged
from model.gpt import GPT
from model.optim import build_optimizer, updates_made
from model.precision import Precision
from model.protocol import EvaluationReport, SliceReport
from model.schedule import lr_factor
from model.tokens import Corpus


class Trainer:
    """Trains one configuration, deterministically for a seed: same weights, same data order, same dropout."""

    def __init__(self, session: SessionConfig, corpus: Corpus, device: torch.device) -> None:
        training = session.training
        if training.threads:
            torch.set_num_threads(training.threads)
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
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.model
        if training.compile != "off":
            self.loss = torch.compile(self.model, mode=training.compile)
        self.optimizer = build_optimizer(self.model, training)
        self.precision = Precision(training.dtype, device)
        torch.manual_seed(session.seed)  # of dropout; the weights have a generator of their own

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
        factor = lr_factor(training.schedule, training.warmup_fraction, self._progress(self.steps_done))
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
        first = self.steps_done * training.global_batch
        loss = torch.zeros((), device=self.device)
        for sequence in range(first, first + training.global_batch, training.micro_batch):
            loss += self._micro_step(sequence, training.micro_batch)
        self.precision.unscale(self.optimizer)
        if training.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
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

    @property
    def skipped_steps(self) -> int:
        """Steps whose update fp16's loss scaling threw away because a gradient overflowed."""
        return self.steps_done - updates_made(self.optimizer)

    def _micro_step(self, first_sequence: int, count: int) -> Tensor:
        """Add the gradient of `count` sequences; returns their share of the step's mean loss."""
        tokens, targets = self.batches.take(first_sequence, count)
        with self.precision.autocast():
            loss = self.loss(to_device(tokens, self.device), to_device(targets, self.device))
        if self.session.training.accumulation_steps > 1:  # a division is one more node of the graph to walk
            loss = loss / self.session.training.accumulation_steps
        self.precision.backward(loss)
        return loss.detach()

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
