"""The knobs of the built-in GPT: class, complexity, technique and a line of help for each.

The model defines and enforces the legal values (`autotune_model.knobs`). `technique` is the knob's row in the
technique table (docs/techniques.md, 3.1 to 3.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from autotune.space.knobs import Choice, Complexity, Domain, FloatRange, IntRange, Knob, KnobClass, Law
from autotune_model.knobs import KNOBS as LEGAL


def _row(
    name: str,
    *,
    technique: str,
    title: str,
    knob_class: KnobClass,
    complexity: Complexity,
    help: str,
    short_horizon_favours: str = "",
    law: Law = Law.OTHER,
) -> Knob:
    return Knob(
        name=name,
        domain=_domain(name),
        technique=technique,
        title=title,
        knob_class=knob_class,
        complexity=complexity,
        help=help,
        short_horizon_favours=short_horizon_favours,
        law=law,
    )


def _domain(name: str) -> Domain:
    legal = LEGAL[name]
    if legal.kind is bool:
        return Choice(values=(False, True))
    if legal.kind is int:
        return IntRange(low=int(legal.low), high=int(legal.high))
    if legal.kind is float:
        return FloatRange(low=legal.low, high=legal.high)
    return Choice(values=legal.values)


_ROWS = (
    _row(
        "micro_batch",
        technique="3.1",
        title="micro-batch size",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="sequences per forward and backward pass of each process; must divide global_batch",
    ),
    _row(
        "threads",
        technique="3.4",
        title="CPU threads",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="intra-op threads of each process on a CPU; 0 divides torch's default among the processes",
    ),
    _row(
        "parallelism",
        technique="3.4",
        title="parallelism",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CHANGE,
        help="how world_size processes split the work: ddp the batch, fsdp the batch and all states, tensor each "
        "layer, pipeline the stack of layers",
    ),
    _row(
        "world_size",
        technique="3.4",
        title="number of processes",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        help="processes that train together, each on its own device or sharing the CPU",
    ),
    _row(
        "dtype",
        technique="3.3",
        title="low-precision training",
        knob_class=KnobClass.NUMERICS,
        complexity=Complexity.CARE,
        help="precision of forward and backward pass: autocast keeps weights in fp32 (fp16 with loss scaling); "
        "bf16_master keeps weights in bf16 and updates an fp32 copy; bf16_pure uses bf16 only",
    ),
    _row(
        "attention",
        technique="3.8",
        title="attention kernel",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="math is plain matmuls and softmax; sdpa is torch's scaled_dot_product_attention with a kernel of its "
        "choice; flash, efficient and cudnn force that kernel; flex is FlexAttention, compiled",
    ),
    _row(
        "optimizer_kernel",
        technique="3.8",
        title="fused optimizer",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="AdamW's update: parameter by parameter, in lists, or in one fused kernel (Adafactor: no fused kernel)",
    ),
    _row(
        "compile",
        technique="3.8",
        title="torch.compile",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        help="mode of torch.compile; regional compiles one block and reuses its graph for all; compile time is counted",
    ),
    _row(
        "learning_rate",
        technique="3.6",
        title="learning rate",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="peak learning rate; Adafactor's is relative to the scale of each weight and needs about ten times more",
        short_horizon_favours="higher learning rates",  # the optimum falls with the token budget: arXiv 2409.19913
        law=Law.RATE,
    ),
    _row(
        "optimizer",
        technique="3.6",
        title="optimizer",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.CARE,
        help="torch's AdamW, Muon (hidden matrices; AdamW for the rest) or Adafactor (factored second moment)",
    ),
    _row(
        "tied_head",
        technique="3.9",
        title="tied embeddings",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.CHANGE,
        help="use one weight matrix for token embedding and output head",
    ),
    _row(
        "schedule",
        technique="3.6",
        title="learning-rate schedule",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="learning rate after warm-up; wsd decays over the last fifth, inverse_sqrt never reaches zero",
        law=Law.SCHEDULE,
    ),
    _row(
        "global_batch",
        technique="3.5",
        title="global batch size",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="sequences per optimizer step, by gradient accumulation over micro-batches",
        short_horizon_favours="smaller batches",  # the critical batch grows with the token budget: arXiv 2410.21676
        law=Law.BATCH,
    ),
    _row(
        "warmup_fraction",
        technique="3.6",
        title="warm-up",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="share of the steps over which the learning rate rises linearly",
    ),
    _row(
        "clip_norm",
        technique="3.6",
        title="gradient clipping",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="largest global gradient norm, applied after gradient_normalization (global makes that norm 1, so 1 and "
        "more do nothing); 0 turns clipping off",
    ),
    _row(
        "weight_decay",
        technique="3.6",
        title="weight decay",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="decoupled weight decay, multiplied by the learning rate each step, on the parameters in decay_groups",
        short_horizon_favours="higher weight decay",  # the optimum falls with the data: arXiv 2405.13698
    ),
    _row(
        "beta2",
        technique="3.6",
        title="second-moment decay",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="AdamW's beta2, also for the AdamW part of muon; adafactor has no such setting",
    ),
    _row(
        "dropout",
        technique="3.6",
        title="dropout",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="dropout rate on residual branches, embeddings and attention weights",
        short_horizon_favours="less dropout",  # it pays off once the text is repeated: arXiv 2305.13230
    ),
    _row(
        "gradient_normalization",
        technique="3.6",
        title="gradient normalisation",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="divide the whole gradient by its norm, or each tensor by its own norm, before any clipping",
    ),
    _row(
        "clip_value",
        technique="3.6",
        title="gradient clipping by value",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="largest absolute value of a gradient element, applied after clip_norm; 0 turns it off",
    ),
    _row(
        "decay_groups",
        technique="3.6",
        title="weight-decay groups",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="which parameters are decayed: matrices, all, or matrices except embedding and output head",
    ),
    _row(
        "weight_decay_schedule",
        technique="3.6",
        title="weight-decay schedule",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        help="weight decay over training: constant, or decaying to zero; needs weight_decay above 0",
    ),
    _row(
        "dropout_schedule",
        technique="3.6",
        title="dropout schedule",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.CARE,
        help="dropout rate over training: constant, falling to 0 or rising from 0; not with compile",
    ),
    _row(
        "vocab_multiple",
        technique="3.1",
        title="vocabulary padding",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CHANGE,
        help="pads the vocabulary to a multiple of this; padded tokens never occur",
    ),
    _row(
        "matmul_precision",
        technique="3.3",
        title="matmul precision",
        knob_class=KnobClass.NUMERICS,
        complexity=Complexity.FLAG,
        help="precision of fp32 matmuls: highest is fp32, high may use TF32, medium may use bf16",
    ),
    _row(
        "loss_kernel",
        technique="3.8",
        title="fused cross-entropy",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="full computes all logits at once; chunked is torch's linear_cross_entropy, one chunk at a time",
    ),
    _row(
        "optimizer_in_backward",
        technique="3.8",
        title="optimizer in backward",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CHANGE,
        help="update each weight as soon as its gradient is ready, and free the gradient at once",
    ),
    _row(
        "checkpointing",
        technique="3.7",
        title="activation checkpointing",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        help="store only the input of each block and recompute the block in the backward pass",
    ),
    _row(
        "qkv_layout",
        technique="3.7",
        title="QKV layout",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="queries, keys and values as strided views of one projection, or as contiguous copies",
    ),
    _row(
        "prefetch",
        technique="3.7",
        title="data prefetching",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        help="a thread loads the next micro-batch from the token file during the current one",
    ),
    _row(
        "pinned_memory",
        technique="3.7",
        title="pinned host memory",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="copy batches to the GPU asynchronously from page-locked memory",
    ),
    _row(
        "set_to_none",
        technique="3.7",
        title="set gradients to None",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="free gradients after each step instead of filling them with zeros",
    ),
    _row(
        "index_dtype",
        technique="3.2",
        title="token index dtype",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="integer type of tokens on the device; on disk they use the smallest type that fits the vocabulary",
    ),
)


KNOBS: Mapping[str, Knob] = MappingProxyType({knob.name: knob for knob in _ROWS})
"""Every knob by name. Usually most important first: a small budget tries them in this order."""
