"""The progress of a search, folded from its events. Pure, so that terminal and web page show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from autotune.space.knobs import KnobValue
from autotune.study.events import (
    Event,
    IncumbentFound,
    MachineBusy,
    NextTrialNotWorthIt,
    RaceWon,
    SittingFinished,
    SittingStarted,
    StageFinished,
    StageNotWorthIt,
    StageStarted,
    StudyMended,
    TextRead,
    TrialFinished,
    TrialRepeated,
    TrialStarted,
)
from autotune.trial.types import Stage

Decision = TrialRepeated | NextTrialNotWorthIt | StageNotWorthIt | RaceWon
"""Events that explain what the search does next."""

_LAST_TRIALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTrial:
    """A finished trial and its changes from the baseline; `changes` is None if its start was not seen."""

    trial: TrialFinished
    changes: Mapping[str, KnobValue] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a search, on the study's clock (seconds of search over all sittings).

    `budget_seconds` is 0 before it is known. `stage` is the current one, None between stages; it began or resumed at
    `stage_started_seconds` and may take `allotted_seconds` from then on. `spent_seconds` lists the finished stages.
    Trials of one block run side by side, so several may be `running`. `best` is the best trial of all stages. `last`
    are the latest finished trials, newest last. `verdict` is empty until there is one.
    """

    study: str = ""
    budget_seconds: float = 0.0
    text: TextRead | None = None
    elapsed_seconds: float = 0.0
    stage: Stage | None = None
    stage_started_seconds: float = 0.0
    allotted_seconds: float = 0.0
    spent_seconds: Mapping[Stage, float] = field(default_factory=dict)
    running: tuple[TrialStarted, ...] = ()
    best: IncumbentFound | None = None
    decision: Decision | None = None
    last: tuple[EndedTrial, ...] = ()
    verdict: str = ""


def fold(progress: Progress, event: Event) -> Progress:
    """The progress after `event`. Events may come in any order: a log may be truncated at either end."""
    now = replace(progress, elapsed_seconds=max(progress.elapsed_seconds, event.elapsed_seconds))
    match event.what:
        case SittingStarted(study=study, budget_seconds=budget_seconds):
            # trials that an earlier sitting left unfinished no longer run
            return replace(now, study=study, budget_seconds=budget_seconds, stage=None, running=(), verdict="")
        case StudyMended() | MachineBusy():
            return now
        case TextRead() as text:
            return replace(now, text=text)
        case StageStarted(stage=stage, allotted_seconds=allotted):
            return replace(
                now, stage=stage, stage_started_seconds=event.elapsed_seconds, allotted_seconds=allotted, running=()
            )
        case StageFinished(stage=stage, spent_seconds=spent):
            return replace(
                now,
                stage=None if stage is now.stage else now.stage,
                spent_seconds={**now.spent_seconds, stage: spent},
                running=tuple(t for t in now.running if t.stage is not stage),
            )
        case TrialStarted() as trial:
            return replace(now, running=(*_without(now.running, trial.number), trial))
        case TrialFinished() as trial:
            changes = next((t.changes for t in now.running if t.number == trial.number), None)
            last = (*now.last, EndedTrial(trial=trial, changes=changes))
            return replace(now, running=_without(now.running, trial.number), last=last[-_LAST_TRIALS:])
        case IncumbentFound() as found:
            is_better = now.best is None or found.speedup > now.best.speedup
            return replace(now, best=found) if is_better else now
        case TrialRepeated() | NextTrialNotWorthIt() | StageNotWorthIt() | RaceWon() as decision:
            return replace(now, decision=decision)
        case SittingFinished(verdict=verdict):
            return replace(now, stage=None, running=(), verdict=verdict)
        case _:
            assert_never(event.what)


def _without(running: tuple[TrialStarted, ...], number: int) -> tuple[TrialStarted, ...]:
    return tuple(t for t in running if t.number != number)
