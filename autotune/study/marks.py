"""How far each stage of a study is, on the study's clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.trial.types import StageEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMark:
    """The state of a stage, on the study's clock (seconds of search over all sittings).

    A reopened stage has no deadline until it gets a new share; `earlier_seconds` is the time it took before that.
    `reason` is why the stage finished, None while it has not.
    """

    started_seconds: float
    deadline_seconds: float | None
    finished_seconds: float = 0.0
    earlier_seconds: float = 0.0
    reason: StageEnd | None = None

    @property
    def finished(self) -> bool:
        return self.reason is not None

    def reopened(self, elapsed_seconds: float) -> StageMark:
        """The mark of the stage when it is to go on; `elapsed_seconds` is the study's clock."""
        until = self.finished_seconds if self.finished else elapsed_seconds
        earlier = self.earlier_seconds + until - self.started_seconds
        return replace(
            self,
            started_seconds=until,
            deadline_seconds=None,
            finished_seconds=0.0,
            earlier_seconds=earlier,
            reason=None,
        )
