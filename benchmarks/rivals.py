"""What else one could do with the same budget: the rivals that `truth.py` compares the search with.

All of them measure on the same noisy machine, one session at a time and without a paired partner, as one
does by hand. They are given the true slope of the loss curve, unknown in practice, to convert a loss to
tokens. They lack pairing, confirmation, and doubt about what short trials show.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna

from autotune.executors.base import Patience, Session, SessionEnded, SessionRequest
from autotune.simulation.executor import ScriptedExecutor, SimulatedClock
from autotune.simulation.worlds import DrawnWorld
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import Choice, FloatRange, IntRange, KnobValue
from autotune.workload.space import SearchSpace

_PATIENCE = Patience(setup_seconds=60.0, pass_seconds=120.0, step_seconds=5.0)
_CHUNKS = 10  # per schedule, between checks of the clock

Suggest = Callable[[str, "Choice | IntRange | FloatRange"], KnobValue]


class Rival:
    """A budget on a simulated machine and the baseline's own run, which everything is compared with."""

    def __init__(self, space: SearchSpace, world: DrawnWorld, *, budget_seconds: float, seed: int) -> None:
        self.space, self.world, self.seed = space, world, seed
        self.clock = SimulatedClock()
        self.budget_seconds = budget_seconds
        self._executor = ScriptedExecutor(world, self.clock, seed=seed)
        self.best, self.best_score = space.baseline, 0.0
        horizon = space.workload.horizon_tokens
        self._nats_per_log_token = world.loss_per_log_token(space.baseline, horizon)
        self._baseline: tuple[float, float] | None = None
        while self._baseline is None and self.has_time:  # a burst may end a run
            self._baseline = self._rate_and_loss(space.baseline)

    @property
    def has_time(self) -> bool:
        return self.clock() < self.budget_seconds

    def cost_to_equal_quality(self, config: Configuration) -> float | None:
        """ln S over the baseline from one short run each; None if the run ended early."""
        found, baseline = self._rate_and_loss(config), self._baseline
        if found is None or baseline is None:
            return None
        return math.log(found[0] / baseline[0]) - (found[1] - baseline[1]) / self._nats_per_log_token

    def cost_by_rungs(self, config: Configuration, trial: optuna.Trial) -> float | optuna.TrialPruned | None:
        """Minus ln S after a whole schedule, with rungs at 1, 3 and 9 ninths; None if the run ended early.

        A rung reports its current loss, converted to ln of time, as a user reports the loss of a running trial.
        """
        if self._baseline is None:
            return None
        session = self._opened(config, self.space.workload.horizon_tokens)
        if session is None:
            return None
        rate, loss, done = 0.0, math.nan, 0
        try:
            for rung in (1, 3, 9):
                wanted = math.ceil(session.ready.horizon_steps * rung / 9)
                if not self.has_time:
                    return None
                if wanted > done:
                    rate = session.advance(wanted - done).tokens_per_second
                done, loss = max(done, wanted), session.evaluate().loss
                cost = -math.log(rate / self._baseline[0]) + (loss - self._baseline[1]) / self._nats_per_log_token
                trial.report(cost, step=rung)
                if rung < 9 and trial.should_prune():
                    return optuna.TrialPruned()
        except SessionEnded:
            return None
        return cost

    def loss_in_equal_time(self, config: Configuration) -> float | None:
        """Minus the loss after as many seconds as the baseline's short run took; None if the run ended early."""
        if self._baseline is None:
            return None
        seconds = self.space.workload.horizon_tokens / self._baseline[0]
        probe = self._rate_and_loss(config, steps=3)
        if probe is None:
            return None
        tokens = int(probe[0] * seconds)
        if tokens < self.space.workload.cost(config).tokens:
            return None
        found = self._rate_and_loss(config, horizon_tokens=tokens)
        return None if found is None else -found[1]

    def consider(self, config: Configuration, score: float | None) -> None:
        """Keep the best so far, as `best_trial` does."""
        if score is not None and score > self.best_score:
            self.best, self.best_score = config, score

    def _rate_and_loss(
        self, config: Configuration, *, horizon_tokens: int = 0, steps: int = 0
    ) -> tuple[float, float] | None:
        """Tokens/s and held-out loss of one whole schedule (or of a few `steps`) in one session."""
        session = self._opened(config, horizon_tokens or self.space.workload.horizon_tokens)
        if session is None:
            return None
        try:
            left = steps or session.ready.horizon_steps
            chunk = math.ceil(session.ready.horizon_steps / _CHUNKS)
            tokens, seconds = 0, 0.0
            while left:
                if not self.has_time:
                    return None
                taken = session.advance(min(left, chunk))
                left -= len(taken.step_seconds)
                tokens, seconds = tokens + taken.tokens, seconds + taken.seconds
            return tokens / seconds, math.nan if steps else session.evaluate().loss
        except SessionEnded:
            return None

    def _opened(self, config: Configuration, horizon: int) -> Session | None:
        """A session with a schedule of `horizon` tokens; None if it ends before it is ready."""
        workload = self.space.workload
        request = SessionRequest(
            configuration=config,
            seed=self.seed,
            horizon_tokens=horizon,
            evaluation_tokens=workload.evaluation_tokens,
            tokens_per_step=workload.cost(config).tokens,
            order=workload.order(config, seed=self.seed, horizon_tokens=horizon),
            log_path=Path("log.txt"),
            patience=_PATIENCE,
        )
        try:
            return self._executor.open(request)
        except SessionEnded:
            return None


def random_search(rival: Rival) -> Configuration:
    """Random configurations, one short schedule each; the cheapest to the same loss wins."""
    for config in _drawn(rival):
        rival.consider(config, rival.cost_to_equal_quality(config))
    return rival.best


def short_runs(rival: Rival) -> Configuration:
    """Random configurations for equal short times; the lowest loss wins."""
    rival.best_score = rival.loss_in_equal_time(rival.space.baseline) or -math.inf
    for config in _drawn(rival):
        rival.consider(config, rival.loss_in_equal_time(config))
    return rival.best


def plain_tpe(rival: Rival) -> Configuration:
    """Optuna's TPE over the joint space, baseline first, `best_trial` last; failures are told as FAIL, as usual."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=rival.seed))
    study.enqueue_trial({d.knob.name: rival.space.baseline[d.knob.name] for d in rival.space.dimensions})
    while rival.has_time:
        trial = study.ask()
        config = _configured(rival.space, lambda name, domain, t=trial: _suggested(t, name, domain))  # type: ignore[misc]
        score = None if config is None else rival.cost_to_equal_quality(config)
        if config is None or score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            rival.clock.advance(0.1)  # asking takes time too
            continue
        study.tell(trial, score)
        rival.consider(config, score)
    return rival.best


def successive_halving(rival: Rival) -> Configuration:
    """Optuna's TPE with its successive-halving pruner: a schedule is stopped if it lags at a third of it."""
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=rival.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    study.enqueue_trial({d.knob.name: rival.space.baseline[d.knob.name] for d in rival.space.dimensions})
    while rival.has_time:
        trial = study.ask()
        config = _configured(rival.space, lambda name, domain, t=trial: _suggested(t, name, domain))  # type: ignore[misc]
        cost = None if config is None else rival.cost_by_rungs(config, trial)
        if config is None or cost is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            rival.clock.advance(0.1)  # asking takes time too
            continue
        if isinstance(cost, optuna.TrialPruned):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        study.tell(trial, cost)
        rival.consider(config, -cost)
    return rival.best


def _drawn(rival: Rival) -> Iterator[Configuration]:
    rng = random.Random(f"rival {rival.seed}")

    def draw(_: str, domain: Choice | IntRange | FloatRange) -> KnobValue:
        match domain:
            case Choice(values=values):
                return rng.choice(values)
            case IntRange(low=low, high=high):
                return rng.randint(low, high)
            case FloatRange(low=flow, high=fhigh, log=log):
                return math.exp(rng.uniform(math.log(flow), math.log(fhigh))) if log else rng.uniform(flow, fhigh)

    while rival.has_time:
        config = _configured(rival.space, draw)
        if config is not None:
            yield config


def _configured(space: SearchSpace, suggest: Suggest) -> Configuration | None:
    try:
        return space.turned(space.baseline, {d.knob.name: suggest(d.knob.name, d.domain) for d in space.dimensions})
    except InvalidConfiguration:
        return None


def _suggested(trial: optuna.Trial, name: str, domain: Choice | IntRange | FloatRange) -> KnobValue:
    match domain:
        case Choice(values=values):
            return values[values.index(trial.suggest_categorical(name, values))]
        case IntRange(low=low, high=high, log=log):
            return trial.suggest_int(name, low, high, log=log)
        case FloatRange(low=flow, high=fhigh, log=log):
            return trial.suggest_float(name, flow, fhigh, log=log)
