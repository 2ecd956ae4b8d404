"""The workload door: all that the search knows of what is trained.

The pipeline knows configurations, knobs and their classes, sessions and records. What a knob means, which values
go together, how a session is started: a workload answers that. The built-in GPT is one (`autotune.workload.gpt`);
`tests/workload/contract.py` holds what every workload promises.
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
"""By knob: the values that a space may turn it to, as far as they can be listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What one optimizer step of a configuration is made of, as far as it is known before it runs.

    `tokens` are those of a whole step, all devices together; `pass_tokens` those of one forward and backward pass of
    one process. `compiles` says that the first pass waits for a compiler. `arithmetic` is the key of
    `Machine.peak_flops` that its matrix products are held against; empty where none fits.
    """

    tokens: int
    pass_tokens: int
    compiles: bool
    arithmetic: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSketches:
    """A session computes the same as the baseline's where its sketches lie within these relative distances of theirs.

    Of the logits of held-out windows, the first gradient and the first update, in this order.
    """

    logits: float
    gradient: float
    update: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGate:
    """Nothing can be compared before the run: what differs shows in the loss alone. `reason` is told in the report."""

    reason: str


Gate = CompareSketches | NoGate
"""How it is shown that a configuration which changes no learning knob computes what the baseline does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What an executor starts: a program, what is added to its environment, and what the program is told.

    `program` is an argument list; the executor adds what to do (`worker`, `launcher`, `prepare`) and where to find
    `payload`, which is plain data for a JSON file.
    """

    program: tuple[str, ...]
    payload: Mapping[str, object]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedClaim:
    """Two configurations that do the same work per token, of which `aligned` is said to be faster than `other`."""

    words: str
    aligned: Configuration
    other: Configuration


class Workload(Protocol):
    """What is trained. Frozen: everything follows from how it was read.

    `baseline` is what the user would run today. `corpus` names the text as the user did; `horizon_tokens` is the token
    budget of a trial that is judged on its loss, `evaluation_tokens` are read of the held-out text.
    """

    @property
    def knobs(self) -> Mapping[str, Knob]:
        """Every knob by name, the ones that usually matter most first: a small budget tries them in this order."""
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
            InvalidConfiguration: it cannot be told what to train on.
        """
        ...

    def identity(self) -> Mapping[str, str]:
        """By key, all that its measurements depend on beside the baseline: the shape of the model, the tokenizer."""
        ...

    def check(self, configuration: Configuration) -> None:
        """Raises InvalidConfiguration with rule, value and remedy where no run can have these values together."""
        ...

    def expert(self, machine: Machine) -> Configuration:
        """What a careful engineer would type on this machine without measuring; the baseline where nobody knows."""
        ...

    def limits(self, machine: Machine, values: Values) -> Limits:
        """Which of `values` this machine cannot run, or cannot gain from, with reasons."""
        ...

    def cost(self, configuration: Configuration) -> StepCost:
        """What a step of it is made of."""
        ...

    def peak_bytes(self, configuration: Configuration, machine: Machine) -> int | Unknown:
        """The most memory that a session of it will hold of what sessions share, in bytes."""
        ...

    def gate(self, configuration: Configuration) -> Gate:
        """How to show that it computes what the baseline does."""
        ...

    def order(self, configuration: Configuration, *, seed: int, horizon_tokens: int) -> WorkerOrder:
        """What starts a session of it.

        Raises:
            InvalidConfiguration: the knobs go together, but not with this model.
        """
        ...

    def examination(self, values: Values) -> WorkerOrder:
        """What describes machine and text; tries what of `values` only an attempt can tell."""
        ...

    def speed_claims(self, machine: Machine) -> tuple[SpeedClaim, ...]:
        """What is said of aligned shapes, for `autotune techniques` to measure; nothing where nothing is said."""
        ...
