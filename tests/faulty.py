"""Scripted studies in which sessions die or hang: when and how is up to a function of the test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from scripted_study import ScriptedStudy

from autotune.executors.base import SessionEnded, SessionRequest
from autotune.simulation.executor import ScriptedExecutor, ScriptedSession, SimulatedClock
from autotune.trial.types import FailedKind, InfeasibleKind, Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a session does after it has answered `after` advances (-1: it does not open); without a kind it hangs."""

    after: int
    kind: FailedKind | InfeasibleKind | None = None


Faults = Callable[[SessionRequest, int], Fault | None]
"""The fault of a session, by its request and how many were opened before it; None for a sound one."""


def is_reference(request: SessionRequest) -> bool:
    """Whether it is the warm reference."""
    return request.log_path.name == "reference.log"


class FaultySession:
    """A scripted session with a fault."""

    def __init__(self, session: ScriptedSession, fault: Fault) -> None:
        self._session = session
        self._fault = fault
        self._advances = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def advance(self, steps: int, round: int = -1) -> Slice:
        if self._advances == self._fault.after:
            session, kind = self._session, self._fault.kind
            if kind is not None:
                session._end(kind, "injected")
            limit = session._request.advance_seconds(steps, is_proven=session._steps_done > 0)
            session._spend(math.inf, limit, session._late, "go on")
        self._advances += 1
        return self._session.advance(steps, round)


class FaultyExecutor(ScriptedExecutor):
    """Opens sessions with faults, and counts what it opens."""

    def __init__(self, faults: Faults, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._faults = faults
        self._count = 0

    def open(self, request: SessionRequest) -> ScriptedSession:
        fault = self._faults(request, self._count)
        self._count += 1
        if fault is None:
            return super().open(request)
        if fault.after < 0:
            raise SessionEnded(fault.kind or FailedKind.HUNG, "injected")
        return cast(ScriptedSession, FaultySession(super().open(request), fault))


@dataclass
class FaultyStudy(ScriptedStudy):
    """A scripted study on a machine with faults; `clock` is that of the last sitting."""

    faults: Faults = lambda request, number: None
    clock: SimulatedClock = field(default_factory=SimulatedClock)

    def executor(self, clock: SimulatedClock) -> FaultyExecutor:
        self.clock = clock
        return FaultyExecutor(self.faults, self.world, clock, seed=self.seed, machine=self.machine)
