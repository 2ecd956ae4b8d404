"""Opens the sessions of a study, and keeps the reference: a baseline session that stays warm (docs/method.md, 3.3).

No session is trusted for life. Patience follows the usual pace, every wait ends with the budget and a little grace, and
a reference that died or hung is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from autotune.errors import NothingFeasible
from autotune.executors.base import Executor, OutOfTime, SessionEnded, SessionRequest
from autotune.measure.patience import Pace, first_seconds
from autotune.measure.run import Run, Unopened, outcome_of
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.study.ledger import Budget
from autotune.study.store import Study
from autotune.trial.types import FailedKind, Fingerprint, Infeasible, InfeasibleKind, Slice, TrialSpec
from autotune.workload.machine import Machine
from autotune.workload.space import SearchSpace

_LEAST_GRACE_SECONDS = 10.0
_GRACE = 0.05  # of the budget: what was begun in time may end
_PAUSES = (1.0, 2.0, 4.0)  # seconds before another try at the reference: what kills workers may take a moment
_WARM_UP_STEPS = 3  # the first steps of a process are slower
_DISTURBED = 2.5  # times slower than usual: the machine is under a load burst


class Sessions:
    """Opens sessions of `space` on `executor`. `pause` waits that many seconds."""

    def __init__(
        self,
        *,
        study: Study,
        space: SearchSpace,
        machine: Machine,
        executor: Executor,
        budget: Budget,
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        """Opens none yet."""
        self._study = study
        self._space = space
        self._machine = machine
        self._executor = executor
        self._budget = budget
        self._clock = clock
        self._pause = pause
        self._pace = Pace()
        self._reference: Run | None = None
        self._opened_by = math.inf  # by the clock: when a first reference must have trained
        self.reference_fingerprint: Fingerprint | None = None

    def open(self, spec: TrialSpec, leniency: float) -> Run | Unopened:
        """A run of `spec`, or why it did not open."""
        log_path = self._study.trial_folder(spec.number) / "log.txt"
        try:
            return self._open(spec.config, log_path, spec.seed, spec.horizon_tokens, leniency, spec)
        except InvalidConfiguration as error:  # valid knobs that do not fit this model
            return Unopened(outcome=Infeasible(kind=InfeasibleKind.INVALID, message=str(error)))
        except SessionEnded as ended:
            return Unopened(outcome=outcome_of(ended), may_pass=ended.may_pass)

    def reference(self) -> Run:
        """The warm baseline session; a new one if there is none.

        Raises:
            OutOfTime: the time of the search is spent.
            NothingFeasible: the baseline does not train here.
        """
        pauses = iter(_PAUSES)
        while self._reference is None:
            try:
                self._reference = self._open_reference()
            except OutOfTime:
                raise
            except SessionEnded as ended:
                pause = next(pauses, None)
                # Before its pace is known, one that hangs is told from one that is slow by another try.
                if pause is not None and (ended.may_pass or ended.kind is InfeasibleKind.TOO_SLOW):
                    if self._budget.remaining_seconds <= pause:
                        raise OutOfTime from None
                    self._pause(pause)
                    continue
                raise NothingFeasible(
                    f"the baseline must train on this machine; got {ended.kind}: {ended.message}: "
                    f"change [baseline], see {self._reference_log}"
                ) from None
        return self._reference

    def drop_reference(self) -> None:
        """End the reference session; the next one is a new process. Safe to call twice."""
        if self._reference:
            self._reference.session.close()
            self._reference = None

    def see_reference(self, taken: Slice) -> None:
        """Learn the usual pace from a slice of the baseline."""
        self._pace.see(taken)

    def is_disturbed(self) -> bool:
        """Whether the reference is slow right now, too, or does not even answer."""
        try:
            taken = self.reference().take(1, -1)
        except OutOfTime:
            return False
        if taken is None:
            self.drop_reference()
            return True
        return taken.tokens_per_second * _DISTURBED < self._pace.tokens_per_second

    @property
    def _reference_log(self) -> Path:
        return self._study.folder / "reference.log"

    def _open_reference(self) -> Run:
        space, is_first = self._space, not self._pace.tokens_per_second
        most = first_seconds(self._left_seconds()) if is_first else math.inf
        self._opened_by = self._clock() + most
        try:
            run = self._open(space.baseline, self._reference_log, 0, space.workload.horizon_tokens, 1.0)
            try:
                self.reference_fingerprint = run.session.fingerprint()
                for _ in range(_WARM_UP_STEPS):
                    self._pace.see(run.session.advance(1))
            except BaseException:
                run.session.close()
                raise
        except OutOfTime:
            self._opened_by = math.inf
            if self._left_seconds() <= 0.0:
                raise
            raise SessionEnded(FailedKind.HUNG, f"it must train its first steps within {most:.0f} s") from None
        finally:
            self._opened_by = math.inf
        self._pace.setup_seconds = max(self._pace.setup_seconds, run.ready.setup_seconds)
        cost = space.workload.cost(space.baseline)
        run.session.expect(self._pace.patience(cost, self._left_seconds()))
        return run

    def _open(
        self,
        config: Configuration,
        log_path: Path,
        seed: int,
        horizon_tokens: int,
        leniency: float,
        spec: TrialSpec | None = None,
    ) -> Run:
        workload, started = self._space.workload, self._clock()
        cost, left_seconds = workload.cost(config), self._left_seconds
        if left_seconds() <= 0.0:
            raise OutOfTime
        request = SessionRequest(
            configuration=config,
            seed=seed,
            horizon_tokens=horizon_tokens,
            evaluation_tokens=workload.evaluation_tokens,
            tokens_per_step=cost.tokens,
            order=workload.order(config, seed=seed, horizon_tokens=horizon_tokens),
            log_path=log_path,
            patience=self._pace.patience(cost, left_seconds(), leniency=leniency),
            left_seconds=left_seconds,
        )
        return Run(
            config=config,
            session=self._executor.open(request),
            open_seconds=self._clock() - started,
            peak_flops=self._machine.peak_flops.get(cost.arithmetic, 0.0),
            spec=spec,
        )

    def _left_seconds(self) -> float:
        """How long anything may still be waited for; asking notes the elapsed time on disk."""
        total = self._budget.total_seconds
        grace = max(_LEAST_GRACE_SECONDS, _GRACE * total)
        return min(total + grace - self._budget.elapsed_seconds, self._opened_by - self._clock())
