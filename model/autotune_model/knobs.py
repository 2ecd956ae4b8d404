"""The table of knobs: everything a study can turn. Standard library only.

One row per field of `autotune_model.config.TrainingConfig`. `technique` is the row of the source's table
(3.1 to 3.9) that the knob belongs to; `knob_class` says what has to be measured about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType

KnobValue = bool | int | float | str


class KnobClass(StrEnum):
    """What a knob can change, hence what has to be measured before it may be recommended."""

    SYSTEM = "system"  # same mathematics, other speed
    NUMERICS = "numerics"  # other rounding: loss is checked on paired seeds
    LEARNING = "learning"  # other optimisation: loss is measured over complete schedules


class Complexity(IntEnum):
    """What adopting a technique costs the user, in steps an engineer would recognise."""

    FLAG = 1  # a value in a config file
    CARE = 2  # a flag that needs an eye kept on it (compile failures, overflow, memory)
    CHANGE = 3  # a change of code or of the checkpoint format


ADOPTION_HOURS: Mapping[Complexity, float] = MappingProxyType(
    {Complexity.FLAG: 0.1, Complexity.CARE: 1.0, Complexity.CHANGE: 4.0}
)
"""Engineer-hours that adopting one technique is priced at: our estimate, multiplied by the plan's hourly price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One knob: its type and legal values, the technique it belongs to, and a line of help.

    `values` are the legal choices of a choice knob; `low` and `high` bound a number (inclusive).
    `short_horizon_favours` says which values look better in a short trial than they are in a long run.
    """

    name: str
    kind: type[KnobValue]
    technique: str
    title: str
    knob_class: KnobClass
    complexity: Complexity
    help: str
    values: tuple[KnobValue, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    short_horizon_favours: str = ""

    def problem_with(self, value: object) -> str:
        """Why `value` is not legal for this knob (rule, value, remedy), or the empty string."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is float and is_number and not isinstance(value, float):
            return f"{self.name} must be float; got {value!r}: write {value}.0"
        if type(value) is not self.kind:
            return f"{self.name} must be {self.kind.__name__}; got {value!r}: write a {self.kind.__name__}"
        if self.values and value not in self.values:
            choices = ", ".join(map(str, self.values))
            return f"{self.name} must be one of {choices}; got {value!r}: choose one of them"
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            return f"{self.name} must be in [{self.low:g}, {self.high:g}]; got {value!r}: choose a value in the range"
        return ""


_ROWS = (
    Knob(
        name="micro_batch",
        kind=int,
        technique="3.1",
        title="micro-batch size",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        low=1,
        high=65_536,
        help="sequences per forward and backward pass of a process; must divide global_batch",
    ),
    Knob(
        name="threads",
        kind=int,
        technique="3.4",
        title="CPU threads",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        low=0,
        high=4_096,
        help="intra-op threads of each process on a CPU; 0 shares out what torch would choose",
    ),
    Knob(
        name="parallelism",
        kind=str,
        technique="3.4",
        title="parallel training",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CHANGE,
        values=("none", "ddp", "fsdp", "tensor", "pipeline"),
        help="how world_size processes share the work: the batch, the batch and the states, every layer, the layers",
    ),
    Knob(
        name="world_size",
        kind=int,
        technique="3.4",
        title="processes",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        low=1,
        high=1_024,
        help="processes that train together, each on a device of its own or sharing the CPU",
    ),
    Knob(
        name="dtype",
        kind=str,
        technique="3.3",
        title="low-precision training",
        knob_class=KnobClass.NUMERICS,
        complexity=Complexity.CARE,
        values=("fp32", "bf16_autocast", "fp16_autocast", "bf16_master", "bf16_pure"),
        help="arithmetic of forward and backward: autocast keeps weights in fp32 (fp16 with loss scaling); "
        "bf16_master stores weights in bf16 and updates an fp32 copy; bf16_pure has bf16 only",
    ),
    Knob(
        name="attention",
        kind=str,
        technique="3.8",
        title="attention kernel",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("math", "sdpa", "flash", "efficient", "cudnn", "flex"),
        help="matrix products and softmax written out; torch's scaled_dot_product_attention with the kernel "
        "of its choice, or with that one kernel; or FlexAttention, compiled",
    ),
    Knob(
        name="optimizer_kernel",
        kind=str,
        technique="3.8",
        title="fused optimizer",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("for_loop", "foreach", "fused"),
        help="how AdamW walks over the parameters: one by one, in lists, in one kernel (Adafactor: lists at most)",
    ),
    Knob(
        name="compile",
        kind=str,
        technique="3.8",
        title="torch.compile",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        values=("off", "default", "max-autotune-no-cudagraphs", "regional"),
        help="mode of torch.compile, or regional: each block by itself, one graph for all; compile time is counted",
    ),
    Knob(
        name="learning_rate",
        kind=float,
        technique="3.6",
        title="learning rate",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=1e-8,
        high=10.0,
        help="peak learning rate; Adafactor's is relative to the size of each weight and wants about ten times more",
        short_horizon_favours="higher learning rates",  # the optimum falls with the horizon: arXiv 2409.19913
    ),
    Knob(
        name="optimizer",
        kind=str,
        technique="3.6",
        title="optimizer",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.CARE,
        values=("adamw", "muon", "adafactor"),
        help="torch's AdamW, Muon (hidden matrices; AdamW for the rest) or Adafactor (factored second moment)",
    ),
    Knob(
        name="tied_head",
        kind=bool,
        technique="3.9",
        title="weight sharing",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.CHANGE,
        help="share the weights of embedding and output head",
    ),
    Knob(
        name="schedule",
        kind=str,
        technique="3.6",
        title="learning-rate schedule",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        values=("constant", "linear", "cosine", "wsd", "inverse_sqrt"),
        help="course of the learning rate after warm-up; wsd falls over the last fifth, inverse_sqrt never to zero",
    ),
    Knob(
        name="global_batch",
        kind=int,
        technique="3.5",
        title="gradient accumulation",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=1,
        high=1_048_576,
        help="sequences per optimizer step, accumulated over as many passes as it takes",
        short_horizon_favours="smaller batches",  # the critical batch grows with the horizon: arXiv 2410.21676
    ),
    Knob(
        name="warmup_fraction",
        kind=float,
        technique="3.6",
        title="warm-up",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=0.0,
        high=0.9,
        help="share of the horizon over which the learning rate rises linearly",
    ),
    Knob(
        name="clip_norm",
        kind=float,
        technique="3.6",
        title="gradient clipping",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=0.0,
        high=1e6,
        help="largest norm of the whole gradient, after gradient_normalization (1 and more do nothing after global, "
        "which makes it 1); 0 switches clipping off",
    ),
    Knob(
        name="weight_decay",
        kind=float,
        technique="3.6",
        title="weight decay",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=0.0,
        high=10.0,
        help="decoupled weight decay, times the learning rate a step, on the parameters in decay_groups",
        short_horizon_favours="higher weight decay",  # the optimum falls with the data: arXiv 2405.13698
    ),
    Knob(
        name="beta2",
        kind=float,
        technique="3.6",
        title="second-moment decay",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=0.8,
        high=0.9999,
        help="share of AdamW's second moment kept a step, of muon's AdamW part too; adafactor has no such setting",
    ),
    Knob(
        name="dropout",
        kind=float,
        technique="3.6",
        title="dropout",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=0.0,
        high=0.9,
        help="share of activations zeroed while training, on residual, embeddings and attention weights",
        short_horizon_favours="less dropout",  # it pays once the text is repeated: arXiv 2305.13230
    ),
    Knob(
        name="gradient_normalization",
        kind=str,
        technique="3.6",
        title="gradient normalisation",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        values=("none", "global", "per_parameter"),
        help="divide the gradient by its norm, as a whole or each tensor by its own, before any clipping",
    ),
    Knob(
        name="clip_value",
        kind=float,
        technique="3.6",
        title="gradient clipping by value",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        low=0.0,
        high=1e6,
        help="largest size of an element of the gradient, after clip_norm; 0 switches it off",
    ),
    Knob(
        name="decay_groups",
        kind=str,
        technique="3.6",
        title="decayed parameters",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        values=("matrices", "all", "no_embeddings"),
        help="what weight decay acts on: matrices, all parameters, or matrices but for embeddings and head",
    ),
    Knob(
        name="weight_decay_schedule",
        kind=str,
        technique="3.6",
        title="weight-decay schedule",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.FLAG,
        values=("constant", "linear", "cosine"),
        help="course of the weight decay: constant, or to zero at the end; needs weight_decay above 0",
    ),
    Knob(
        name="dropout_schedule",
        kind=str,
        technique="3.6",
        title="dropout schedule",
        knob_class=KnobClass.LEARNING,
        complexity=Complexity.CARE,
        values=("constant", "falling", "rising"),
        help="course of the dropout rate: constant, falling to 0 or rising from 0; not under compile",
    ),
    Knob(
        name="vocab_multiple",
        kind=int,
        technique="3.1",
        title="vocabulary padding",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CHANGE,
        low=1,
        high=4_096,
        help="rows of embedding and head are padded to a multiple of this; padded tokens never occur",
    ),
    Knob(
        name="matmul_precision",
        kind=str,
        technique="3.3",
        title="matmul precision",
        knob_class=KnobClass.NUMERICS,
        complexity=Complexity.FLAG,
        values=("highest", "high", "medium"),
        help="of fp32 matrix products: highest is fp32, high may use TF32, medium may use bf16",
    ),
    Knob(
        name="loss_kernel",
        kind=str,
        technique="3.8",
        title="fused cross-entropy",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("full", "chunked"),
        help="all logits at once, or torch's linear_cross_entropy, which never holds more than a chunk of them",
    ),
    Knob(
        name="optimizer_in_backward",
        kind=bool,
        technique="3.8",
        title="optimizer in backward",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CHANGE,
        help="each weight is updated the moment its gradient is complete, which is freed at once",
    ),
    Knob(
        name="checkpointing",
        kind=bool,
        technique="3.7",
        title="activation checkpointing",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        help="keep only the input of each block and compute the block once more in the backward pass",
    ),
    Knob(
        name="qkv_layout",
        kind=str,
        technique="3.7",
        title="layout of queries, keys and values",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("strided", "contiguous"),
        help="views into one projection, or copied so that each lies in one piece",
    ),
    Knob(
        name="prefetch",
        kind=bool,
        technique="3.7",
        title="prefetching loader",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        help="a thread reads the next micro-batch from the token file while this one is computed",
    ),
    Knob(
        name="pinned_memory",
        kind=bool,
        technique="3.7",
        title="pinned host memory",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="batches are copied to a GPU from page-locked memory, without waiting for them",
    ),
    Knob(
        name="set_to_none",
        kind=bool,
        technique="3.7",
        title="gradients set to none",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        help="free gradients after each step rather than fill them with zeros",
    ),
    Knob(
        name="index_dtype",
        kind=str,
        technique="3.2",
        title="data type of token indices",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("int64", "int32"),
        help="of the tokens on the device; on disk they have the smallest type that holds the vocabulary",
    ),
)

KNOBS: Mapping[str, Knob] = MappingProxyType({knob.name: knob for knob in _ROWS})
"""Every knob by name, the ones that usually matter most first: a small budget tries them in this order."""
