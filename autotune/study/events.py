"""What a running search tells: one closed type of event for the decision log and the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class EventKind(StrEnum):
    """What happened. The keys of an event's data stand beside its kind."""

    SITTING_STARTED = "sitting_started"  # study, budget_seconds, spent_seconds, resumed
    STAGE_STARTED = "stage_started"  # allotted_seconds
    STAGE_FINISHED = "stage_finished"  # spent_seconds, reason
    TRIAL_STARTED = "trial_started"  # number, label, config (only what differs from the baseline)
    TRIAL_FINISHED = "trial_finished"  # number, label, outcome, reason, ratio, loss (the last two where known)
    INCUMBENT = "incumbent"  # number, label, ratio, config
    DECISION = "decision"  # what, why, and its figures
    SITTING_FINISHED = "sitting_finished"  # verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event: `stage` is empty outside stages; `elapsed_seconds` counts over all sittings of the study."""

    kind: EventKind
    stage: str
    elapsed_seconds: float
    data: Mapping[str, object]


class Listener(Protocol):
    """Anything that is told of events: the decision log, a terminal."""

    def __call__(self, event: Event) -> None: ...
