"""The workload protocol: everything the search knows about the training job.

The pipeline knows configurations, knobs and their classes, sessions and records. A workload knows the rest: what a
knob means, which values are valid together, how to start a session. The built-in GPT is one workload
(`autotune.workload.gpt`); `tests/workload/contract.py` tests what every workload must do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.space.knobs import Knob, KnobValue
from autotune.space.limits import Limits
from autotune.workload.machine import Machine

Values = Mapping[str, Sequence[KnobValue]]
"""By knob: the values that a space may try, as far as they can be listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """The size of one optimizer step of a configuration, as far as it is known before running it.

    `tokens` counts a whole step over all devices; `pass_tokens` counts one forward and backward pass of one process.
    `compiles` says that the first pass includes compilation. `arithmetic` is the key of `Machine.peak_flops` used for
    its MFU; empty if none fits. `processes` train together: each has a device of its own, or all share the CPU.
    """

    tokens: int
    pass_tokens: int
    compiles: bool
    arithmetic: str = ""
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSketches:
    """Equivalence gate: a session's sketches must lie within these relative distances of the baseline's.

    The sketches are of the logits of held-out windows, the first gradient and the first update.
    """

    logits: float
    gradient: float
    update: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGate:
    """No equivalence gate: differences show only in the loss. `reason` appears in the report."""

    reason: str


Gate = CompareSketches | NoGate
"""How to check that a configuration that changes no learning knob computes the same as the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What an executor starts: a program, its additional environment variables, and its input.

    `program` is an argument list; the executor appends the subcommand (`worker`, `launcher` or `prepare`) and the path
    of a JSON file that holds `payload`.
    """

    program: tuple[str, ...]
    payload: Mapping[str, object]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedClaim:
    """A claim that `aligned` is faster than `other`; both configurations do the same work per token."""

    words: str
    aligned: Configuration
    other: Configuration


class Workload(Protocol):
    """A training job. Immutable.

    `baseline` is what the user would run today. `corpus` is the text as the user named it. `horizon_tokens` is the
    token budget of trials that are judged on their loss; `evaluation_tokens` the held-out tokens per evaluation.
    """

    @property
    def knobs(self) -> Mapping[str, Knob]:
        """Every knob by name. Usually most important first: a small budget tries them in this order."""
        ...

    @property
    def baseline(self) -> Configuration: ...

    @property
    def corpus(self) -> str: ...

    @property
    def horizon_tokens(self) -> int: ...

    @property
    def evaluation_tokens(self) -> int: ...

    def with_corpus(self, corpus: str) -> Workload:
        """The same workload on another text.

        Raises:
            InvalidConfiguration: the workload does not take a corpus.
        """
        ...

    def identity(self) -> Mapping[str, str]:
        """By key, all that measurements depend on besides the baseline, for example model shape and tokenizer."""
        ...

    def check(self, configuration: Configuration) -> None:
        """Raises InvalidConfiguration, with rule, value and remedy, if these values are not valid together."""
        ...

    def whole_numbers(self, name: str, low: int, high: int, others: Values) -> Sequence[int]:
        """The numbers from `low` to `high` that the knob `name` may have, while other knobs have values in `others`.

        It leaves out no number that `check` accepts with any of them, but may have others. It is short even where the
        range is long and most of it is impossible, such as micro-batches that divide no global batch.
        """
        ...

    def expert(self, machine: Machine) -> Configuration:
        """The hand-tuned default: what a careful engineer would set on this machine without measuring.

        The baseline if there is none.
        """
        ...

    def limits(self, machine: Machine, values: Values) -> Limits:
        """Which of `values` this machine cannot run, or cannot gain from, with reasons."""
        ...

    def cost(self, configuration: Configuration) -> StepCost:
        """The size of one of its optimizer steps."""
        ...

    def peak_bytes(self, configuration: Configuration, machine: Machine) -> int | Unknown:
        """Predicted peak bytes that a session takes of the memory that sessions share."""
        ...

    def gate(self, configuration: Configuration) -> Gate:
        """How to check that it computes the same as the baseline."""
        ...

    def order(self, configuration: Configuration, *, seed: int, horizon_tokens: int) -> WorkerOrder:
        """The order that starts a session of it.

        Raises:
            InvalidConfiguration: the knobs are valid together, but not with this model.
        """
        ...

    def examination(self, values: Values) -> WorkerOrder:
        """The order that describes machine and text. It probes those of `values` that only an attempt can judge."""
        ...

    def schedule_area(self, configuration: Configuration, horizon_tokens: int) -> float | Unknown:
        """The sum of the learning rates over the steps of a complete schedule of `horizon_tokens`."""
        ...

    def speed_claims(self, machine: Machine) -> tuple[SpeedClaim, ...]:
        """Claims about aligned shapes for `autotune techniques` to measure; empty if there are none."""
        ...
