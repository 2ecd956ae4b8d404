"""The bench: sessions measured side by side, and every result kept before anything else happens.

`Lab.trial` measures one candidate against the warm reference; `Lab.block` opens a group afresh, with
one seed and common rounds, and trains each to the end of its schedule (METHOD 3 and 4).
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import optuna

from autotune.analysis.gates import coarser_dtype, equivalence
from autotune.analysis.rates import implausible, paired_speed
from autotune.budget import Budget
from autotune.errors import NothingFeasible
from autotune.executors.base import Executor, Patience, Session, SessionEnded, SessionRequest
from autotune.hardware.memory import fits, predict_peak_bytes
from autotune.hardware.prepare import Machine
from autotune.progress import Event, EventKind, Listener
from autotune.recommendation import Unknown
from autotune.study import Study
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
    outcome_kind,
)
from model.config import TrainingConfig

_SLICE_SECONDS = 0.15  # METHOD 3.4: pairs closer in time beat longer slices
_FREE_SLICE_SECONDS = 1.0  # where nothing is paired, only progress and Ctrl-C need slices
_HOPELESS = 8.0  # times slower than the reference: not worth a second look
_LEAST_PATIENCE_SECONDS = 1.5  # a burst on a shared machine slows everything six times
_FIRST_PATIENCE = Patience(setup_seconds=120.0, pass_seconds=300.0, step_seconds=120.0)
_COMPILE_PATIENCE_SECONDS = 240.0
_ROUNDS_BEFORE_PRUNING = 5
_BLOCK_ROUNDS = 60  # more pairs resolve nothing that restarts do not hide (METHOD 3.4, 3.5)
_PEAK_OF = {"fp32": "fp32", "bf16_autocast": "bf16", "fp16_autocast": "fp16"}
_DISTURBED = 2.5  # times slower than usual: the machine is in a burst


@dataclass(slots=True)
class _Run:
    """A session under measurement and what it has given so far."""

    config: TrainingConfig
    session: Session
    open_seconds: float
    spec: TrialSpec | None = None
    steps_done: int = 0
    steps_per_slice: int = 1
    slices: list[Slice] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    gradient_noise: list[GradientNoise] = field(default_factory=list)
    evaluate_seconds: float = 0.0
    outcome: Outcome | None = None

    @property
    def ready(self) -> Ready:
        return self.session.ready

    @property
    def steps_left(self) -> int:
        """Steps to the end of the schedule."""
        return max(0, self.ready.horizon_steps - self.steps_done)

    def take(self, steps: int, round_number: int) -> Slice | None:
        """Train `steps`; None, with the outcome set, where the session ended instead."""
        try:
            taken = self.session.advance(steps, round_number)
        except SessionEnded as ended:
            self.outcome = outcome_of(ended)
            return None
        self.steps_done += steps
        self.slices.append(taken)
        if why := implausible([taken], flops_per_token=0.0, peak_flops=0.0):
            self.outcome = Failed(kind=FailedKind.IMPLAUSIBLE, message=why)
            return None
        self.steps_per_slice = max(1, round(_SLICE_SECONDS * steps / max(taken.seconds, 1e-9)))
        return taken


def outcome_of(ended: SessionEnded) -> Outcome:
    """The outcome that a session's end stands for."""
    match ended.kind:
        case InfeasibleKind():
            return Infeasible(kind=ended.kind, message=ended.message)
        case FailedKind():
            return Failed(kind=ended.kind, message=ended.message)


class Lab:
    """Measures trials on an executor and keeps them in a study. Only one session steps at a time."""

    def __init__(
        self,
        *,
        study: Study,
        executor: Executor,
        machine: Machine,
        storage: optuna.storages.BaseStorage,
        capacity_bytes: int,
        clock: Callable[[], float],
        listeners: Sequence[Listener],
        sitting_started: float | None = None,
        seed: int = 0,
    ) -> None:
        """Nothing is opened yet.

        Args:
            study: whose trials are measured and kept.
            executor: where sessions run.
            machine: the corpus as it is trained on, and the device.
            storage: where Optuna keeps what is proposed.
            capacity_bytes: the memory that all sessions may use together.
            clock: monotonic, in seconds.
            listeners: told of every event, after the study's own log.
            sitting_started: what `clock` read when this sitting began; now, if not given.
            seed: of the order of slices within a round.
        """
        self.study = study
        self.space = study.space
        self.machine = machine
        self.storage = storage
        self.budget = Budget(study, clock, sitting_started)
        self._executor = executor
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._listeners = (study.log, *listeners)
        self._order = random.Random(seed)
        self._reference: _Run | None = None
        self._fingerprint: Fingerprint | None = None  # of the reference
        self._usual_rate = 0.0  # of the reference, tokens/s, the fastest seen: only patience depends on it

    def close(self) -> None:
        """End the reference session. Safe to call twice."""
        if self._reference:
            self._reference.session.close()
            self._reference = None

    def tell(self, kind: EventKind, stage: str = "", **data: object) -> None:
        """Tell the decision log and all listeners."""
        event = Event(kind=kind, stage=str(stage), elapsed_seconds=round(self.budget.elapsed_seconds, 3), data=data)
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
        """Measure one candidate against the warm reference, unless the study has it already.

        Args:
            spec: what to run.
            rounds: pairs of slices to take.
            complete: train to the end of the schedule and evaluate there.
            must_beat: a log-ratio of speed; a candidate provably below it is pruned.
            gate: end a candidate that does not compute what the reference does.
            noise_batches: global batches over which the gradient's noise is measured at the end; 0 for not at all.
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
            self.tell(
                EventKind.DECISION, spec.stage, what=f"trial {spec.number} again", why="the machine was in a burst"
            )
            record = measure(leniency=6.0)
        self._keep(record)
        return record

    def block(
        self, specs: Sequence[TrialSpec], *, complete: bool, rounds: int = _BLOCK_ROUNDS
    ) -> tuple[TrialRecord, ...]:
        """Measure a group side by side in fresh processes, the first being the one the others are paired with.

        There are at most `rounds` rounds, fewer where one session reaches the end of its schedule; with
        `complete` each is then trained to its own end and evaluated. Members that the study has
        already are not run again; where that is the first, a copy of it is opened to pair with.
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
        started, started_at = self._clock(), _now()
        predicted = self._predict(spec.config)
        if not fits(predicted, self._capacity_bytes):
            outcome = Infeasible(
                kind=InfeasibleKind.PREDICTED_OUT_OF_MEMORY,
                message=f"needs about {predicted / 2**30:.1f} GiB of {self._capacity_bytes / 2**30:.1f} GiB",
            )
            return _record(spec, outcome, (), self._clock() - started, started_at)
        reference = self._warm_reference()
        together = self._fit_together(spec.config, reference.config)
        partners: list[Slice] = []
        if not together:
            self._alone(reference, rounds, partners)
            self.close()
        run = self._open(spec, leniency)
        if isinstance(run, _Run):
            try:
                if gate:
                    self._compare(run)
                if together:
                    partners = self._pair([run], reference, rounds, complete=complete, must_beat=must_beat)
                else:
                    self._alone(run, rounds)
                if complete:
                    self._finish(run)
                if noise_batches:
                    _measure_noise(run, noise_batches)
                if together and len(partners) < rounds:  # a short schedule: its speed is measured past its end
                    partners += self._pair([run], reference, rounds, first_round=len(partners), complete=False)
            finally:
                run.session.close()
        if reference.outcome:
            self.close()  # opened anew for the next trial
        record = _record(spec, run, partners, self._clock() - started, started_at, interleaved=together)
        return replace(record, costs=replace(record.costs, reference_step_seconds=sum(s.seconds for s in partners)))

    def _block(self, first: TrialSpec, missing: Sequence[TrialSpec], rounds: int, complete: bool) -> list[TrialRecord]:
        started, started_at = self._clock(), _now()
        specs = [first, *(s for s in missing if s != first)]
        together = self._fit_together(*(s.config for s in specs), self.space.baseline)
        opened: dict[int, _Run | Outcome] = {}
        partners: list[Slice] = []
        try:
            if together:
                for spec in specs:
                    opened[spec.number] = self._announced(spec)
                reference = opened[first.number]
                if isinstance(reference, _Run):
                    runs = [r for r in opened.values() if isinstance(r, _Run) and r is not reference]
                    partners = self._pair(runs, reference, rounds, complete=complete)
                    for run in (reference, *runs) if complete else ():
                        self._finish(run)
            else:
                self.close()
                for spec in specs:
                    opened[spec.number] = member = self._announced(spec)
                    if isinstance(member, _Run):
                        self._alone(member, rounds, partners if spec == first else None, complete=complete)
                        if complete:
                            self._finish(member)
                        member.session.close()
        finally:
            for member in opened.values():
                if isinstance(member, _Run):
                    member.session.close()
        wall = self._clock() - started
        shared = (wall - sum(_own_seconds(m) for m in opened.values())) / len(opened)
        return [
            _record(
                spec,
                opened[spec.number],
                () if spec == first else partners,
                _own_seconds(opened[spec.number]) + shared,
                started_at,
                interleaved=together,
            )
            for spec in missing
        ]

    def _compare(self, run: _Run) -> None:
        """End a run that does not compute what the reference does: equal by a gate, never by assumption (METHOD 2)."""
        if self._fingerprint is None:
            return
        try:
            found = run.session.fingerprint()
        except SessionEnded as ended:
            run.outcome = outcome_of(ended)
            return
        run.fingerprints.append(found)
        dtype = coarser_dtype(run.config.dtype, self.space.baseline.dtype)
        if differs := equivalence(found, self._fingerprint, dtype=dtype):
            run.outcome = Infeasible(
                kind=InfeasibleKind.NOT_EQUIVALENT,
                message=f"{differs.what} must agree with the baseline's within {differs.tolerance:.2g} of its norm; "
                f"got {differs.distance:.2g}: it does not compute the same here",
            )

    def _pair(
        self,
        runs: Sequence[_Run],
        reference: _Run,
        rounds: int,
        *,
        complete: bool,
        first_round: int = 0,
        must_beat: float = -math.inf,
    ) -> list[Slice]:
        """Alternate slices of all sessions, in random order within a round; the reference's slices."""
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
                    _prune(run, partners, must_beat)
        return partners

    def _alone(self, run: _Run, rounds: int, taken_by: list[Slice] | None = None, *, complete: bool = False) -> None:
        """Slices of one session by itself, where memory holds one at a time: whole short runs alternate."""
        for number in range(rounds):
            ended = run.outcome is not None or (complete and run.steps_left == 0)
            if ended or self.budget.remaining_seconds <= 0:
                return
            taken = run.take(min(run.steps_per_slice, run.steps_left) if complete else run.steps_per_slice, number)
            if taken and taken_by is not None:
                taken_by.append(taken)

    def _finish(self, run: _Run) -> None:
        """Train to the end of the schedule and evaluate there."""
        while run.outcome is None and run.steps_left:
            if self.budget.remaining_seconds <= 0:
                run.outcome = Pruned(reason="the budget ended")
                return
            chunk = round(run.steps_per_slice * _FREE_SLICE_SECONDS / _SLICE_SECONDS)
            run.take(min(run.steps_left, max(1, chunk)), -1)
        if run.outcome is None:
            started = self._clock()
            try:
                run.evaluations.append(run.session.evaluate())
            except SessionEnded as ended:
                run.outcome = outcome_of(ended)
            run.evaluate_seconds = self._clock() - started

    # -- opening ---------------------------------------------------------------------------------

    def _announced(self, spec: TrialSpec) -> _Run | Outcome:
        self._announce(spec)
        return self._open(spec, leniency=6.0)

    def _open(self, spec: TrialSpec, leniency: float) -> _Run | Outcome:
        started = self._clock()
        request = SessionRequest(
            config=self.space.session(spec.config, seed=spec.seed, horizon_tokens=spec.horizon_tokens),
            log_path=self.study.trial_folder(spec.number) / "log.txt",
            patience=self._patience(spec.config, leniency),
        )
        try:
            session = self._executor.open(request)
        except SessionEnded as ended:
            return outcome_of(ended)
        return _Run(config=spec.config, session=session, open_seconds=self._clock() - started, spec=spec)

    def _warm_reference(self) -> _Run:
        """The session of the baseline that stays warm for the whole study (METHOD 3.3)."""
        if self._reference is None:
            started = self._clock()
            config = self.space.baseline
            request = SessionRequest(
                config=self.space.session(config, seed=0, horizon_tokens=self.space.workload.horizon_tokens),
                log_path=self.study.folder / "reference.log",
                patience=_FIRST_PATIENCE,
            )
            try:
                run = _Run(config=config, session=self._executor.open(request), open_seconds=self._clock() - started)
                self._fingerprint = run.session.fingerprint()
                for _ in range(3):  # warm: the first steps of a process are slower
                    self._usual_rate = max(self._usual_rate, run.session.advance(1).tokens_per_second)
            except SessionEnded as ended:
                raise NothingFeasible(
                    f"the baseline must be trainable here; got {ended.kind}: {ended.message}: "
                    f"change [baseline], see {request.log_path}"
                ) from None
            self._reference = run
        return self._reference

    def _patience(self, config: TrainingConfig, leniency: float) -> Patience:
        if not self._usual_rate:
            return _FIRST_PATIENCE
        sequence = self.space.workload.gpt.sequence_length
        step = max(_LEAST_PATIENCE_SECONDS, _HOPELESS * config.global_batch * sequence / self._usual_rate) * leniency
        first = max(_LEAST_PATIENCE_SECONDS, _HOPELESS * config.micro_batch * sequence / self._usual_rate) * leniency
        if config.compile != "off":
            first += _COMPILE_PATIENCE_SECONDS
        return Patience(setup_seconds=_FIRST_PATIENCE.setup_seconds, pass_seconds=first, step_seconds=step)

    def _predict(self, config: TrainingConfig) -> int:
        return predict_peak_bytes(self.space.workload.gpt, self.machine.corpus.vocab_size, config)

    def _fit_together(self, *configs: TrainingConfig) -> bool:
        """Whether sessions of all of these can be resident at once."""
        return fits(sum(map(self._predict, configs)), self._capacity_bytes)

    def _is_disturbed(self) -> bool:
        """Whether the reference, too, is slow just now."""
        run = self._warm_reference()
        taken = run.take(1, -1)
        return taken is not None and taken.tokens_per_second * _DISTURBED < self._usual_rate

    def _announce(self, spec: TrialSpec) -> None:
        self.tell(
            EventKind.TRIAL_STARTED,
            spec.stage,
            number=spec.number,
            label=spec.label,
            config=spec.config.difference(self.space.baseline),
        )

    def _keep(self, record: TrialRecord) -> None:
        if record.ready and record.is_complete:
            peak = self.machine.peak_flops.get(_PEAK_OF[record.spec.config.dtype], 0.0)
            flops = record.ready[0].flops_per_token
            if why := implausible(record.slices, flops_per_token=flops, peak_flops=peak):
                record = replace(record, outcome=Failed(kind=FailedKind.IMPLAUSIBLE, message=why))
        self.study.acknowledge(record)
        speed = paired_speed(record.slices, record.reference_slices)
        self.tell(
            EventKind.TRIAL_FINISHED,
            record.spec.stage,
            number=record.spec.number,
            label=record.spec.label,
            outcome=outcome_kind(record.outcome),
            reason=reason_of(record.outcome),
            **({} if isinstance(speed, Unknown) else {"ratio": round(math.exp(speed.centre), 4)}),
            **({"loss": round(record.evaluations[-1].loss, 4)} if record.evaluations else {}),
        )


def reason_of(outcome: Outcome) -> str:
    """Why a trial ended as it did; empty where it simply completed."""
    match outcome:
        case Completed():
            return ""
        case Pruned(reason=reason):
            return reason
        case Infeasible(message=message) | Failed(message=message):
            return message


def _prune(run: _Run, partners: Sequence[Slice], must_beat: float) -> None:
    """End a run whose speed is provably below what it would have to beat (METHOD 5)."""
    if run.outcome is not None or must_beat == -math.inf:
        return
    speed = paired_speed(run.slices, partners)
    if not isinstance(speed, Unknown) and speed.centre + 3.0 * speed.stderr < must_beat:
        run.outcome = Pruned(reason="provably slower than the best so far")


def _measure_noise(run: _Run, batches: int) -> None:
    """How noisy the gradient is where the run has got to (McCandlish et al. 2018)."""
    if run.outcome is None:
        try:
            run.gradient_noise.append(run.session.gradient_noise(batches))
        except SessionEnded as ended:
            run.outcome = outcome_of(ended)


def _own_seconds(run: _Run | Outcome) -> float:
    if not isinstance(run, _Run):
        return 0.0
    return run.open_seconds + sum(s.seconds for s in run.slices) + run.evaluate_seconds


def _record(
    spec: TrialSpec,
    run: _Run | Outcome,
    partners: Sequence[Slice],
    wall_seconds: float,
    started_at: str,
    *,
    interleaved: bool = True,
) -> TrialRecord:
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
        finished_at=_now(),
    )
    if not isinstance(run, _Run):
        return replace(record, outcome=run)
    return replace(
        record,
        outcome=run.outcome or Completed(),
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
