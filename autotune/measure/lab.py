"""The lab: measures sessions side by side and stores every result before the next step.

`Lab.trial` measures one candidate against the warm reference. `Lab.block` opens a group in fresh processes,
with one seed and common rounds, and trains each to the end of its schedule (docs/method.md, 3 and 4). What may pass (a
crash, a hang, a kill) is measured once more before it is stored.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import optuna

from autotune.analysis.rates import paired_speed
from autotune.executors.base import Executor, OutOfTime
from autotune.executors.memory import fits
from autotune.measure.run import OUT_OF_TIME, Run, Unopened, now, own_seconds, record_of
from autotune.measure.sessions import Sessions
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.study.events import Event, Happening, Listener, TrialFinished, TrialRepeated, TrialStarted
from autotune.study.ledger import Budget
from autotune.study.store import Study
from autotune.trial.types import (
    Infeasible,
    InfeasibleKind,
    Pruned,
    Slice,
    TrialRecord,
    TrialSpec,
    outcome_kind,
    outcome_reason,
)
from autotune.workload.base import CompareSketches
from autotune.workload.machine import Machine

_FREE_SLICES = 7  # merged into one: unpaired training needs slices only for progress and Ctrl-C
_ROUNDS_BEFORE_PRUNING = 5
_LEAST_ROUNDS = 12  # the fewest that give a usable centre: docs/method.md, 3.4
_BLOCK_ROUNDS = 60  # beyond this the spread between restarts dominates (docs/method.md, 3.4, 3.5)
_BREATH_SECONDS = 1.0  # before a trial is measured again
_LENIENT = 6.0  # times the patience, where the machine is disturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A record, and why another attempt may end differently; empty if it may not."""

    record: TrialRecord
    may_pass: str = ""

    def unjudged(self) -> _Attempt:
        """The attempt where there is no time for another: what may pass is nobody's fault yet."""
        if not self.may_pass:
            return self
        return replace(self, record=replace(self.record, outcome=Pruned(reason=f"out of time: {self.may_pass}")))


class Lab:
    """Measures trials on an executor and stores them in a study. Only one session steps at a time."""

    def __init__(
        self,
        *,
        study: Study,
        executor: Executor,
        machine: Machine,
        storage: optuna.storages.BaseStorage,
        clock: Callable[[], float],
        listeners: Sequence[Listener],
        sitting_started: float | None = None,
        seed: int = 0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Opens no session yet.

        Args:
            study: the study that stores the trials.
            executor: where sessions run.
            machine: text and machine as the executor examined them, including the memory that sessions may use.
            storage: Optuna's storage for proposals.
            clock: monotonic, in seconds.
            listeners: called with every event, after the study's own log.
            sitting_started: the reading of `clock` when this sitting began; default: now.
            seed: seed of the order of slices within a round.
            pause: waits that many seconds.
        """
        self.study = study
        self.machine = study.keep_machine(machine)
        limits = study.space.workload.limits(self.machine, study.space.values)
        self.space, self.pruned = study.space.pruned(limits)
        self.storage = storage
        self.budget = Budget(study, clock, sitting_started)
        self._executor = executor
        self._clock = clock
        self._pause = pause
        self._listeners = (study.log, *listeners)
        self._order = random.Random(seed)
        self._sessions = Sessions(
            study=study,
            space=self.space,
            machine=self.machine,
            executor=executor,
            budget=self.budget,
            clock=clock,
            pause=pause,
        )

    def close(self) -> None:
        """End the reference session. Safe to call twice."""
        self._sessions.drop_reference()

    def tell(self, what: Happening) -> None:
        """Send an event to the decision log and all listeners."""
        event = Event(elapsed_seconds=round(self.budget.elapsed_seconds, 3), what=what)
        for listener in self._listeners:
            listener(event)

    # -- measuring -------------------------------------------------------------------------------

    def trial(
        self,
        spec: TrialSpec,
        *,
        rounds: int,
        complete: bool = False,
        must_beat: float = -math.inf,
        gate: bool = False,
        noise_batches: int = 0,
    ) -> TrialRecord:
        """Measure one candidate against the warm reference, unless the study already has the result.

        Args:
            spec: what to run.
            rounds: pairs of slices to take.
            complete: train to the end of the schedule and evaluate there.
            must_beat: a log-ratio of speed; a candidate shown to be below it is pruned.
            gate: stop a candidate that does not compute the same as the reference.
            noise_batches: global batches for measuring gradient noise at the end; 0 skips it.
        """
        known = self.study.result_of(spec)
        if known:
            return known
        self._announce(spec)
        measure = functools.partial(
            self._trial, spec, rounds, complete=complete, must_beat=must_beat, gate=gate, noise_batches=noise_batches
        )
        attempt = measure(leniency=1.0)
        if outcome_kind(attempt.record.outcome) == InfeasibleKind.TOO_SLOW and self._sessions.is_disturbed():
            self.tell(TrialRepeated(stage=spec.stage, number=spec.number))
            attempt = measure(leniency=_LENIENT)
        elif attempt.may_pass:
            if self._takes_breath():
                self.tell(TrialRepeated(stage=spec.stage, number=spec.number, reason=attempt.may_pass))
                attempt = measure(leniency=1.0)
            else:
                attempt = attempt.unjudged()
        (record,) = self._keep(attempt.record)
        return record

    def block(
        self, specs: Sequence[TrialSpec], *, complete: bool, rounds: int = _BLOCK_ROUNDS
    ) -> tuple[TrialRecord, ...]:
        """Measure a group side by side in fresh processes; the others are paired with the first.

        There are at most `rounds` rounds, fewer if a session reaches the end of its schedule. With `complete`,
        each session is then trained to the end of its schedule and evaluated; after too few rounds, timing
        continues past that end. Members that the study already has are not run again; if the first is one of
        them, a copy of it is opened to pair with. If one ends in a way that may pass, all of them are measured again:
        slices pair only with those of the same moment.
        """
        missing = [s for s in specs if self.study.result_of(s) is None]
        if missing:
            attempts = self._block(specs[0], missing, rounds, complete)
            again = [a for a in attempts if a.may_pass]
            if again and self._takes_breath():
                for each in again:
                    spec = each.record.spec
                    self.tell(TrialRepeated(stage=spec.stage, number=spec.number, reason=each.may_pass))
                second = self._block(specs[0], missing, rounds, complete)
                if sum(bool(a.may_pass) for a in second) <= len(again):
                    attempts = second
            else:
                attempts = [a.unjudged() for a in attempts]
            self._keep(*(attempt.record for attempt in attempts))
        return tuple(r for s in specs if (r := self.study.result_of(s)))

    def _trial(
        self,
        spec: TrialSpec,
        rounds: int,
        *,
        complete: bool,
        must_beat: float,
        gate: bool,
        noise_batches: int,
        leniency: float,
    ) -> _Attempt:
        started, started_at = self._clock(), now()

        def attempt(
            run: Run | Unopened, partners: Sequence[Slice] = (), may_pass: str = "", *, interleaved: bool = True
        ) -> _Attempt:
            record = record_of(spec, run, partners, self._clock() - started, started_at, interleaved=interleaved)
            costs = replace(record.costs, reference_step_seconds=sum(s.seconds for s in partners))
            return _Attempt(record=replace(record, costs=costs), may_pass=may_pass)

        predicted = self._predict(spec.config)
        if not fits(predicted, self.machine.available_bytes):
            outcome = Infeasible(
                kind=InfeasibleKind.PREDICTED_OUT_OF_MEMORY,
                message=f"needs about {predicted / 2**30:.1f} GiB of {self.machine.available_bytes / 2**30:.1f} GiB",
            )
            return attempt(Unopened(outcome=outcome))
        try:
            reference = self._sessions.reference()
        except OutOfTime:
            return attempt(Unopened(outcome=OUT_OF_TIME))
        together = self._fit_together(spec.config, reference.config)
        partners: list[Slice] = []
        if not together:
            self._alone(reference, rounds, partners)
            self.close()
        run = self._sessions.open(spec, leniency)
        if isinstance(run, Run):
            try:
                how = self.space.workload.gate(spec.config)
                fingerprint = self._sessions.reference_fingerprint
                if gate and fingerprint and isinstance(how, CompareSketches):
                    run.compare(fingerprint, how)
                if together:
                    partners = self._pair([run], reference, rounds, complete=complete, must_beat=must_beat)
                elif reference.outcome is None:
                    self._alone(run, rounds)
                if reference.outcome is None:
                    if complete:
                        self._finish(run)
                    if noise_batches:
                        run.measure_noise(noise_batches)
                    if together and len(partners) < rounds:  # short schedule: continue timing past its end
                        partners += self._pair([run], reference, rounds, first_round=len(partners), complete=False)
                run.miss_partner(reference, partners, complete=complete)
            finally:
                run.session.close()
        if reference.outcome:
            self.close()  # the next trial opens a new one
        return attempt(run, partners, _why_again(run, reference), interleaved=together)

    def _takes_breath(self) -> bool:
        """Pause before another attempt; False if there is no time for one."""
        if self.budget.remaining_seconds <= _BREATH_SECONDS:
            return False
        self._pause(_BREATH_SECONDS)
        return True

    def _block(self, first: TrialSpec, missing: Sequence[TrialSpec], rounds: int, complete: bool) -> list[_Attempt]:
        self._executor.renew()
        started, started_at = self._clock(), now()
        specs = [first, *(s for s in missing if s != first)]
        together = self._fit_together(*(s.config for s in specs), self.space.baseline)
        opened: dict[int, Run | Unopened] = {}
        partners: list[Slice] = []
        try:
            if together:
                for spec in specs:
                    opened[spec.number] = self._announced(spec)
                partners = self._side_by_side(opened, opened[first.number], rounds, complete)
            else:
                self.close()
                for spec in specs:
                    opened[spec.number] = member = self._announced(spec)
                    if isinstance(member, Run):
                        self._alone(member, rounds, partners if spec == first else None, complete=complete)
                        if complete:
                            self._finish(member)
                        member.session.close()
        finally:
            for member in opened.values():
                if isinstance(member, Run):
                    member.session.close()
        reference = opened[first.number]
        for member in opened.values():
            if isinstance(member, Run) and member is not reference:
                member.miss_partner(reference, partners, complete=complete)
        wall = self._clock() - started
        shared = (wall - sum(own_seconds(m) for m in opened.values())) / len(opened)
        return [
            _Attempt(
                record=record_of(
                    spec,
                    opened[spec.number],
                    () if spec == first else partners,
                    own_seconds(opened[spec.number]) + shared,
                    started_at,
                    interleaved=together,
                ),
                may_pass=_why_again(opened[spec.number]),
            )
            for spec in missing
        ]

    def _side_by_side(
        self, opened: Mapping[int, Run | Unopened], reference: Run | Unopened, rounds: int, complete: bool
    ) -> list[Slice]:
        """Pair the members of a block with its first, and train them to the end. Returns the slices of the first."""
        if not isinstance(reference, Run):
            return []
        runs = [r for r in opened.values() if isinstance(r, Run) and r is not reference]
        partners = self._pair(runs, reference, rounds, complete=complete)
        for run in (reference, *runs) if complete else ():
            self._finish(run)
        if len(partners) < _LEAST_ROUNDS:  # short schedule: continue timing past its end
            partners += self._pair(runs, reference, _LEAST_ROUNDS, first_round=len(partners), complete=False)
        return partners

    def _pair(
        self,
        runs: Sequence[Run],
        reference: Run,
        rounds: int,
        *,
        complete: bool,
        first_round: int = 0,
        must_beat: float = -math.inf,
    ) -> list[Slice]:
        """Take slices of all sessions in turn, in random order within a round. Returns the reference's slices."""
        partners: list[Slice] = []
        is_member = reference.spec is not None
        for number in range(first_round, rounds):
            live = [r for r in runs if r.outcome is None and not (complete and r.steps_left == 0)]
            if (runs and not live) or self.budget.remaining_seconds <= 0:
                break
            if is_member and complete and reference.steps_left == 0:
                break
            for run in self._order.sample([*live, reference], len(live) + 1):
                limited = complete and (is_member or run is not reference)
                steps = min(run.steps_per_slice, run.steps_left) if limited else run.steps_per_slice
                taken = run.take(max(1, steps), number)
                if run is reference:
                    if taken is None:
                        return partners
                    partners.append(taken)
                    self._sessions.see_reference(taken)
            if number + 1 >= _ROUNDS_BEFORE_PRUNING:
                for run in live:
                    run.prune(partners, must_beat)
        return partners

    def _alone(self, run: Run, rounds: int, taken_by: list[Slice] | None = None, *, complete: bool = False) -> None:
        """Take slices of one session alone, when two do not fit in memory. Whole runs then alternate, not slices."""
        for number in range(rounds):
            ended = run.outcome is not None or (complete and run.steps_left == 0)
            if ended or self.budget.remaining_seconds <= 0:
                return
            taken = run.take(min(run.steps_per_slice, run.steps_left) if complete else run.steps_per_slice, number)
            if taken and taken_by is not None:
                taken_by.append(taken)

    def _finish(self, run: Run) -> None:
        """Train to the end of the schedule and evaluate there."""
        while run.outcome is None and run.steps_left:
            if self.budget.remaining_seconds <= 0:
                run.outcome = OUT_OF_TIME
                return
            chunk = round(run.steps_per_slice * _FREE_SLICES)
            run.take(min(run.steps_left, max(1, chunk)), -1)
        run.evaluate(self._clock)

    # -- opening ---------------------------------------------------------------------------------

    def _announced(self, spec: TrialSpec) -> Run | Unopened:
        self._announce(spec)
        return self._sessions.open(spec, _LENIENT)

    def _predict(self, config: Configuration) -> int:
        """Predicted peak bytes of the shared memory; 0 if there is no prediction, so that the trial runs anyway."""
        predicted = self.space.workload.peak_bytes(config, self.machine)
        return 0 if isinstance(predicted, Unknown) else predicted

    def _fit_together(self, *configs: Configuration) -> bool:
        """Whether sessions of all these configurations fit in memory at once."""
        return fits(sum(map(self._predict, configs)), self.machine.available_bytes)

    def _announce(self, spec: TrialSpec) -> None:
        self.tell(
            TrialStarted(
                stage=spec.stage, number=spec.number, label=spec.label, changes=self.space.changed(spec.config)
            )
        )

    def _keep(self, *records: TrialRecord) -> tuple[TrialRecord, ...]:
        """Store records of the same moment, with how busy the machine was then."""
        load = self._executor.load()
        share = round(load.others_share, 3) if load else None
        kept = tuple(replace(record, others_share=share) for record in records)
        for record in kept:
            self._acknowledge(record)
        return kept

    def _acknowledge(self, record: TrialRecord) -> None:
        self.study.acknowledge(record)
        speed = paired_speed(record.slices, record.reference_slices)
        self.tell(
            TrialFinished(
                stage=record.spec.stage,
                number=record.spec.number,
                label=record.spec.label,
                outcome=outcome_kind(record.outcome),
                reason=outcome_reason(record.outcome),
                throughput_ratio=None if isinstance(speed, Unknown) else round(math.exp(speed.centre), 4),
                loss=round(record.evaluations[-1].loss, 4) if record.evaluations else None,
            )
        )


def _why_again(run: Run | Unopened, reference: Run | None = None) -> str:
    """Why another attempt may end differently; empty if it may not. `reference` is one that is opened anew."""
    if reference is not None and reference.outcome not in (None, OUT_OF_TIME):
        return f"the baseline beside it ended ({outcome_reason(reference.outcome)})"
    return f"it ended in a way that may pass ({outcome_reason(run.outcome)})" if run.outcome and run.may_pass else ""
