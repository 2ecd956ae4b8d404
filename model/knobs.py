"""The table of knobs: everything a study can turn. Standard library only.

One row per field of `model.config.TrainingConfig`. `technique` is the row of the source's table
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
        values=("fp32", "bf16_autocast", "fp16_autocast"),
        help="arithmetic of forward and backward; weights and update stay fp32, fp16 with loss scaling",
    ),
    Knob(
        name="attention",
        kind=str,
        technique="3.8",
        title="attention kernel",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("math", "sdpa"),
        help="plain matrix products and softmax, or torch's fused scaled_dot_product_attention",
    ),
    Knob(
        name="optimizer_kernel",
        kind=str,
        technique="3.8",
        title="fused optimizer",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.FLAG,
        values=("for_loop", "foreach", "fused"),
        help="how AdamW walks over the parameters: one by one, in lists, in one kernel",
    ),
    Knob(
        name="compile",
        kind=str,
        technique="3.8",
        title="torch.compile",
        knob_class=KnobClass.SYSTEM,
        complexity=Complexity.CARE,
        values=("off", "default", "max-autotune-no-cudagraphs"),
        help="mode of torch.compile; its compile time is counted",
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
        help="peak learning rate of AdamW",
        short_horizon_favours="higher learning rates",  # the optimum falls with the horizon: arXiv 2409.19913
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
        values=("constant", "linear", "cosine", "wsd"),
        help="course of the learning rate after warm-up; wsd is warm-up, stable, decay over the last fifth",
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
        help="largest norm of the whole gradient; 0 switches clipping off",
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
        help="decoupled weight decay of AdamW on matrices; vectors are left alone",
    ),
)

KNOBS: Mapping[str, Knob] = MappingProxyType({knob.name: knob for knob in _ROWS})
"""Every knob by name, the ones that usually matter most first: a small budget tries them in this order."""
