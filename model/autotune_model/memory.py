"""Predicts the peak memory of a session, so that one that cannot fit is never started.

Sources: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models",
section 4 (activations of a layer); 4 bytes each per weight, gradient and optimizer moment.
Compilation only ever saves activations, so the figure for eager mode is used for both.
"""

from __future__ import annotations

import math

from autotune_model.config import GPTConfig, TrainingConfig

RUNTIME_BYTES = 290 * 2**20
"""A worker with torch 2.13, forked from its launcher, before it builds anything."""
_SPAWNED_BYTES = 70 * 2**20
"""Additional bytes of a process that was not forked: every rank but the first."""


def parameter_count(gpt: GPTConfig, vocab_size: int, *, tied_head: bool) -> int:
    """Distinct parameters of the decoder in `autotune_model.gpt`: learned positions, two norms per layer, no biases."""
    looked_up = gpt.sequence_length + (0 if tied_head else vocab_size)  # rows of the embeddings
    return looked_up * gpt.width + multiplied_parameter_count(gpt, vocab_size)


def multiplied_parameter_count(gpt: GPTConfig, vocab_size: int) -> int:
    """The N of 6N + 12*L*H*Q*T: parameters of matrix products, including an embedding only if it is the head."""
    layer = 12 * gpt.width**2 + 2 * gpt.width
    return gpt.layers * layer + gpt.width + vocab_size * gpt.width


def predict_peak_bytes(gpt: GPTConfig, vocab_size: int, training: TrainingConfig) -> int:
    """Peak bytes of a training session, the runtime included.

    Everything but weights, gradients and moments grows with `micro_batch`; `global_batch` does
    not matter, because gradients accumulate in place (except for what a pipeline keeps in flight).

    For several processes it is the sum. Each has its own runtime. Under `ddp` each also has the full
    state, under the others it is split; under `ddp` and `fsdp` each has the activations of its own
    micro-batch, under `tensor` all share those of one. In a full pipeline the W stages keep W, W - 1,
    ... 1 micro-batches of 1/W of the layers each, (W + 1) / 2 of a whole model's, but only the last
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
    if training.checkpointing:  # every layer's input, and the larger of the loss and one recomputed layer
        kept = gpt.layers * gpt.width * _element_bytes(training)
        later = 0 if training.optimizer_in_backward else _element_bytes(training) * (parameters - rows * gpt.width)
        loss, transient = max(loss - later, tokens * (layer + transient)), 0  # gradients come after the loss is freed
    ends = parameters - gpt.layers * 12 * gpt.width**2  # embeddings and head
    processes = training.world_size
    match training.parallelism:
        case "ddp":
            state, kept, transient, loss = (processes * n for n in (state, kept, transient, loss))
            updating = processes * (updating + 4 * parameters)  # buckets are rebuilt before the old ones are freed
        case "fsdp":
            # Gathered weights, their gradients and send buffers are freed late, if at all.
            gathered = processes * (4 * ends + 14 * (parameters - ends))
            if training.accumulation_steps > 1:  # whole gradients accumulate until they are sharded
                gathered += processes * 8 * parameters
            state, updating = state + gathered, updating + gathered
            kept, transient, loss = (processes * n for n in (kept, transient, loss))
        case "tensor":
            kept += processes * gpt.layers * 12 * gpt.width * 4  # on every rank: residuals, norms, partial sums
            loss = processes * loss * 2 // 3
        case "pipeline":
            in_flight = min(processes, training.accumulation_steps)
            kept = kept * sum(min(in_flight, processes - rank) for rank in range(processes)) // processes
            transient *= processes
            state += 4 * parameters * (processes - 1)  # each initialises the whole model first
    runtimes = processes * RUNTIME_BYTES + (processes - 1) * _SPAWNED_BYTES
    return runtimes + max(state + tokens * (kept + transient) + loss, updating)


def _state_bytes(training: TrainingConfig, parameters: int, moments: int) -> int:
    """Bytes of weights, gradients and the optimizer's moments during a backward pass."""
    element = 2 if training.dtype == "bf16_pure" else 4
    held = element * (2 * parameters + moments)
    if training.optimizer_in_backward:  # only one gradient is in memory at a time
        held -= element * parameters
    if training.dtype in ("bf16_autocast", "fp16_autocast"):
        held += 2 * parameters  # the half-precision copies of the weights are kept for a whole pass
    return held  # bf16_master: fp32 master, bf16 weights and bf16 gradients add up to the same


def _update_bytes(training: TrainingConfig, parameters: int, moments: int) -> int:
    """See `_state_bytes`: the same during the update."""
    held = _state_bytes(training, parameters, moments)
    if training.dtype == "bf16_master":
        held += 2 * parameters  # the gradient has moved to the master, where it is fp32
    fused_means_lists = training.optimizer == "adafactor"  # torch has no fused kernel for it
    if training.optimizer_kernel == "foreach" or (training.optimizer_kernel == "fused" and fused_means_lists):
        held += (2 if training.dtype == "bf16_pure" else 4) * parameters  # one temporary list as large as the model
    return held


def _loss_bytes(gpt: GPTConfig, rows: int, training: TrainingConfig, tokens: int) -> int:
    """Bytes of the head's output, the loss and their gradients for `tokens` tokens."""
    if training.loss_kernel == "chunked":  # the gradients of input and weight, computed at once
        return 4 * (tokens + 2 * rows) * gpt.width
    # Logits, log-probabilities and two gradients in fp32; some in half precision with autocast or bf16.
    return (16 if training.dtype == "fp32" else 12) * rows * tokens


def _element_bytes(training: TrainingConfig) -> int:
    """Bytes per element passed between layers: fp32 unless the weights are bf16."""
    return 2 if training.dtype in ("bf16_master", "bf16_pure") else 4


def _moments(gpt: GPTConfig, vocab_size: int, training: TrainingConfig) -> int:
    """Numbers that the optimizer keeps besides weights and gradients.

    AdamW has two per parameter, Muon one in the hidden matrices. Adafactor has a row and a column of each
    matrix (16 widths per layer, and those of the embeddings) and one number per norm weight.
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

    Sixteen activations of model width, as in Korthikanti et al., table 2 (theirs are 2 bytes each, 32 of
    their 34*s*b*h); autocast keeps the two inputs of the norms in fp32. Dropout adds masks of one byte.
    This is what torch 2.13's autograd saves, except the softmax, which autocast leaves in bf16 on a CPU.
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
