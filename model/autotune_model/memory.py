"""Predicts the peak memory of a session, so that one that cannot fit is never started.

Sources: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models",
section 4 (activations of a layer); 4 bytes each of weight, gradient and what the optimizer remembers.
Compilation only ever saves activations, so the figure for eager mode stands for both.
"""

from __future__ import annotations

import math

from autotune_model.config import GPTConfig, TrainingConfig

RUNTIME_BYTES = 290 * 2**20
"""A worker with torch 2.13, forked from its launcher, before it builds anything."""
_SPAWNED_BYTES = 70 * 2**20
"""What a process takes beyond that if it was not forked, as ranks but the first are not."""


def parameter_count(gpt: GPTConfig, vocab_size: int, *, tied_head: bool) -> int:
    """Distinct parameters of the decoder in `autotune_model.gpt`: learned positions, two norms a layer, no biases."""
    looked_up = gpt.sequence_length + (0 if tied_head else vocab_size)  # rows of the embeddings
    return looked_up * gpt.width + multiplied_parameter_count(gpt, vocab_size)


def multiplied_parameter_count(gpt: GPTConfig, vocab_size: int) -> int:
    """The N of 6N + 12*L*H*Q*T: parameters of matrix products, which includes embeddings only as the head."""
    layer = 12 * gpt.width**2 + 2 * gpt.width
    return gpt.layers * layer + gpt.width + vocab_size * gpt.width


def predict_peak_bytes(gpt: GPTConfig, vocab_size: int, training: TrainingConfig) -> int:
    """Peak bytes of a training session, the runtime included.

    Everything but weights, gradients and moments grows with `micro_batch`; `global_batch` has
    no part in it, for gradients are accumulated in place (but for what a pipeline keeps in flight).

    Of several processes it is the sum. Each has a runtime of its own. Under `ddp` each has all of the states
    as well, under the others they are shared out; under `ddp` and `fsdp` each has the activations of a
    micro-batch, under `tensor` all have those of the same one. In a full pipeline the stages keep W, W - 1,
    ... 1 micro-batches of a W-th of the layers each, (W + 1) / 2 of a whole model's, but the last one alone
    has logits. What `fsdp` and `tensor` hold beyond that was fitted to two processes on a CPU.
    """
    rows = math.ceil(vocab_size / training.vocab_multiple) * training.vocab_multiple
    parameters = parameter_count(gpt, rows, tied_head=training.tied_head)
    tokens = training.micro_batch * gpt.sequence_length
    layer = _layer_bytes(gpt, training)
    kept = gpt.layers * layer
    transient = _transient_bytes(gpt, training)
    moments = _moments(gpt, rows, training)
    state = _state_bytes(training, parameters, moments)
    updating = _update_bytes(training, parameters, moments)
    loss = _loss_bytes(gpt, rows, training, tokens)
    if training.checkpointing:  # the input of every layer, and either the loss or all of the layer computed again
        kept = gpt.layers * gpt.width * _element_bytes(training)
        later = 0 if training.optimizer_in_backward else _element_bytes(training) * (parameters - rows * gpt.width)
        loss, transient = max(loss - later, tokens * (layer + transient)), 0  # gradients come when the loss has gone
    ends = parameters - gpt.layers * 12 * gpt.width**2  # embeddings and head
    processes = training.world_size
    match training.parallelism:
        case "ddp":
            state, kept, transient, loss = (processes * n for n in (state, kept, transient, loss))
            updating = processes * (updating + 4 * parameters)  # buckets are laid out anew, the old ones still there
        case "fsdp":
            # Gathered weights, their gradients and what is sent of them are given back late, if at all.
            gathered = processes * (4 * ends + 14 * (parameters - ends))
            if training.accumulation_steps > 1:  # whole gradients add up until they are shared out
                gathered += processes * 8 * parameters
            state, updating = state + gathered, updating + gathered
            kept, transient, loss = (processes * n for n in (kept, transient, loss))
        case "tensor":
            kept += processes * gpt.layers * 12 * gpt.width * 4  # of every rank: the stream, norms, partial sums
            loss = processes * loss * 2 // 3
        case "pipeline":
            in_flight = min(processes, training.accumulation_steps)
            kept = kept * sum(min(in_flight, processes - rank) for rank in range(processes)) // processes
            transient *= processes
            state += 4 * parameters * (processes - 1)  # each draws the whole model before it keeps its stage
    runtimes = processes * RUNTIME_BYTES + (processes - 1) * _SPAWNED_BYTES
    return runtimes + max(state + tokens * (kept + transient) + loss, updating)


def _state_bytes(training: TrainingConfig, parameters: int, moments: int) -> int:
    """Bytes of weights, gradients and the optimizer's moments during a backward pass."""
    element = 2 if training.dtype == "bf16_pure" else 4
    held = element * (2 * parameters + moments)
    if training.optimizer_in_backward:  # of the gradients never more than one stands in memory
        held -= element * parameters
    if training.dtype in ("bf16_autocast", "fp16_autocast"):
        held += 2 * parameters  # the half-precision copies of the weights are kept for a whole pass
    return held  # bf16_master: an fp32 copy of the weights stands where fp32 gradients would, in bf16 both


def _update_bytes(training: TrainingConfig, parameters: int, moments: int) -> int:
    """The same while the weights are updated."""
    held = _state_bytes(training, parameters, moments)
    if training.dtype == "bf16_master":
        held += 2 * parameters  # the gradient has moved to the master, where it is fp32
    fused_means_lists = training.optimizer == "adafactor"  # as torch has no fused kernel for it
    if training.optimizer_kernel == "foreach" or (training.optimizer_kernel == "fused" and fused_means_lists):
        held += (2 if training.dtype == "bf16_pure" else 4) * parameters  # one temporary list as large as the model
    return held


def _loss_bytes(gpt: GPTConfig, rows: int, training: TrainingConfig, tokens: int) -> int:
    """Bytes of the head's output, the loss and their gradients for `tokens` tokens."""
    if training.loss_kernel == "chunked":  # the gradients of input and weight, which are computed at once
        return 4 * (tokens + 2 * rows) * gpt.width
    # Logits, log-probabilities and two gradients in fp32; of which autocast and bf16 have some in half.
    return (16 if training.dtype == "fp32" else 12) * rows * tokens


def _element_bytes(training: TrainingConfig) -> int:
    """Of what is passed from layer to layer: fp32 but where the weights themselves are bf16."""
    return 2 if training.dtype in ("bf16_master", "bf16_pure") else 4


def _moments(gpt: GPTConfig, vocab_size: int, training: TrainingConfig) -> int:
    """Numbers that the optimizer keeps besides weights and gradients.

    AdamW has two a parameter, Muon one for each of the hidden matrices. Adafactor has a row and a column of
    each matrix (16 widths a layer, and those of the embeddings) and one number for each weight of the norms.
    """
    parameters = parameter_count(gpt, vocab_size, tied_head=training.tied_head)
    match training.optimizer:
        case "muon":
            return 2 * parameters - gpt.layers * 12 * gpt.width**2
        case "adafactor":
            vocabulary_matrices = 1 if training.tied_head else 2
            looked_up_or_head = vocabulary_matrices * (vocab_size + gpt.width) + gpt.sequence_length + gpt.width
            return looked_up_or_head + gpt.layers * (16 + 2) * gpt.width + gpt.width
    return 2 * parameters


def _layer_bytes(gpt: GPTConfig, training: TrainingConfig) -> int:
    """Bytes per token that one layer keeps for the backward pass.

    Sixteen activations of the width, as in Korthikanti et al., table 2 (theirs are 2 bytes each, 32 of
    their 34*s*b*h); autocast keeps the two inputs of the norms in fp32. Dropout adds masks of one byte.
    This is what autograd of torch 2.13 saves, but for the softmax that autocast leaves in bf16 on a CPU.
    """
    mixed = training.dtype != "fp32"
    width_bytes = 16 * 2 + 2 * (_element_bytes(training) - 2) if mixed else 16 * 4
    if training.dropout > 0:
        width_bytes += 2
    if training.attention != "math":
        return gpt.width * width_bytes + 4 * gpt.heads  # the log-sum-exp of each row of scores
    score_bytes = _element_bytes(training)  # the softmax
    if training.dtype in ("bf16_autocast", "fp16_autocast"):
        score_bytes += 2  # computed in fp32, and copied in half precision
    if training.dropout > 0:
        score_bytes += (2 if mixed else 4) + 1
    return gpt.width * width_bytes + score_bytes * gpt.heads * gpt.sequence_length


def _transient_bytes(gpt: GPTConfig, training: TrainingConfig) -> int:
    """Bytes per token that live only while one layer is computed: scores before and after masking, their gradients."""
    return 0 if training.attention != "math" else 4 * 4 * gpt.heads * gpt.sequence_length
