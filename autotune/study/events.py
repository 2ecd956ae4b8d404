"""What a running search tells: a closed union of frozen events, kept in the decision log and shown by a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from autotune.space.knobs import KnobValue
from autotune.trial.types import Stage, StageEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class SittingStarted:
    """A driver has opened the study; `spent_seconds` are those of earlier sittings."""

    study: str
    budget_seconds: float
    spent_seconds: float
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage has begun, or was taken up again; it may take `allotted_seconds` from here on."""

    stage: Stage
    allotted_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A stage is over for good, after `spent_seconds` over all sittings."""

    stage: Stage
    spent_seconds: float
    reason: StageEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted:
    """A trial is being opened; `changes` are the knobs that differ from the baseline's."""

    stage: Stage
    number: int
    label: str
    changes: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    """A trial is kept. `outcome` is a word of `trial.types.outcome_kind`.

    `throughput_ratio` is that over what it was paired with, `loss` in nats per token; None where not known.
    """

    stage: Stage
    number: int
    label: str
    outcome: str
    reason: str
    throughput_ratio: float | None
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncumbentFound:
    """The best trial of its stage so far; `speedup` is its exploratory ratio over the baseline, to equal quality."""

    stage: Stage
    number: int
    label: str
    speedup: float
    changes: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRepeated:
    """A trial that was too slow is measured once more, because the reference was slow just then, too."""

    stage: Stage
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTrialNotWorthIt:
    """Exploring ends: one more trial is expected to save less than it costs, both in `currency`."""

    stage: Stage
    expected_saving: float
    trial_cost: float
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNotWorthIt:
    """A stage ends: what may be hoped for on the plan is less than finding and confirming it would cost."""

    stage: Stage
    hoped_seconds: float
    cost_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceWon:
    """The simplest finalist among those that cannot be told apart from the best."""

    stage: Stage
    label: str
    changes: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class SittingFinished:
    """The search has come to a verdict, a value of `analysis.recommendation.Verdict`."""

    verdict: str


Happening = (
    SittingStarted
    | StageStarted
    | StageFinished
    | TrialStarted
    | TrialFinished
    | IncumbentFound
    | TrialRepeated
    | NextTrialNotWorthIt
    | StageNotWorthIt
    | RaceWon
    | SittingFinished
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened, and when: `elapsed_seconds` of search over all sittings of the study."""

    elapsed_seconds: float
    what: Happening


class Listener(Protocol):
    """Anything that is told of events: the decision log, a terminal."""

    def __call__(self, event: Event) -> None: ...
