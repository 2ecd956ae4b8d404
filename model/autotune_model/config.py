"""The configuration of one trial session, frozen and validated on construction. Standard library only.

`TrainingConfig` holds every knob (one field per row of `autotune_model.knobs.KNOBS`); `GPTConfig` is the
shape of the model; `SessionConfig` is everything a worker process needs. An invalid combination
raises `InvalidConfiguration` with rule, value and remedy in one line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_type_hints

from autotune_model.knobs import KNOBS, KnobValue

DEFAULT_BETA2 = 0.95
"""GPT-3's value (arXiv 2005.14165, appendix B): a second moment with a 20-step memory suits short runs."""


class InvalidConfiguration(ValueError):
    """A value or combination of values that no training run can have."""


def _require(holds: bool, rule: str, value: object, remedy: str) -> None:
    if not holds:
        raise InvalidConfiguration(f"{rule}; got {value!r}: {remedy}")


class _FromMapping:
    """Strict construction from parsed JSON or TOML: unknown keys and wrong types are errors."""

    __slots__ = ()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; nested dataclasses from nested mappings.

        Raises:
            InvalidConfiguration: a key is unknown or missing, or a value has the wrong type or range.
        """
        hints = get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(fields))
        _require(
            not unknown, f"{cls.__name__} has no field of that name", ", ".join(unknown), f"use {', '.join(fields)}"
        )
        missing = sorted(
            name
            for name, f in fields.items()
            if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        )
        _require(not missing, f"{cls.__name__} needs every field", f"no {', '.join(missing)}", "add it")
        return cls(**{name: _coerce(f"{cls.__name__}.{name}", hints[name], value) for name, value in values.items()})

    def to_mapping(self) -> dict[str, Any]:
        """The plain values, ready for JSON; `from_mapping` is its inverse."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


def _coerce(where: str, kind: type, value: Any) -> Any:
    """`value` as `kind`: an int is accepted as a float; nothing else is converted."""
    if isinstance(kind, type) and issubclass(kind, _FromMapping):
        _require(isinstance(value, Mapping), f"{where} must be a table", value, "give its fields")
        return kind.from_mapping(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _require(type(value) is kind, f"{where} must be {kind.__name__}", value, f"write a {kind.__name__}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig(_FromMapping):
    """The shape of a GPT-2-style decoder, except what the knobs and the tokenizer determine."""

    layers: int
    heads: int
    width: int
    sequence_length: int

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "width", "sequence_length"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name), "use 1 or more")
        _require(
            self.width % self.heads == 0,
            "width must be a multiple of heads",
            f"{self.width} with {self.heads} heads",
            f"try width {self.heads * max(1, self.width // self.heads)}",
        )


_SHARED = ("ddp", "fsdp", "tensor", "pipeline")
_APART: tuple[tuple[str, KnobValue, tuple[str, ...], str], ...] = (
    ("dtype", "bf16_master", _SHARED, "which would add gradients up in bf16, before the fp32 copy sees them"),
    ("optimizer_in_backward", True, _SHARED, "where a gradient is complete only after the pass"),
    ("loss_kernel", "chunked", ("tensor", "pipeline"), "where no process has head and hidden states in one piece"),
    ("optimizer", "adafactor", ("fsdp", "tensor"), "for torch's cannot factor a matrix that is shared out"),
    ("tied_head", True, ("pipeline",), "whose first and last stage would share a weight"),
    ("dtype", "fp16_autocast", ("pipeline",), "whose stages would each skip other steps"),
)
"""A knob, a value, the kinds of parallelism it is incompatible with, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(_FromMapping):
    """One training configuration: a value for every knob. The defaults are what a plain script does.

    `micro_batch` is in sequences per pass and process, `global_batch` in sequences per step over all processes.
    `clip_norm` 0 and `clip_value` 0 mean "off", `threads` 0 means "torch's default". A value that has no effect
    because of another knob is rejected: it would be the same configuration under another name. The one exception is
    a `clip_norm` of 1 or more after `gradient_normalization` global. It is the default, so rejecting it would mean
    that `gradient_normalization` could not be changed alone.
    """

    micro_batch: int = 8
    global_batch: int = 8
    dtype: str = "fp32"
    attention: str = "math"
    compile: str = "off"
    optimizer_kernel: str = "for_loop"
    threads: int = 0
    parallelism: str = "none"
    world_size: int = 1
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_fraction: float = 0.05
    clip_norm: float = 1.0
    weight_decay: float = 0.1
    tied_head: bool = False
    vocab_multiple: int = 1
    matmul_precision: str = "highest"
    loss_kernel: str = "full"
    optimizer_in_backward: bool = False
    checkpointing: bool = False
    qkv_layout: str = "strided"
    prefetch: bool = False
    pinned_memory: bool = False
    set_to_none: bool = True
    index_dtype: str = "int64"
    optimizer: str = "adamw"
    beta2: float = DEFAULT_BETA2
    clip_value: float = 0.0
    gradient_normalization: str = "none"
    weight_decay_schedule: str = "constant"
    decay_groups: str = "matrices"
    dropout: float = 0.0
    dropout_schedule: str = "constant"

    def __post_init__(self) -> None:
        for knob in KNOBS.values():
            problem = knob.problem_with(getattr(self, knob.name))
            if problem:
                raise InvalidConfiguration(problem)
        _require(
            (self.parallelism == "none") == (self.world_size == 1),
            "parallelism must be none for one process, and something else for several",
            f"{self.parallelism} with world_size {self.world_size}",
            "use world_size 1 with none, 2 or more with the others",
        )
        shared = self.data_ranks > 1
        _require(
            self.global_batch % self.pass_sequences == 0,
            f"global_batch must be a multiple of micro_batch{' * world_size' if shared else ''}",
            f"{self.global_batch} with micro_batch {self.micro_batch}"
            + (f", world_size {self.world_size}" if shared else ""),
            f"try global_batch {self.pass_sequences * max(1, math.ceil(self.global_batch / self.pass_sequences))}",
        )
        self._require_of_processes()
        self._require_kernels()
        if self.optimizer_in_backward:
            self._require_separate_updates()
        self._check_learning()

    def _require_of_processes(self) -> None:
        """Reject what is impossible if each process sees only part of the model or the batch."""
        for name, value, apart, reason in _APART:
            _require(
                getattr(self, name) != value or self.parallelism not in apart,
                f"{name} {value} must not meet parallelism {' or '.join(apart)}, {reason}",
                self.parallelism,
                f"change {name} or use another parallelism",
            )

    def _require_kernels(self) -> None:
        """Reject kernels that would not run, or would not do what their name says."""
        _require(
            self.loss_kernel == "full" or self.compile in ("off", "regional"),
            "loss_kernel chunked cannot be compiled as part of the whole graph",
            f"compile {self.compile}",
            'use compile "regional" or loss_kernel "full"',
        )
        _require(
            self.loss_kernel == "full" or self.vocab_multiple == 1,
            "loss_kernel chunked does not work with padded rows of the head",
            f"vocab_multiple {self.vocab_multiple}",
            "use vocab_multiple 1",
        )
        _require(
            self.matmul_precision == "highest" or self.dtype not in ("bf16_master", "bf16_pure"),
            "matmul_precision only affects fp32 products, and bf16 weights have none",
            f"{self.matmul_precision} with dtype {self.dtype}",
            'use matmul_precision "highest"',
        )

    def _require_separate_updates(self) -> None:
        """Reject what an update in the backward pass cannot do: it sees each weight's gradient once, and no others."""
        rule = "optimizer_in_backward updates each weight by itself"
        whole = {
            "optimizer": "adamw",
            "accumulation_steps": 1,
            "clip_norm": 0.0,
            "clip_value": 0.0,
            "gradient_normalization": "none",
            "set_to_none": True,
        }
        for name, needed in whole.items():
            found = getattr(self, name)
            _require(found == needed, f"{rule}, which needs {name} {needed}", found, "switch one of them off")
        _require(
            self.dtype not in ("fp16_autocast", "bf16_master"),
            f"{rule}, so it can neither skip a step nor update a master copy",
            f"dtype {self.dtype}",
            'use "bf16_autocast"',
        )

    def _check_learning(self) -> None:
        """Reject combinations of learning knobs in which one has no effect or is impossible."""
        _require(
            self.beta2 == DEFAULT_BETA2 or self.optimizer != "adafactor",
            "beta2 belongs to optimizer adamw or muon",
            f"{self.beta2:g} with {self.optimizer}",
            f"leave beta2 at {DEFAULT_BETA2}",
        )
        for name, without_effect in (("weight_decay_schedule", "constant"), ("decay_groups", "matrices")):
            _require(
                self.weight_decay > 0 or getattr(self, name) == without_effect,
                f"{name} needs a weight_decay above 0",
                f"{getattr(self, name)} with weight_decay {self.weight_decay:g}",
                f"leave {name} at {without_effect}",
            )
        if self.dropout_schedule != "constant":
            _require(
                self.dropout > 0,
                "dropout_schedule needs a dropout above 0",
                f"{self.dropout_schedule} with dropout {self.dropout:g}",
                "leave dropout_schedule at constant",
            )
            _require(
                self.compile == "off",
                "dropout_schedule needs compile off, for a compiled graph has the rate built in",
                f"{self.dropout_schedule} with compile {self.compile}",
                "leave one of them out",
            )

    def with_knobs(self, values: Mapping[str, KnobValue]) -> Self:
        """This configuration with other values for the named knobs.

        Raises:
            InvalidConfiguration: the combination is invalid.
        """
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]

    def difference(self, other: TrainingConfig) -> dict[str, KnobValue]:
        """The knobs in which this configuration differs from `other`, with the values it has here."""
        return {name: getattr(self, name) for name in KNOBS if getattr(self, name) != getattr(other, name)}

    @property
    def data_ranks(self) -> int:
        """Number of processes that train on different sequences: 1 if all train on the same."""
        return self.world_size if self.parallelism in ("ddp", "fsdp") else 1

    @property
    def pass_sequences(self) -> int:
        """Sequences in one forward and backward pass, over all processes."""
        return self.micro_batch * self.data_ranks

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per optimizer step and process."""
        return self.global_batch // self.pass_sequences


def default_knobs() -> dict[str, KnobValue]:
    """The default value of every knob."""
    return TrainingConfig().to_mapping()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(_FromMapping):
    """Which text to train on and how to tokenize it.

    `corpus` is a file, a folder, a glob, a `.jsonl` file or the word `stdlib`; `tokenizer` is
    `bpe:<vocabulary>`, `bytes` or the name of a tiktoken encoding.
    """

    corpus: str = "stdlib"
    text_field: str = "text"
    tokenizer: str = "bpe:2048"
    holdout_fraction: float = 0.1
    cache_dir: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.corpus), "corpus must name a text", self.corpus, 'use a path or "stdlib"')
        _require(bool(self.tokenizer), "tokenizer must be named", self.tokenizer, 'use "bpe:2048", "bytes" or "gpt2"')
        if self.tokenizer.startswith("bpe:"):
            size = self.tokenizer.removeprefix("bpe:")
            _require(
                size.isdecimal() and 257 <= int(size) <= 1_000_000,
                "tokenizer bpe:<vocabulary> needs a size between 257 and 1000000",
                self.tokenizer,
                'try "bpe:2048"',
            )
        _require(
            0.0 < self.holdout_fraction <= 0.5,
            "holdout_fraction must be in (0, 0.5]",
            self.holdout_fraction,
            "try 0.1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig(_FromMapping):
    """Everything a worker process needs: what to train, on what, how, and for how long.

    `horizon_tokens` is the length of the learning-rate schedule; a session may be advanced past it
    (the schedule then holds its last value), as happens to a reference kept warm for timing.
    """

    gpt: GPTConfig
    data: DataConfig
    training: TrainingConfig
    seed: int
    horizon_tokens: int
    evaluation_tokens: int = 16_384
    device: str = "auto"

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed must not be negative", self.seed, "use 0 or more")
        _require(self.horizon_tokens >= 1, "horizon_tokens must be positive", self.horizon_tokens, "try 50000")
        _require(self.evaluation_tokens >= 1, "evaluation_tokens must be positive", self.evaluation_tokens, "try 16384")
        _require(self.device in ("auto", "cpu", "cuda", "mps"), "device must be known", self.device, 'use "auto"')
        _require(
            not self.training.pinned_memory or self.device in ("auto", "cuda"),
            "pinned_memory needs a GPU to copy to",
            f"device {self.device}",
            "use pinned_memory false",
        )
        self._require_shares()

    def _require_shares(self) -> None:
        """A model split across processes must have a part for each."""
        world_size = self.training.world_size
        if self.training.parallelism == "tensor":
            _require(
                self.gpt.heads % world_size == 0,
                "heads must be a multiple of world_size for tensor parallelism",
                f"{self.gpt.heads} with world_size {world_size}",
                "use a world_size that divides heads",
            )
        if self.training.parallelism == "pipeline":
            _require(
                self.gpt.layers >= world_size,
                "layers must be at least world_size for pipeline parallelism",
                f"{self.gpt.layers} with world_size {world_size}",
                f"use a world_size up to {self.gpt.layers}",
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step consumes."""
        return self.training.global_batch * self.gpt.sequence_length

    @property
    def horizon_steps(self) -> int:
        """Optimizer steps in the complete schedule, at least one."""
        return max(1, self.horizon_tokens // self.tokens_per_step)
