"""Predicts the peak memory of a session before it is started, so that hopeless ones never are.

Sources: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models",
section 4 (activations of a layer); for AdamW, 4 bytes each of weight, gradient and two moments.
Compilation only ever saves activations, so the figure for eager mode stands for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import psutil

from model.config import GPTConfig, TrainingConfig

RUNTIME_BYTES = 290 * 2**20
"""A worker with torch 2.13, forked from its launcher, before it builds anything; if spawned, 70 MiB more."""

_MARGIN = 1.25  # for allocator slack and workspaces; `benchmarks/memory.py` prints how far predictions are off
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
    no part in it, for gradients are accumulated in place.
    """
    rows = math.ceil(vocab_size / training.vocab_multiple) * training.vocab_multiple
    parameters = parameter_count(gpt, rows, tied_head=training.tied_head)
    tokens = training.micro_batch * gpt.sequence_length
    layer = _layer_bytes(gpt, training)
    kept = gpt.layers * layer
    if training.checkpointing:  # the input of every layer, and all of the one that is computed again
        kept = gpt.layers * gpt.width * _element_bytes(training) + layer
    activations = tokens * (kept + _transient_bytes(gpt, training))
    in_backward = _state_bytes(training) * parameters + activations + _loss_bytes(gpt, rows, training, tokens)
    return RUNTIME_BYTES + max(in_backward, _update_bytes(training) * parameters)


def _state_bytes(training: TrainingConfig) -> int:
    """Bytes per parameter of weights, gradients and the optimizer's state during a backward pass."""
    match training.dtype:
        case "fp32" | "bf16_master":  # the latter has 4 + 8 of master and moments, 2 + 2 of weight and gradient
            each = _STATE_BYTES
        case "bf16_pure":
            each = _STATE_BYTES // 2
        case _:
            each = _STATE_BYTES + 2  # autocast keeps the half-precision copies of the weights for a whole pass
    if training.optimizer_in_backward:  # of the gradients never more than one stands in memory
        each -= 2 if training.dtype == "bf16_pure" else 4
    return each


def _update_bytes(training: TrainingConfig) -> int:
    """Bytes per parameter while the weights are updated."""
    each = _state_bytes(training)
    if training.dtype == "bf16_master":
        each += 2  # the gradient has moved to the master
    if training.optimizer_kernel == "foreach":
        each += 2 if training.dtype == "bf16_pure" else 4  # one temporary list of tensors as large as the model
    return each


def _loss_bytes(gpt: GPTConfig, rows: int, training: TrainingConfig, tokens: int) -> int:
    """Bytes of the head's output, the loss and their gradients for `tokens` tokens."""
    if training.loss_kernel == "chunked":  # the gradients of input and weight, which are computed at once
        return 4 * (tokens + 2 * rows) * gpt.width
    # Logits, log-probabilities and two gradients in fp32; of which autocast and bf16 have some in half.
    return (16 if training.dtype == "fp32" else 12) * rows * tokens


def _element_bytes(training: TrainingConfig) -> int:
    """Of what is passed from layer to layer: fp32 but where the weights themselves are bf16."""
    return 2 if training.dtype in ("bf16_master", "bf16_pure") else 4


def _layer_bytes(gpt: GPTConfig, training: TrainingConfig) -> int:
    """Bytes per token that one layer keeps for the backward pass.

    Sixteen activations of the width, as in Korthikanti et al., table 2 (theirs are 2 bytes each, 32 of
    their 34*s*b*h); autocast keeps the two inputs of the norms in fp32. Dropout adds masks of one byte.
    This is what autograd of torch 2.13 saves, but for the softmax that autocast leaves in bf16 on a CPU.
    """
    mixed = training.dtype != "fp32"
    width_bytes = 16 * 2 + 2 * (_element_bytes(training) - 2) if mixed else 16 * 4
    if gpt.dropout > 0:
        width_bytes += 2
    if training.attention != "math":
        return gpt.width * width_bytes + 4 * gpt.heads  # the log-sum-exp of each row of scores
    score_bytes = _element_bytes(training)  # the softmax
    if training.dtype in ("bf16_autocast", "fp16_autocast"):
        score_bytes += 2  # computed in fp32, and copied in half precision
    if gpt.dropout > 0:
        score_bytes += (2 if mixed else 4) + 1
    return gpt.width * width_bytes + score_bytes * gpt.heads * gpt.sequence_length


def _transient_bytes(gpt: GPTConfig, training: TrainingConfig) -> int:
    """Bytes per token that live only while one layer is computed: scores before and after masking, their gradients."""
    return 0 if training.attention != "math" else 4 * 4 * gpt.heads * gpt.sequence_length


def available_bytes(environment: Mapping[str, str]) -> int:
    """Memory that all sessions may use together: the accelerator's own, else what this machine has free."""
    if environment.get("device", "cpu") != "cpu":
        return int(environment["device_memory_bytes"])
    return int(psutil.virtual_memory().available)


def fits(predicted: int, available: int) -> bool:
    """Whether a session of `predicted` bytes can run in `available` bytes, with a margin of 25 %."""
    return predicted * _MARGIN <= available
