"""What the decision log still knows of a study, for the files that are damaged or lost. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.study.events import Event, StageFinished, StageStarted, StudyMended, TrialFinished, TrialStarted
from autotune.study.marks import StageMark
from autotune.trial.codec import from_json
from autotune.trial.types import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The study according to its decision log.

    `elapsed_seconds` is the clock of the last event. `stages` are the marks of the stages, to a tenth of a second.
    `ordered` and `acknowledged` are the trials that started and ended, with their stage. `unreadable` counts the lines
    that are left out of `readable`.
    """

    elapsed_seconds: float = 0.0
    stages: Mapping[str, StageMark] = field(default_factory=dict)
    ordered: Mapping[int, Stage] = field(default_factory=dict)
    acknowledged: Mapping[int, Stage] = field(default_factory=dict)
    unreadable: int = 0
    readable: bytes = b""


def history_of(log: bytes) -> History:
    """The history in the text of a decision log; a last line without an end is left out."""
    elapsed, unreadable = 0.0, 0
    readable: list[bytes] = []
    stages: dict[str, StageMark] = {}
    ordered: dict[int, Stage] = {}
    acknowledged: dict[int, Stage] = {}
    for line in log.split(b"\n")[:-1]:
        try:
            event = from_json(Event, json.loads(line))
        except (ValueError, RecursionError):  # a line of another version, or a damaged one
            unreadable += 1
            continue
        readable.append(line + b"\n")
        elapsed = event.elapsed_seconds
        match event.what:
            case StageStarted(stage=stage, allotted_seconds=allotted):
                stages[stage.value] = StageMark(started_seconds=elapsed, deadline_seconds=elapsed + allotted)
            case StageFinished(stage=stage, spent_seconds=spent, reason=reason):
                started = max(0.0, elapsed - spent)
                stages[stage.value] = StageMark(
                    started_seconds=started, deadline_seconds=elapsed, finished_seconds=elapsed, reason=reason
                )
            case TrialStarted(number=number, stage=stage):
                ordered[number] = stage
            case TrialFinished(number=number, stage=stage):
                acknowledged[number] = stage
            case StudyMended(lost_trials=lost):
                for number in lost:
                    acknowledged.pop(number, None)
    return History(
        elapsed_seconds=elapsed,
        stages=stages,
        ordered=ordered,
        acknowledged=acknowledged,
        unreadable=unreadable,
        readable=b"".join(readable),
    )
