"""What else one could do with the same budget: the rivals that `truth.py` holds the search against.

All of them measure on the same noisy machine, one session at a time and without a partner, as one does
by hand. They are given what they would not have, the true slope of the loss curve, to turn a loss into
tokens. What they lack is pairing, confirmation, and doubt about what short trials show.
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
_CHUNKS = 10  # of a schedule, between looks at the clock

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
        reducible = world.cooled_loss(space.baseline, horizon) - world.irreducible
        self._nats_per_log_token = world.exponent * reducible
        self._baseline: tuple[float, float] | None = None
        while self._baseline is None and self.has_time:  # a burst may end a run
            self._baseline = self._rate_and_loss(space.baseline)

    @property
    def has_time(self) -> bool:
        return self.clock() < self.budget_seconds

    def cost_to_equal_quality(self, config: Configuration) -> float | None:
        """ln S over the baseline as one short run each shows it; None where the run ended early."""
        found, baseline = self._rate_and_loss(config), self._baseline
        if found is None or baseline is None:
            return None
        return math.log(found[0] / baseline[0]) - (found[1] - baseline[1]) / self._nats_per_log_token

    def loss_in_equal_time(self, config: Configuration) -> float | None:
        """Minus the loss after as many seconds as the baseline's short run took; None where the run ended early."""
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
        """Keep the best seen, as `best_trial` does."""
        if score is not None and score > self.best_score:
            self.best, self.best_score = config, score

    def _rate_and_loss(
        self, config: Configuration, *, horizon_tokens: int = 0, steps: int = 0
    ) -> tuple[float, float] | None:
        """Tokens/s and held-out loss of one whole schedule (or of a few `steps`) in one session."""
        workload = self.space.workload
        horizon = horizon_tokens or workload.horizon_tokens
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
            session: Session = self._executor.open(request)
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
    """Optuna's TPE over the joint space, baseline first, `best_trial` last; what breaks is told as FAIL, as usual."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=rival.seed))
    study.enqueue_trial({d.knob.name: rival.space.baseline[d.knob.name] for d in rival.space.dimensions})
    while rival.has_time:
        trial = study.ask()
        config = _configured(rival.space, lambda name, domain, t=trial: _suggested(t, name, domain))  # type: ignore[misc]
        score = None if config is None else rival.cost_to_equal_quality(config)
        if config is None or score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            rival.clock.advance(0.1)  # asking takes time, too
            continue
        study.tell(trial, score)
        rival.consider(config, score)
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
