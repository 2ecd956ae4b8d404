"""The lab: measures sessions side by side and stores every result before the next step.

`Lab.trial` measures one candidate against the warm reference. `Lab.block` opens a group in fresh processes,
with one seed and common rounds, and trains each to the end of its schedule (docs/method.md, 3 and 4).
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import optuna

from autotune.analysis.rates import paired_speed
from autotune.errors import NothingFeasible
from autotune.executors.base import Executor, Patience, SessionEnded, SessionRequest
from autotune.executors.memory import fits
from autotune.measure.run import Run, now, outcome_of, own_seconds, record_of
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.study.events import Event, Happening, Listener, TrialFinished, TrialRepeated, TrialStarted
from autotune.study.ledger import Budget
from autotune.study.store import Study
from autotune.trial.types import (
    Fingerprint,
    Infeasible,
    InfeasibleKind,
    Outcome,
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
_HOPELESS = 8.0  # times slower than the reference: stop the session
_LEAST_PATIENCE_SECONDS = 1.5  # a load burst on a shared machine slows everything by a factor of six
_FIRST_PATIENCE = Patience(setup_seconds=120.0, pass_seconds=300.0, step_seconds=120.0)
_COMPILE_PATIENCE_SECONDS = 240.0
_ROUNDS_BEFORE_PRUNING = 5
_LEAST_ROUNDS = 12  # the fewest that give a usable centre: docs/method.md, 3.4
_BLOCK_ROUNDS = 60  # beyond this the spread between restarts dominates (docs/method.md, 3.4, 3.5)
_DISTURBED = 2.5  # times slower than usual: the machine is under a load burst


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
        """
        self.study = study
        self.machine = study.keep_machine(machine)
        limits = study.space.workload.limits(self.machine, study.space.values)
        self.space, self.pruned = study.space.pruned(limits)
        self.storage = storage
        self.budget = Budget(study, clock, sitting_started)
        self._executor = executor
        self._clock = clock
        self._listeners = (study.log, *listeners)
        self._order = random.Random(seed)
        self._reference: Run | None = None
        self._fingerprint: Fingerprint | None = None  # of the reference
        self._usual_rate = 0.0  # fastest rate of the reference so far, tokens/s; used for timeouts only

    def close(self) -> None:
        """End the reference session. Safe to call twice."""
        if self._reference:
            self._reference.session.close()
            self._reference = None

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
        record = measure(leniency=1.0)
        if outcome_kind(record.outcome) == InfeasibleKind.TOO_SLOW and self._is_disturbed():
            self.tell(TrialRepeated(stage=spec.stage, number=spec.number))
            record = measure(leniency=6.0)
        self._keep(record)
        return record

    def block(
        self, specs: Sequence[TrialSpec], *, complete: bool, rounds: int = _BLOCK_ROUNDS
    ) -> tuple[TrialRecord, ...]:
        """Measure a group side by side in fresh processes; the others are paired with the first.

        There are at most `rounds` rounds, fewer if a session reaches the end of its schedule. With `complete`,
        each session is then trained to the end of its schedule and evaluated; after too few rounds, timing
        continues past that end. Members that the study already has are not run again; if the first is one of
        them, a copy of it is opened to pair with.
        """
        missing = [s for s in specs if self.study.result_of(s) is None]
        if missing:
            self._executor.renew()
            for record in self._block(specs[0], missing, rounds, complete):
                self._keep(record)
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
    ) -> TrialRecord:
        started, started_at = self._clock(), now()
        predicted = self._predict(spec.config)
        if not fits(predicted, self.machine.available_bytes):
            outcome = Infeasible(
                kind=InfeasibleKind.PREDICTED_OUT_OF_MEMORY,
                message=f"needs about {predicted / 2**30:.1f} GiB of {self.machine.available_bytes / 2**30:.1f} GiB",
            )
            return record_of(spec, outcome, (), self._clock() - started, started_at)
        reference = self._warm_reference()
        together = self._fit_together(spec.config, reference.config)
        partners: list[Slice] = []
        if not together:
            self._alone(reference, rounds, partners)
            self.close()
        run = self._open(spec, leniency)
        if isinstance(run, Run):
            try:
                how = self.space.workload.gate(spec.config)
                if gate and self._fingerprint and isinstance(how, CompareSketches):
                    run.compare(self._fingerprint, how)
                if together:
                    partners = self._pair([run], reference, rounds, complete=complete, must_beat=must_beat)
                else:
                    self._alone(run, rounds)
                if complete:
                    self._finish(run)
                if noise_batches:
                    run.measure_noise(noise_batches)
                if together and len(partners) < rounds:  # short schedule: continue timing past its end
                    partners += self._pair([run], reference, rounds, first_round=len(partners), complete=False)
            finally:
                run.session.close()
        if reference.outcome:
            self.close()  # the next trial opens a new one
        record = record_of(spec, run, partners, self._clock() - started, started_at, interleaved=together)
        return replace(record, costs=replace(record.costs, reference_step_seconds=sum(s.seconds for s in partners)))

    def _block(self, first: TrialSpec, missing: Sequence[TrialSpec], rounds: int, complete: bool) -> list[TrialRecord]:
        started, started_at = self._clock(), now()
        specs = [first, *(s for s in missing if s != first)]
        together = self._fit_together(*(s.config for s in specs), self.space.baseline)
        opened: dict[int, Run | Outcome] = {}
        partners: list[Slice] = []
        try:
            if together:
                for spec in specs:
                    opened[spec.number] = self._announced(spec)
                reference = opened[first.number]
                if isinstance(reference, Run):
                    runs = [r for r in opened.values() if isinstance(r, Run) and r is not reference]
                    partners = self._pair(runs, reference, rounds, complete=complete)
                    for run in (reference, *runs) if complete else ():
                        self._finish(run)
                    if len(partners) < _LEAST_ROUNDS:  # short schedule: continue timing past its end
                        partners += self._pair(
                            runs, reference, _LEAST_ROUNDS, first_round=len(partners), complete=False
                        )
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
        wall = self._clock() - started
        shared = (wall - sum(own_seconds(m) for m in opened.values())) / len(opened)
        return [
            record_of(
                spec,
                opened[spec.number],
                () if spec == first else partners,
                own_seconds(opened[spec.number]) + shared,
                started_at,
                interleaved=together,
            )
            for spec in missing
        ]

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
                    self._usual_rate = max(self._usual_rate, taken.tokens_per_second)
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
                run.outcome = Pruned(reason="out of time")
                return
            chunk = round(run.steps_per_slice * _FREE_SLICES)
            run.take(min(run.steps_left, max(1, chunk)), -1)
        run.evaluate(self._clock)

    # -- opening ---------------------------------------------------------------------------------

    def _announced(self, spec: TrialSpec) -> Run | Outcome:
        self._announce(spec)
        return self._open(spec, leniency=6.0)

    def _open(self, spec: TrialSpec, leniency: float) -> Run | Outcome:
        started = self._clock()
        try:
            request = self._request(
                spec.config,
                seed=spec.seed,
                horizon_tokens=spec.horizon_tokens,
                log_path=self.study.trial_folder(spec.number) / "log.txt",
                patience=self._patience(spec.config, leniency),
            )
            session = self._executor.open(request)
        except InvalidConfiguration as error:  # valid knobs that do not fit this model
            return Infeasible(kind=InfeasibleKind.INVALID, message=str(error))
        except SessionEnded as ended:
            return outcome_of(ended)
        return Run(
            config=spec.config,
            session=session,
            open_seconds=self._clock() - started,
            peak_flops=self._peak_flops(spec.config),
            spec=spec,
        )

    def _request(
        self, config: Configuration, *, seed: int, horizon_tokens: int, log_path: Path, patience: Patience
    ) -> SessionRequest:
        workload = self.space.workload
        return SessionRequest(
            configuration=config,
            seed=seed,
            horizon_tokens=horizon_tokens,
            evaluation_tokens=workload.evaluation_tokens,
            tokens_per_step=workload.cost(config).tokens,
            order=workload.order(config, seed=seed, horizon_tokens=horizon_tokens),
            log_path=log_path,
            patience=patience,
        )

    def _peak_flops(self, config: Configuration) -> float:
        """The machine's measured peak in the arithmetic of `config`, in FLOP/s; 0 if it was not measured."""
        return self.machine.peak_flops.get(self.space.workload.cost(config).arithmetic, 0.0)

    def _warm_reference(self) -> Run:
        """The baseline session that stays warm for the whole study (docs/method.md, 3.3)."""
        if self._reference is None:
            started = self._clock()
            config = self.space.baseline
            request = self._request(
                config,
                seed=0,
                horizon_tokens=self.space.workload.horizon_tokens,
                log_path=self.study.folder / "reference.log",
                patience=_FIRST_PATIENCE,
            )
            try:
                run = Run(
                    config=config,
                    session=self._executor.open(request),
                    open_seconds=self._clock() - started,
                    peak_flops=self._peak_flops(config),
                )
                self._fingerprint = run.session.fingerprint()
                for _ in range(3):  # warm-up: the first steps of a process are slower
                    self._usual_rate = max(self._usual_rate, run.session.advance(1).tokens_per_second)
            except SessionEnded as ended:
                raise NothingFeasible(
                    f"the baseline must train on this machine; got {ended.kind}: {ended.message}: "
                    f"change [baseline], see {request.log_path}"
                ) from None
            self._reference = run
        return self._reference

    def _patience(self, config: Configuration, leniency: float) -> Patience:
        if not self._usual_rate:
            return _FIRST_PATIENCE
        cost = self.space.workload.cost(config)
        step = max(_LEAST_PATIENCE_SECONDS, _HOPELESS * cost.tokens / self._usual_rate) * leniency
        first = max(_LEAST_PATIENCE_SECONDS, _HOPELESS * cost.pass_tokens / self._usual_rate) * leniency
        if cost.compiles:
            first += _COMPILE_PATIENCE_SECONDS
        return Patience(setup_seconds=_FIRST_PATIENCE.setup_seconds, pass_seconds=first, step_seconds=step)

    def _predict(self, config: Configuration) -> int:
        """Predicted peak bytes of the shared memory; 0 if there is no prediction, so that the trial runs anyway."""
        predicted = self.space.workload.peak_bytes(config, self.machine)
        return 0 if isinstance(predicted, Unknown) else predicted

    def _fit_together(self, *configs: Configuration) -> bool:
        """Whether sessions of all these configurations fit in memory at once."""
        return fits(sum(map(self._predict, configs)), self.machine.available_bytes)

    def _is_disturbed(self) -> bool:
        """Whether the reference is slow right now, too."""
        run = self._warm_reference()
        taken = run.take(1, -1)
        return taken is not None and taken.tokens_per_second * _DISTURBED < self._usual_rate

    def _announce(self, spec: TrialSpec) -> None:
        self.tell(
            TrialStarted(
                stage=spec.stage, number=spec.number, label=spec.label, changes=self.space.changed(spec.config)
            )
        )

    def _keep(self, record: TrialRecord) -> None:
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
