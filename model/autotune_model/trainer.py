"""One training session in this process: a model, its data and optimizer, advanced in timed slices."""

from __future__ import annotations

import copy
import math
import time

import torch
import torch._dynamo  # else the first optimizer imports it, a second or two during set-up
from torch import Tensor

from autotune_model.config import InvalidConfiguration, SessionConfig
from autotune_model.data import Batches, Prefetching, holdout_windows
from autotune_model.device import StepTimer, peak_memory_bytes, synchronize, to_device
from autotune_model.energy import NOT_ASKED, Meter, joules_between
from autotune_model.failures import Diverged
from autotune_model.gpt import GPT
from autotune_model.gradients import condition_gradients
from autotune_model.optim import InBackward, build_optimizer, set_rates, updates_made
from autotune_model.parallel import STRATEGIES, Backward
from autotune_model.precision import MasterWeights, Precision
from autotune_model.processes import share_threads
from autotune_model.protocol import Evaluation, Slice
from autotune_model.schedule import dropout_factor, lr_factor, weight_decay_factor
from autotune_model.tokens import Corpus


class Trainer:
    """Trains one configuration, deterministically for a seed: same weights, same data order, same dropout."""

    def __init__(self, session: SessionConfig, corpus: Corpus, device: torch.device, meter: Meter = NOT_ASKED) -> None:
        """Build the state before the first step; `meter` is read around each slice."""
        training = session.training
        share_threads(training)
        torch.set_float32_matmul_precision(training.matmul_precision)
        if training.pinned_memory and device.type != "cuda":
            raise InvalidConfiguration(
                f"pinned_memory needs a GPU to copy to; got device {device.type}: use pinned_memory false"
            )
        self.session = session
        self.device = device
        self.meter = meter
        self.steps_done = 0
        batches = Batches(
            corpus,
            sequence_length=session.gpt.sequence_length,
            sequences_per_step=training.global_batch,
            seed=session.seed,
            index_dtype=training.index_dtype,
        )
        self.batches = Prefetching(batches, ranks=training.data_ranks) if training.prefetch else batches
        self.holdout = holdout_windows(
            corpus, sequence_length=session.gpt.sequence_length, evaluation_tokens=session.evaluation_tokens
        )
        self.holdout_bytes = int(corpus.token_bytes[self.holdout[1].numpy()].sum())
        self.worst_loss = math.log(corpus.vocab_size) + 2.0
        self.model = GPT(session.gpt, training, vocab_size=corpus.vocab_size, seed=session.seed).to(device)
        self.parameter_count = self.model.parameter_count  # of the whole model: this process may keep a part
        self.flops_per_token = self.model.flops_per_token
        self.updated = self.model  # what the optimizer updates
        self.masters: MasterWeights | None = None
        if training.dtype == "bf16_master":
            self.model = copy.deepcopy(self.updated).bfloat16()
            self.masters = MasterWeights(self.model, self.updated)
        elif training.dtype == "bf16_pure":
            self.model.bfloat16()
        strategy = STRATEGIES[training.parallelism]
        self.parallel = strategy(self.model, training, device, lambda: self.precision.autocast())
        self._begin()

    def first_pass(self) -> float:
        """Run a warm-up forward and backward on real data and undo its effects; returns its seconds.

        It triggers compilation, and runs out of memory if the session would.
        """
        started = time.perf_counter()
        self.add_gradient(0, self.session.training.pass_sequences)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        self.optimizer.zero_grad(set_to_none=True)
        self._seed_dropout()
        return seconds

    def step(self) -> Tensor:
        """One optimizer step over the next global batch; returns this process's part of its mean loss, a scalar."""
        training = self.session.training
        progress = self._progress(self.steps_done)
        if training.dropout_schedule != "constant":
            self.model.set_dropout(training.dropout * dropout_factor(training.dropout_schedule, progress))
        self.set_rates(
            training.learning_rate * lr_factor(training.schedule, training.warmup_fraction, progress),
            training.weight_decay * weight_decay_factor(training.weight_decay_schedule, progress),
        )
        if isinstance(self.optimizer, InBackward):
            self.optimizer.is_armed = True
            loss = self.accumulate()
            self.optimizer.is_armed = False
        else:
            loss = self.accumulate()
            self.update()
        self.steps_done += 1
        return loss

    def advance(self, steps: int, round: int) -> Slice:
        """Train a slice of `steps` optimizer steps and time it, stalls included.

        Raises:
            Diverged: a loss is not finite, or above ln(vocabulary) + 2 after warm-up.
        """
        losses = []
        skipped_before = self.skipped_steps
        synchronize(self.device)
        joules = self.meter.read_joules()  # outside the timed region: NVML is slow to answer
        timer = StepTimer(self.device)
        started = time.perf_counter()
        timer.mark()
        for _ in range(steps):
            losses.append(self.step())
            timer.mark()
        mean_losses = self.parallel.whole_losses(torch.stack(losses))
        synchronize(self.device)
        seconds = time.perf_counter() - started
        energy_joules = joules_between(joules, self.meter.read_joules(), devices=self.parallel.devices)
        loss_values: list[float] = mean_losses.tolist()
        self._check(loss_values)
        return Slice(
            round=round,
            tokens=steps * self.session.tokens_per_step // self.parallel.devices,
            seconds=seconds,
            step_seconds=tuple(timer.step_seconds()),
            losses=tuple(loss_values),
            peak_memory_bytes=self.peak_memory(),
            energy_joules=energy_joules,
            skipped_steps=self.skipped_steps - skipped_before,
        )

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Loss on the held-out windows, in the precision of training; leaves the training state unchanged.

        It runs the model uncompiled: compiling a second time for inference costs more than it saves.

        Raises:
            Diverged: the loss is not finite.
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
            raise Diverged(f"the held-out loss must be finite; got {loss}: lower learning_rate")
        tokens_evaluated = self.holdout[1].numel()
        return Evaluation(
            tokens_seen=self.steps_done * self.session.tokens_per_step,
            loss=loss,
            stderr=window_losses.std().item() / math.sqrt(len(window_losses)),
            tokens=tokens_evaluated,
            bits_per_byte=loss * tokens_evaluated / math.log(2) / self.holdout_bytes,
        )

    @property
    def skipped_steps(self) -> int:
        """Steps whose update fp16 loss scaling skipped because a gradient overflowed."""
        return self.steps_done - updates_made(self.optimizer)

    def peak_memory(self) -> int:
        """The most bytes held so far: by all processes on a CPU, by the fullest device elsewhere."""
        return self.parallel.peak_memory(peak_memory_bytes(self.device))

    def accumulate(self) -> Tensor:
        """Accumulate the unscaled gradient of the next global batch; returns this process's part of its loss."""
        batch = self.session.training.global_batch
        loss = self.add_gradient(self.steps_done * batch, batch)
        self.precision.unscale(self.optimizer)
        return loss

    def add_gradient(self, first_sequence: int, count: int, backward: Backward | None = None) -> Tensor:
        """Add the gradient of the mean loss of `count` sequences; returns this process's part of that loss.

        `backward`, if given, replaces training's backward pass for each micro-batch's loss.
        """
        return self.parallel.add_gradient(self._take, backward or self._backward, first_sequence, count)

    def set_rates(self, learning_rate: float, weight_decay: float) -> None:
        """Set the rates of the next update."""
        set_rates(self.optimizer, learning_rate=learning_rate, weight_decay=weight_decay)

    def update(self) -> None:
        """Update the weights with the accumulated gradient, then clear it."""
        training = self.session.training
        condition_gradients(self.updated.parameters(), training, self.parallel.whole_norm)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=training.set_to_none)
        if self.masters:
            self.masters.give_weights()

    def start_over(self) -> None:
        """Reset weights, optimizer and RNG to before the first step."""
        if self.masters:
            self.updated.initialise(self.session.seed)
            self.masters.give_weights()
        else:
            self.parallel.initialise(self.session.seed)
        if isinstance(self.optimizer, InBackward):
            self.optimizer.release()
        self._begin()

    def _begin(self) -> None:
        """Reset everything that training changes, except the weights, to before the first step."""
        optimizer = build_optimizer(self.updated, self.session.training)
        self.optimizer = InBackward(optimizer) if self.session.training.optimizer_in_backward else optimizer
        self.precision = Precision(self.session.training.dtype, self.device)
        self._seed_dropout()

    def _seed_dropout(self) -> None:
        torch.manual_seed(self.parallel.seed_of_dropout(self.session.seed))  # the weights have their own generator

    def _take(self, first_sequence: int, count: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets `(count, T)` on the device."""
        tokens, targets = self.batches.take(first_sequence, count)
        pinned = self.session.training.pinned_memory
        tokens, targets = (to_device(rows, self.device, pinned=pinned) for rows in (tokens, targets))
        return tokens, targets.long()

    def _backward(self, loss: Tensor) -> None:
        self.precision.backward(loss)
        if self.masters:
            self.masters.take_gradients()

    def _progress(self, step: int) -> float:
        """The fraction of the horizon at the middle of a step, so that neither the first nor the last has rate zero."""
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
