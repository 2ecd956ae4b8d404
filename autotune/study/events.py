"""Events of a running search: a closed union of frozen dataclasses, for the decision log and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from autotune.space.knobs import KnobValue
from autotune.trial.types import Stage, StageEnd
from autotune.workload.machine import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class SittingStarted:
    """A process opened the study. `spent_seconds` is the search time of earlier sittings."""

    study: str
    budget_seconds: float
    spent_seconds: float
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMended:
    """A file of the study was damaged; `text` says which, and what was done. `lost_trials` are to run again."""

    text: str
    lost_trials: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineBusy:
    """Before anything is measured, other programs compute in this share of the machine's cores."""

    others_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRead:
    """The text that trials train on, for up to `horizon_tokens` each."""

    corpus: Corpus
    horizon_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage began or resumed; it may take `allotted_seconds` from now on."""

    stage: Stage
    allotted_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A stage ended for good, after `spent_seconds` over all sittings."""

    stage: Stage
    spent_seconds: float
    reason: StageEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted:
    """A trial is being opened. `changes` are the knobs that differ from the baseline."""

    stage: Stage
    number: int
    label: str
    changes: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    """A trial was stored. `outcome` is a value of `trial.types.outcome_kind`.

    `throughput_ratio` is over the session it was paired with; `loss` is in nats per token. None if not known.
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
    """A new best trial of its stage. `speedup` is over the baseline, to equal quality, and exploratory."""

    stage: Stage
    number: int
    label: str
    speedup: float
    changes: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRepeated:
    """A trial is repeated, because what ended it may pass: `reason` says what, in words.

    Without one, it was too slow, and the reference was slow at that moment, too.
    """

    stage: Stage
    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTrialNotWorthIt:
    """Exploration ends: one more trial is expected to save less than it costs. Both are in `currency`."""

    stage: Stage
    expected_saving: float
    trial_cost: float
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNotWorthIt:
    """A stage ends: what it may save on the plan, or cost at most, is less than what finding and confirming costs."""

    stage: Stage
    hoped_seconds: float
    cost_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceWon:
    """The race has a winner: the simplest finalist of those that are not distinguishable from the best."""

    stage: Stage
    label: str
    changes: Mapping[str, KnobValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class SittingFinished:
    """The search reached a verdict, a value of `analysis.recommendation.Verdict`."""

    verdict: str


Happening = (
    SittingStarted
    | StudyMended
    | TextRead
    | MachineBusy
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
    """A receiver of events, for example the decision log or a terminal."""

    def __call__(self, event: Event) -> None: ...
