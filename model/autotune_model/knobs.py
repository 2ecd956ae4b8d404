"""The legal values of every knob of the built-in GPT. Standard library only.

One row per field of `autotune_model.config.TrainingConfig`. What a knob means to a search (its class, its
complexity, the technique it belongs to) is in the driver's `autotune/workload/gpt_knobs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

KnobValue = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One knob: its type and legal values.

    `values` are the legal choices of a choice knob; `low` and `high` bound a number (inclusive).
    """

    name: str
    kind: type[KnobValue]
    values: tuple[KnobValue, ...] = ()
    low: float = -math.inf
    high: float = math.inf

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
    Knob(name="micro_batch", kind=int, low=1, high=65_536),
    Knob(name="threads", kind=int, low=0, high=4_096),
    Knob(name="parallelism", kind=str, values=("none", "ddp", "fsdp", "tensor", "pipeline")),
    Knob(name="world_size", kind=int, low=1, high=1_024),
    Knob(name="dtype", kind=str, values=("fp32", "bf16_autocast", "fp16_autocast", "bf16_master", "bf16_pure")),
    Knob(name="attention", kind=str, values=("math", "sdpa", "flash", "efficient", "cudnn", "flex")),
    Knob(name="optimizer_kernel", kind=str, values=("for_loop", "foreach", "fused")),
    Knob(name="compile", kind=str, values=("off", "default", "max-autotune-no-cudagraphs", "regional")),
    Knob(name="learning_rate", kind=float, low=1e-08, high=10.0),
    Knob(name="optimizer", kind=str, values=("adamw", "muon", "adafactor")),
    Knob(name="tied_head", kind=bool),
    Knob(name="schedule", kind=str, values=("constant", "linear", "cosine", "wsd", "inverse_sqrt")),
    Knob(name="global_batch", kind=int, low=1, high=1_048_576),
    Knob(name="warmup_fraction", kind=float, low=0.0, high=0.9),
    Knob(name="clip_norm", kind=float, low=0.0, high=1e6),
    Knob(name="weight_decay", kind=float, low=0.0, high=10.0),
    Knob(name="beta2", kind=float, low=0.8, high=0.9999),
    Knob(name="dropout", kind=float, low=0.0, high=0.9),
    Knob(name="gradient_normalization", kind=str, values=("none", "global", "per_parameter")),
    Knob(name="clip_value", kind=float, low=0.0, high=1e6),
    Knob(name="decay_groups", kind=str, values=("matrices", "all", "no_embeddings")),
    Knob(name="weight_decay_schedule", kind=str, values=("constant", "linear", "cosine")),
    Knob(name="dropout_schedule", kind=str, values=("constant", "falling", "rising")),
    Knob(name="vocab_multiple", kind=int, low=1, high=4_096),
    Knob(name="matmul_precision", kind=str, values=("highest", "high", "medium")),
    Knob(name="loss_kernel", kind=str, values=("full", "chunked")),
    Knob(name="optimizer_in_backward", kind=bool),
    Knob(name="checkpointing", kind=bool),
    Knob(name="qkv_layout", kind=str, values=("strided", "contiguous")),
    Knob(name="prefetch", kind=bool),
    Knob(name="pinned_memory", kind=bool),
    Knob(name="set_to_none", kind=bool),
    Knob(name="index_dtype", kind=str, values=("int64", "int32")),
)

KNOBS: Mapping[str, Knob] = MappingProxyType({knob.name: knob for knob in _ROWS})
"""Every knob by name."""
