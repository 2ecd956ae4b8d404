"""Proposes what to try next: Optuna's ask and tell over one stage's dimensions, and the initial designs.

Optuna's storage lives in memory and is made anew in each sitting, from what the study has ordered and acknowledged.
Infeasible trials are reported as a violated constraint with a poor value, never as FAIL: samplers ignore a
FAIL and propose the same region again (docs/method.md, 5).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import optuna
from optuna.trial import TrialState

from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import Choice, Dimension, Domain, FloatRange, IntRange, KnobValue, contains, members, tidy
from autotune.trial.types import Stage, StageEnd, TrialSpec
from autotune.workload.space import SearchSpace

T = TypeVar("T")

optuna.logging.set_verbosity(optuna.logging.WARNING)

_POOR_SCORE = -5.0  # log-ratio far below any usable configuration: 150 times slower than the baseline
_STARTUP_TRIALS = 6  # small budgets cannot afford the sampler's usual ten random trials; the design replaces them
_REPEATS_BEFORE_LOOKING = 3  # after this many invalid or known proposals in a row, look for an untried combination
_MOST_ASKS = 40  # in a row that are invalid or known
_DRAWS = 2_000  # of a space too large to list, to find a combination that is possible and new
_LARGEST_LISTING = 5_000
_LARGEST_GRID = 100_000
_DESIGN_QUEUED = "design_queued"
_PASSED_OVER = "passed_over"  # user attribute: not tried, only for lack of time
_TRIAL = "trial"  # user attribute: the number of our trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A configuration to try; `number` is Optuna's trial number within the stage."""

    number: int
    config: Configuration


class Proposer:
    """Proposes configurations of `space` for one stage: `base` with other values along `dimensions`.

    `design` is tried first, in order. Everything asked and told is stored at once, so a new proposer
    on the same storage continues where an old one stopped; see `restore` for a new storage.
    """

    def __init__(
        self,
        *,
        storage: optuna.storages.BaseStorage,
        space: SearchSpace,
        stage: Stage,
        dimensions: Sequence[Dimension],
        base: Configuration,
        design: Iterable[Configuration],
        seed: int,
    ) -> None:
        """Open or create the stage's Optuna study in `storage`."""
        self._space = space
        self._dimensions = tuple(dimensions)
        self._base = base
        self._study = _stage_study(storage, stage, seed)
        known = self._study.get_trials(deepcopy=False)
        self._scores = {
            self._key(t.params): t.values[0]
            for t in known
            if t.state is TrialState.COMPLETE and t.values and self._is_whole(t.params)
            if _PASSED_OVER not in t.user_attrs  # there may be time for it now
        }
        self._passed_over: set[tuple[object, ...]] = set()
        self._suggested: set[tuple[object, ...]] = set()
        if not self._study.user_attrs.get(_DESIGN_QUEUED):
            there = {self._key(t.params) for t in known if self._is_whole(t.params)}
            for config in design:  # after a crash in this loop, from the start: known results are not run again
                knobs = {d.knob.name: config[d.knob.name] for d in self._dimensions}
                if self._key(knobs) not in there:
                    self._study.enqueue_trial(knobs)
            self._study.set_user_attr(_DESIGN_QUEUED, True)

    def knows(self, config: Configuration) -> bool:
        """Whether its result is known, or it was passed over for now."""
        key = self._key({d.knob.name: config[d.knob.name] for d in self._dimensions})
        return key in self._scores or key in self._passed_over

    def suggest(self, config: Configuration) -> None:
        """Propose `config` next, unless its result is known or it is proposed already."""
        knobs = {d.knob.name: config[d.knob.name] for d in self._dimensions}
        key = self._key(knobs)
        if not self.knows(config) and key not in self._suggested:
            self._suggested.add(key)
            self._study.enqueue_trial(knobs)

    def pending(self) -> list[Proposal]:
        """Proposals asked before a crash and never told. Those that are invalid or known by now are told here."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        asked = [self._configure(optuna.trial.Trial(self._study, frozen._trial_id)) for frozen in running]
        return [proposal for proposal in asked if proposal]

    def abandon(self) -> None:
        """Give up pending proposals: the sampler avoids the neighbourhood of a trial that stays running."""
        for proposal in self.pending():
            self._study.tell(proposal.number, state=TrialState.FAIL)

    def ask(self) -> Proposal | StageEnd:
        """The next valid and new configuration. A pending one comes first, under its old number.

        Otherwise why there is none: all are known (`EXHAUSTED`), or the space is too large to list and none was found
        (`NOTHING_FOUND`).
        """
        if pending := self.pending():
            return pending[0]
        for unproductive in range(_MOST_ASKS):
            if unproductive == _REPEATS_BEFORE_LOOKING:
                untried = self._untried()
                if isinstance(untried, StageEnd):
                    return untried
                self._study.enqueue_trial(untried)
            proposal = self._configure(self._study.ask())
            if proposal:
                return proposal
        return StageEnd.NOTHING_FOUND

    def _untried(self) -> dict[str, KnobValue] | StageEnd:
        """A random valid and new combination. A space that can be listed is so searched completely."""
        names, dice = [d.knob.name for d in self._dimensions], random.Random(len(self._scores))
        is_listed = grid_size(self._dimensions) <= _LARGEST_LISTING
        combinations: Iterable[tuple[KnobValue, ...]]
        if is_listed:
            combinations = list(itertools.product(*(members(d.domain) for d in self._dimensions)))
            dice.shuffle(combinations)
        else:
            combinations = (tuple(_drawn(d, dice) for d in self._dimensions) for _ in range(_DRAWS))
        for values in combinations:
            knobs = dict(zip(names, values, strict=True))
            if self._key(knobs) not in self._scores:
                with contextlib.suppress(InvalidConfiguration):
                    self._space.turned(self._base, knobs)
                    return knobs
        return StageEnd.EXHAUSTED if is_listed else StageEnd.NOTHING_FOUND

    def tell(
        self, proposal: Proposal, *, score: float | None, infeasible: str = "", trial_number: int | None = None
    ) -> None:
        """Report the result of `proposal`: its log-ratio `score` over the baseline, or None and why it is infeasible.

        `trial_number` is the study's trial that measured it, if one was run.
        """
        frozen = self._study.get_trials(deepcopy=False)[proposal.number]
        trial = optuna.trial.Trial(self._study, frozen._trial_id)
        if trial_number is not None:
            trial.set_user_attr(_TRIAL, trial_number)
        self._conclude(trial, score, infeasible)

    def pass_over(self, proposal: Proposal, why: str) -> None:
        """Report that there is no time to try `proposal`. A study that is given more time may propose it again."""
        trial = optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[proposal.number]._trial_id)
        trial.set_user_attr(_PASSED_OVER, True)
        self._passed_over.add(self._key(trial.params))
        self._conclude(trial, None, why)

    def _configure(self, trial: optuna.trial.Trial) -> Proposal | None:
        """The proposal of an asked trial. None if it is invalid or known; it is then told immediately."""
        values = {d.knob.name: self._typed(d, _suggest(trial, d)) for d in self._dimensions}
        known = self._scores.get(self._key(values))
        if known is not None:
            trial.set_user_attr("repeats", True)
            if self._key(values) in self._passed_over:
                trial.set_user_attr(_PASSED_OVER, True)
            self._conclude(trial, known, "" if known > _POOR_SCORE else "known to be infeasible")
            return None
        try:
            return Proposal(number=trial.number, config=self._space.turned(self._base, values))
        except InvalidConfiguration as error:
            self._conclude(trial, None, str(error))
            return None

    def _conclude(self, trial: optuna.trial.Trial, score: float | None, infeasible: str) -> None:
        value = _POOR_SCORE if score is None else max(score, _POOR_SCORE)
        if infeasible:
            trial.set_user_attr("infeasible", infeasible[:200])
        trial.set_constraint("feasible", 1.0 if infeasible else 0.0)
        self._study.tell(trial, value)
        self._scores[self._key(trial.params)] = value

    def _key(self, params: Mapping[str, object]) -> tuple[object, ...]:
        return tuple(self._typed(d, params[d.knob.name]) for d in self._dimensions)

    def _typed(self, dimension: Dimension, value: T) -> T:
        """`value` as a user would type it; the base's own value stays as it is."""
        return value if value == self._base[dimension.knob.name] else tidy(dimension.domain, value)

    def _is_whole(self, params: Mapping[str, object]) -> bool:
        return all(d.knob.name in params for d in self._dimensions)


def _suggest(trial: optuna.trial.Trial, dimension: Dimension) -> KnobValue:
    name = dimension.knob.name
    match dimension.domain:
        case Choice(values=values):
            return values[values.index(trial.suggest_categorical(name, values))]
        case IntRange(listed=listed) if listed:
            return listed[listed.index(trial.suggest_categorical(name, listed))]
        case IntRange(low=low, high=high, log=log):
            return trial.suggest_int(name, low, high, log=log)
        case FloatRange(low=flow, high=fhigh, log=log):
            return trial.suggest_float(name, flow, fhigh, log=log)


def _drawn(dimension: Dimension, dice: random.Random) -> KnobValue:
    """A random value of a domain, as a user would type it."""
    match dimension.domain:
        case FloatRange(low=low, high=high, log=log):
            drawn = low * (high / low) ** dice.random() if log else dice.uniform(low, high)
            return tidy(dimension.domain, drawn)
        case domain:
            return dice.choice(members(domain))


def grid_size(dimensions: Sequence[Dimension]) -> float:
    """The number of combinations of the dimensions; infinite if one is a continuous range."""
    size = 1.0
    for dimension in dimensions:
        match dimension.domain:
            case Choice(values=values):
                size *= len(values)
            case IntRange():
                size *= len(members(dimension.domain))
            case FloatRange():
                return math.inf
    return size


def impossible_combinations(space: SearchSpace) -> Mapping[str, int] | None:
    """The number of invalid combinations of the listed values, by the rule that they break.

    Continuous ranges are represented by their ends. None if there are too many combinations to check.
    """
    listed = [(d.knob.name, _listed(d)) for d in space.dimensions]
    if math.prod(len(values) for _, values in listed) > _LARGEST_GRID:
        return None
    counts: dict[str, int] = {}
    for values in itertools.product(*(values for _, values in listed)):
        try:
            space.turned(space.baseline, dict(zip((name for name, _ in listed), values, strict=True)))
        except InvalidConfiguration as error:
            rule = str(error).split(";", 1)[0]
            counts[rule] = counts.get(rule, 0) + 1
    return counts


def _listed(dimension: Dimension) -> Sequence[KnobValue]:
    match dimension.domain:
        case Choice(values=values):
            return values
        case IntRange():
            return members(dimension.domain)
        case FloatRange(low=flow, high=fhigh):
            return (flow, fhigh)


def _stage_study(storage: optuna.storages.BaseStorage, stage: Stage, seed: int) -> optuna.Study:
    study = optuna.create_study(study_name=stage.value, storage=storage, direction="maximize", load_if_exists=True)
    # Seeded by the number of known trials, so that a resumed study does not repeat its first random draws.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.get_trials(deepcopy=False)), n_startup_trials=_STARTUP_TRIALS
    )
    return study


def restore(
    storage: optuna.storages.BaseStorage,
    stage: Stage,
    dimensions: Sequence[Dimension],
    ordered: Sequence[TrialSpec],
) -> None:
    """Give a new storage the stage's trials that were ordered in earlier sittings, as asked and not yet told.

    Each has its old number, which is its block. A number that is none of theirs was never measured.
    """
    study = _stage_study(storage, stage, seed=0)
    specs = {spec.block: spec for spec in ordered}
    for number in range(max(specs, default=-1) + 1):
        config = specs[number].config if number in specs else None
        if config is None or not all(contains(d.domain, config[d.knob.name]) for d in dimensions):
            study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
            continue
        params = {d.knob.name: config[d.knob.name] for d in dimensions}
        distributions = {d.knob.name: _distribution(d.domain) for d in dimensions}
        study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))


def _distribution(domain: Domain) -> optuna.distributions.BaseDistribution:
    """The distribution that `_suggest` draws from."""
    match domain:
        case Choice(values=values):
            return optuna.distributions.CategoricalDistribution(values)
        case IntRange(low=low, high=high, log=log):
            return optuna.distributions.IntDistribution(low, high, log=log)
        case FloatRange(low=flow, high=fhigh, log=log):
            return optuna.distributions.FloatDistribution(flow, fhigh, log=log)
