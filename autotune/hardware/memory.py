"""Predicts the peak memory of a session before it is started, so that hopeless ones never are.

Sources: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models",
section 4 (activations of a layer); for AdamW, 4 bytes each of weight, gradient and two moments.
Compilation only ever saves activations, so the figure for eager mode stands for both.
"""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from model.config import GPTConfig, TrainingConfig

RUNTIME_BYTES = 400 * 2**20
"""A worker with torch 2.13 before it builds anything (measured: 310 MiB forked, 380 MiB spawned)."""

_MARGIN = (
    1.25  # for allocator slack and workspaces: measured peaks were 0.86 to 1.18 of the prediction (CPU, 12 shapes)
)
_STATE_BYTES = 16  # per parameter: fp32 weight, gradient and AdamW's two moments


def parameter_count(gpt: GPTConfig, vocab_size: int, *, tied_head: bool) -> int:
    """Distinct parameters of the decoder in `model/gpt.py`: learned positions, two norms a layer, no biases."""
    looked_up = gpt.sequence_length + (0 if tied_head else vocab_size)  # rows of the embeddings
    return looked_up * gpt.width + multiplied_parameter_count(gpt, vocab_size)


def multiplied_parameter_count(gpt: GPTConfig, vocab_size: int) -> int:
    """The N of 6N + 12*L*H*Q*T: parameters that multiply something, which embeddings only do as the head."""
    layer = 12 * gpt.width**2 + 2 * gpt.width
    return gpt.layers * layer + gpt.width + vocab_size * gpt.width


def predict_peak_bytes(gpt: GPTConfig, vocab_size: int, training: TrainingConfig) -> int:
    """Peak bytes of a training session, the runtime included.

    Everything but the state of the optimizer is proportional to `micro_batch`; `global_batch` has
    no part in it, for gradients are accumulated in place (but for what a pipeline keeps in flight).

    Of several processes that share a machine it is the sum. Each has a runtime of its own. Under `ddp`
    each has all of the states as well, under the others they are shared out; under `ddp` and `fsdp` each
    has the activations of a micro-batch, under `tensor` all have those of the same one. In a full
    pipeline the stages keep W, W - 1, ... 1 micro-batches of a W-th of the layers each, (W + 1) / 2 of a
    whole model's, but the last one alone has logits. Buffers of communication, and what `tensor` does
    not share out (the residual stream and gathered logits), are counted where they are of that order.
    """
    parameters = parameter_count(gpt, vocab_size, tied_head=training.tied_head)
    mixed = training.dtype != "fp32"
    state = parameters * _STATE_BYTES
    if mixed:
        state += 2 * parameters  # autocast keeps the half-precision copies of the weights for a whole pass
    if training.optimizer_kernel == "foreach":
        state += 4 * parameters  # one temporary list of tensors as large as the model
    tokens = training.micro_batch * gpt.sequence_length
    layers = gpt.layers * _layer_bytes(gpt, training)
    transient = _transient_bytes(gpt, training)
    logits = vocab_size * (12 if mixed else 10)  # logits, log-probabilities, a gradient, casts; measured 8.5 to 12.1
    processes = training.world_size
    match training.parallelism:
        case "ddp":
            state, layers, transient, logits = (processes * n for n in (state, layers, transient, logits))
        case "fsdp":
            state += processes * 8 * parameters // gpt.layers  # weights and gradients of what is gathered just now
            layers, transient, logits = (processes * n for n in (layers, transient, logits))
        case "tensor":
            stream = 4 * gpt.width * 4  # inputs and outputs of the two halves of a layer, which every rank has
            layers += (processes - 1) * gpt.layers * stream
            logits *= processes
        case "pipeline":
            in_flight = min(processes, training.accumulation_steps)
            layers = layers * sum(min(in_flight, processes - rank) for rank in range(processes)) // processes
            transient *= processes
            state += 4 * parameters * (processes - 1)  # each draws the whole model before it keeps its stage
    return processes * RUNTIME_BYTES + state + tokens * (layers + transient + logits)


def _layer_bytes(gpt: GPTConfig, training: TrainingConfig) -> int:
    """Bytes per token that one layer keeps for the backward pass.

    Sixteen activations of the width, as in Korthikanti et al., table 2 (theirs are 2 bytes each, 32 of
    their 34*s*b*h); autocast keeps the two inputs of the norms in fp32. Dropout adds masks of one byte.
    This is what autograd of torch 2.13 saves, but for the softmax that autocast leaves in bf16 on a CPU.
    """
    mixed = training.dtype != "fp32"
    width_bytes = 16 * 2 + 2 * 2 if mixed else 16 * 4
    if gpt.dropout > 0:
        width_bytes += 2
    if training.attention == "sdpa":
        return gpt.width * width_bytes + 4 * gpt.heads  # the log-sum-exp of each row of scores
    score_bytes = 4 + 2 if mixed else 4  # the softmax, which autocast computes in fp32, and its half-precision copy
    if gpt.dropout > 0:
        score_bytes += (2 if mixed else 4) + 1
    return gpt.width * width_bytes + score_bytes * gpt.heads * gpt.sequence_length


def _transient_bytes(gpt: GPTConfig, training: TrainingConfig) -> int:
    """Bytes per token that live only while one layer is computed: the scores before and after masking."""
    return 0 if training.attention == "sdpa" else 2 * 4 * gpt.heads * gpt.sequence_length


def available_bytes(environment: Mapping[str, str]) -> int:
    """Memory that all sessions may use together: the accelerator's own, else what this machine has free."""
    if environment.get("device", "cpu") != "cpu":
        return int(environment["device_memory_bytes"])
    return int(psutil.virtual_memory().available)


def fits(predicted: int, available: int) -> bool:
    """Whether a session of `predicted` bytes can run in `available` bytes, with a margin of 25 %."""
    return predicted * _MARGIN <= available
