"""The records of a trial. Frozen data, units in the names, nothing derived.

A trial is one *session*: one configuration trained in one worker process. It is measured in slices. A slice may be
paired with one of the warm baseline (the reference): then both have the same `round`, and only their ratio means
anything on a noisy machine (docs/method.md, 3.3). What a worker measures and reports is defined once, for both sides of
the pipe, in `autotune_model.protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from autotune.space.configuration import Configuration
from autotune_model.protocol import Evaluation as Evaluation
from autotune_model.protocol import FailedKind as FailedKind
from autotune_model.protocol import Fingerprint as Fingerprint
from autotune_model.protocol import GradientNoise as GradientNoise
from autotune_model.protocol import InfeasibleKind as InfeasibleKind
from autotune_model.protocol import Ready as Ready
from autotune_model.protocol import Slice as Slice


class Stage(StrEnum):
    """The stages of a search, in order: the method's table of contents."""

    CALIBRATE = "calibrate"
    EXPLORE_SYSTEM = "explore_system"
    EXPLORE_LEARNING = "explore_learning"
    RACE = "race"
    CONFIRM = "confirm"
    ATTRIBUTE = "attribute"


class StageEnd(StrEnum):
    """Why a stage ended; stored with the study and shown in the report."""

    DONE = "done"
    BUDGET = "its time is spent"
    EXHAUSTED = "nothing left to try"
    NOTHING_FOUND = "no new combination found that is possible"
    NOT_WORTH_IT = "one more trial would cost more than it should save"
    NOTHING_TO_DO = "nothing to do"


BUSY_SHARE = 0.25
"""Share of the cores that other programs compute in, from which on it shows in what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The session did all it was asked to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The session was stopped early because it could no longer matter; its slices count."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """The configuration cannot be used here."""

    kind: InfeasibleKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The session broke."""

    kind: FailedKind
    message: str


Outcome = Completed | Pruned | Infeasible | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One session to run.

    `number` is unique in the study. `block` numbers the group of sessions that ran side by side
    with the same seed and rounds. `horizon_tokens` is the length of its schedule; `label` says in a
    word what it is for ("baseline", "expert default", "without dtype").
    """

    number: int
    stage: Stage
    label: str
    config: Configuration
    seed: int
    horizon_tokens: int
    block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Where a trial's wall time went, in seconds; `total_seconds` includes what is in no other field."""

    total_seconds: float
    open_seconds: float = 0.0
    compile_seconds: float = 0.0
    step_seconds: float = 0.0
    reference_step_seconds: float = 0.0
    evaluate_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A finished trial: what was asked, how it ended, everything it measured, what it cost.

    `reference_slices` are its partner's slices in the same rounds, so that the record can be judged by itself.
    `evaluations` and `gradient_noise` are in order of `tokens_seen`. `ready` is empty if the session never
    got that far, `fingerprints` if none were requested. `others_share` is the share of the machine's cores that other
    programs computed in meanwhile, None if it is not known. `interleaved` is False if the two sessions did not
    fit in memory side by side, and whole runs alternated instead. Times of day are ISO 8601 in UTC.
    """

    spec: TrialSpec
    outcome: Outcome
    ready: tuple[Ready, ...]
    slices: tuple[Slice, ...]
    reference_slices: tuple[Slice, ...]
    evaluations: tuple[Evaluation, ...]
    fingerprints: tuple[Fingerprint, ...] = ()
    gradient_noise: tuple[GradientNoise, ...] = ()
    costs: Costs
    interleaved: bool
    started_at: str
    finished_at: str
    others_share: float | None = None

    @property
    def is_complete(self) -> bool:
        return isinstance(self.outcome, Completed)


def outcome_kind(outcome: Outcome) -> str:
    """One word for an outcome: completed, pruned, or the kind of failure."""
    match outcome:
        case Completed():
            return "completed"
        case Pruned():
            return "pruned"
        case Infeasible(kind=kind):
            return kind.value
        case Failed(kind=failed):
            return failed.value


def outcome_reason(outcome: Outcome) -> str:
    """Why a trial ended as it did; empty if it simply completed."""
    match outcome:
        case Completed():
            return ""
        case Pruned(reason=reason):
            return reason
        case Infeasible(message=message) | Failed(message=message):
            return message
