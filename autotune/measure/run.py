"""A session under measurement, and the record made from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from autotune.analysis.gates import equivalence
from autotune.analysis.rates import implausible, paired_speed
from autotune.executors.base import OutOfTime, Session, SessionEnded
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.trial.types import (
    Completed,
    Costs,
    Evaluation,
    Failed,
    FailedKind,
    Fingerprint,
    GradientNoise,
    Infeasible,
    InfeasibleKind,
    Outcome,
    Pruned,
    Ready,
    Slice,
    TrialRecord,
    TrialSpec,
    outcome_reason,
)
from autotune.workload.base import CompareSketches

OUT_OF_TIME = Pruned(reason="out of time")
_SLICE_SECONDS = 0.15  # short slices pair closer in time, which beats longer slices: docs/method.md, 3.4


@dataclass(slots=True)
class Run:
    """A session under measurement and its results so far. `peak_flops` is the device's peak in its arithmetic, or 0.

    `may_pass` says that it ended in a way that another attempt may not.
    """

    config: Configuration
    session: Session
    open_seconds: float
    peak_flops: float
    spec: TrialSpec | None = None
    steps_done: int = 0
    steps_per_slice: int = 1
    slices: list[Slice] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    gradient_noise: list[GradientNoise] = field(default_factory=list)
    evaluate_seconds: float = 0.0
    outcome: Outcome | None = None
    may_pass: bool = False

    @property
    def ready(self) -> Ready:
        return self.session.ready

    @property
    def steps_left(self) -> int:
        """Steps left in the schedule."""
        return max(0, self.ready.horizon_steps - self.steps_done)

    def take(self, steps: int, round_number: int) -> Slice | None:
        """Train `steps` steps. Returns None and sets the outcome if the session ended instead."""
        try:
            taken = self.session.advance(steps, round_number)
        except SessionEnded as ended:
            self._end(ended)
            return None
        self.steps_done += steps
        self.slices.append(taken)
        if why := implausible([taken], flops_per_token=self.ready.flops_per_token, peak_flops=self.peak_flops):
            self.outcome = Failed(kind=FailedKind.IMPLAUSIBLE, message=why)
            return None
        self.steps_per_slice = max(1, round(_SLICE_SECONDS * steps / max(taken.seconds, 1e-9)))
        return taken

    def evaluate(self, clock: Callable[[], float]) -> None:
        """Evaluate the held-out loss and record the time it took, unless the session has ended."""
        if self.outcome is not None:
            return
        started = clock()
        try:
            self.evaluations.append(self.session.evaluate())
        except SessionEnded as ended:
            self._end(ended)
        self.evaluate_seconds = clock() - started

    def compare(self, reference: Fingerprint, gate: CompareSketches) -> None:
        """End the run if its fingerprint does not match the reference's within the gate's tolerances."""
        try:
            found = self.session.fingerprint()
        except SessionEnded as ended:
            self._end(ended)
            return
        self.fingerprints.append(found)
        if differs := equivalence(found, reference, gate):
            self.outcome = Infeasible(
                kind=InfeasibleKind.NOT_EQUIVALENT,
                message=f"{differs.what} must agree with the baseline's within {differs.tolerance:.2g} of its norm; "
                f"got {differs.distance:.2g}: its results differ from the baseline's",
            )

    def measure_noise(self, batches: int) -> None:
        """Measure gradient noise at the current step, unless the session has ended (McCandlish et al. 2018)."""
        if self.outcome is None:
            try:
                self.gradient_noise.append(self.session.gradient_noise(batches))
            except SessionEnded as ended:
                self._end(ended)

    def prune(self, partners: Sequence[Slice], must_beat: float) -> None:
        """End the run if its speed is below the log-ratio `must_beat` by 3 standard errors (docs/method.md, 5)."""
        if self.outcome is not None or must_beat == -math.inf:
            return
        speed = paired_speed(self.slices, partners)
        if not isinstance(speed, Unknown) and speed.centre + 3.0 * speed.stderr < must_beat:
            self.outcome = Pruned(reason="slower than the best")

    def miss_partner(self, partner: Run | Unopened, partners: Sequence[Slice], *, complete: bool) -> None:
        """Fail if the partner ended so early that this run tells nothing; `partners` are the slices it gave."""
        if self.outcome is not None or partner.outcome is None:
            return
        if not isinstance(paired_speed(self.slices, partners), Unknown) and (self.evaluations or not complete):
            return
        if partner.outcome == OUT_OF_TIME:
            self.outcome = OUT_OF_TIME
            return
        kind = partner.outcome.kind if isinstance(partner.outcome, Failed) else FailedKind.CRASH
        self.outcome = Failed(kind=kind, message=f"the session beside it ended: {outcome_reason(partner.outcome)}")
        self.may_pass = partner.may_pass

    def _end(self, ended: SessionEnded) -> None:
        self.outcome, self.may_pass = outcome_of(ended), ended.may_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Unopened:
    """A session that did not open. `may_pass` as of a run."""

    outcome: Outcome
    may_pass: bool = False


def outcome_of(ended: SessionEnded) -> Outcome:
    """The outcome for a session that ended."""
    if isinstance(ended, OutOfTime):
        return OUT_OF_TIME
    match ended.kind:
        case InfeasibleKind():
            return Infeasible(kind=ended.kind, message=ended.message)
        case FailedKind():
            return Failed(kind=ended.kind, message=ended.message)


def record_of(
    spec: TrialSpec,
    run: Run | Unopened,
    partners: Sequence[Slice],
    wall_seconds: float,
    started_at: str,
    *,
    interleaved: bool = True,
) -> TrialRecord:
    """The record of a run, or of a failed attempt to open one; `partners` are the slices it was paired with."""
    record = TrialRecord(
        spec=spec,
        outcome=Completed(),
        ready=(),
        slices=(),
        reference_slices=(),
        evaluations=(),
        costs=Costs(total_seconds=wall_seconds),
        interleaved=interleaved,
        started_at=started_at,
        finished_at=now(),
    )
    if not isinstance(run, Run):
        return replace(record, outcome=run.outcome)
    return replace(
        record,
        outcome=run.outcome or (Completed() if run.slices else OUT_OF_TIME),
        ready=(run.ready,),
        slices=tuple(run.slices),
        reference_slices=tuple(partners),
        evaluations=tuple(run.evaluations),
        fingerprints=tuple(run.fingerprints),
        gradient_noise=tuple(run.gradient_noise),
        costs=Costs(
            total_seconds=wall_seconds,
            open_seconds=run.open_seconds - run.ready.compile_seconds,
            compile_seconds=run.ready.compile_seconds,
            step_seconds=sum(s.seconds for s in run.slices),
            evaluate_seconds=run.evaluate_seconds,
        ),
    )


def own_seconds(run: Run | Unopened) -> float:
    """Seconds spent on this run alone: opening, steps and evaluation; 0 if it could not be opened."""
    if not isinstance(run, Run):
        return 0.0
    return run.open_seconds + sum(s.seconds for s in run.slices) + run.evaluate_seconds


def now() -> str:
    """The current UTC time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
