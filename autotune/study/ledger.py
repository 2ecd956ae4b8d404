"""The search's clock: one hard cap on the whole search, divided among the stages.

When a stage begins it gets its share of the remaining time; what it does not spend goes to later
stages. Deadlines are stored, so resuming after a crash buys no extra time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autotune.study.store import StageMark, Study
from autotune.trial.types import Stage, StageEnd

SHARES = {
    Stage.CALIBRATE: 0.12,
    Stage.EXPLORE_SYSTEM: 0.32,
    Stage.EXPLORE_LEARNING: 0.40,
    Stage.RACE: 0.04,
    Stage.CONFIRM: 0.10,
    Stage.ATTRIBUTE: 0.02,
}
"""Relative shares of the budget. Earlier stages cannot use up the share of `confirm`: every claim needs it."""


class Budget:
    """Elapsed and remaining seconds of a study, over all its sittings."""

    def __init__(self, study: Study, clock: Callable[[], float], started: float | None = None) -> None:
        """Start from the time that earlier sittings spent.

        `clock` is monotonic, in seconds; `started` is its reading when this sitting began (default: now).
        """
        self._study = study
        self._clock = clock
        self._started = (clock() if started is None else started) - study.elapsed_seconds
        self._noted = study.elapsed_seconds
        self.total_seconds = study.info.budget_seconds
        self.is_limited = False  # by something else than the budget

    def limit(self, seconds: float) -> None:
        """Cap the whole search at `seconds`, if that is less than its budget. The same in every sitting."""
        self.is_limited = seconds < self._study.info.budget_seconds
        self.total_seconds = min(self.total_seconds, seconds)

    @property
    def elapsed_seconds(self) -> float:
        """Seconds searched so far; written to disk about once a second."""
        elapsed = self._clock() - self._started
        if elapsed - self._noted >= 1.0:
            self.note()
        return elapsed

    def note(self) -> None:
        """Write the elapsed time to disk. Reading a finished study adds nothing to it."""
        if self._study.is_finished:
            return
        self._noted = self._clock() - self._started
        self._study.note_elapsed(self._noted)

    @property
    def remaining_seconds(self) -> float:
        """Seconds left of the whole budget, never negative."""
        return max(0.0, self.total_seconds - self.elapsed_seconds)

    def begin(self, stage: Stage) -> StageMark:
        """Allot `stage` its share, or return its mark if it began before."""
        mark = self._study.stage(stage)
        if mark is None or mark.deadline_seconds is None:
            open_stages = [s for s in SHARES if (m := self._study.stage(s)) is None or m.deadline_seconds is None]
            share = SHARES[stage] / sum(SHARES[s] for s in open_stages)
            elapsed = self.elapsed_seconds
            mark = StageMark(
                started_seconds=elapsed,
                deadline_seconds=elapsed + share * self.remaining_seconds,
                earlier_seconds=mark.earlier_seconds if mark else 0.0,
            )
            self._study.mark(stage, mark)
        return mark

    @property
    def current_stage(self) -> Stage:
        """The stage that was begun last."""
        return [s for s in Stage if self._study.stage(s) is not None][-1]

    def allotted_seconds(self, stage: Stage) -> float:
        """The seconds that `stage` was allotted when it began; 0 before."""
        mark = self._study.stage(stage)
        return mark.deadline_seconds - mark.started_seconds if mark and mark.deadline_seconds is not None else 0.0

    def left_seconds(self, stage: Stage) -> float:
        """Seconds left of the stage's allotment, never negative."""
        mark = self._study.stage(stage)
        deadline = mark.deadline_seconds if mark else None
        return 0.0 if deadline is None else max(0.0, deadline - self.elapsed_seconds)

    def finish(self, stage: Stage, reason: StageEnd) -> None:
        """Mark `stage` as finished for `reason`."""
        mark = self.begin(stage)
        self.note()
        self._study.mark(stage, replace(mark, finished_seconds=self.elapsed_seconds, reason=reason))

    def is_finished(self, stage: Stage) -> bool:
        """Whether `stage` was finished, in this sitting or an earlier one."""
        mark = self._study.stage(stage)
        return mark is not None and mark.finished
