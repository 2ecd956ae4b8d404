"""What exploration saw of one knob by itself: a trial beside the trial that differs in nothing else. Pure.

Exploratory by construction: one process and one seed each, and the best of several values is shown, which
flatters it. It fills the table of techniques; nothing is recommended on its account.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune_model.config import TrainingConfig
from autotune_model.knobs import KnobValue

from autotune.analysis.efficiency import log_efficiency
from autotune.analysis.evidence import BASELINE, LEVEL, Calibration, Effect, against_reference, evaluation_at
from autotune.analysis.rates import KnownSpread, interval_over_restarts
from autotune.quantity import Interval, Unknown
from autotune.space.moves import turned_back
from autotune.trial.types import Completed, Pruned, Stage, TrialRecord

_EXPLORING = (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploredEffect:
    """What a knob's value in `config` does to speed and token efficiency against the baseline's, in log units.

    `along` is that value and those of knobs that had to be turned with it.
    """

    config: TrainingConfig
    along: Mapping[str, KnobValue]
    speed: Interval | Unknown
    quality: Interval | Unknown
    total: float


def explored_effect(
    records: Sequence[TrialRecord], calibration: Calibration, baseline: TrainingConfig, name: str
) -> ExploredEffect | None:
    """The effect of the knob's best other value; None where no trial of it has a twin with the baseline's value."""
    seen = [_between(ours, theirs, calibration) for ours, theirs in _twins(records, calibration, baseline, name)]
    return max(seen, key=lambda effect: effect.total, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    config: TrainingConfig
    effect: Effect | None  # against the baseline; None is the baseline itself


def _twins(
    records: Sequence[TrialRecord], calibration: Calibration, baseline: TrainingConfig, name: str
) -> list[tuple[_Seen, _Seen]]:
    """Explored configurations with another value of the knob, each with what was seen of it without."""
    pairs = []
    for stage in _EXPLORING:
        seen = _effects(records, calibration, stage)
        for config, effect in seen.items():
            if getattr(config, name) == getattr(baseline, name):
                continue
            for twin in turned_back(config, name, baseline):
                if twin == baseline or twin in seen:
                    theirs = None if twin == baseline else seen[twin]
                    pairs.append((_Seen(config=config, effect=effect), _Seen(config=twin, effect=theirs)))
    return pairs


def _effects(records: Sequence[TrialRecord], calibration: Calibration, stage: Stage) -> Mapping[TrainingConfig, Effect]:
    found = {}
    for record in records:
        if record.spec.stage is stage and isinstance(record.outcome, Completed | Pruned):
            spec = record.spec
            partner = evaluation_at(records, label=BASELINE, seed=spec.seed, horizon_tokens=spec.horizon_tokens)
            effect = against_reference(record, calibration, partner)
            if not isinstance(effect, Unknown):
                found[spec.config] = effect
    return found


def _between(ours: _Seen, theirs: _Seen, calibration: Calibration) -> ExploredEffect:
    assert ours.effect  # noqa: S101 - the baseline has no other value than its own
    rounds = min(e.rounds for e in (ours.effect, theirs.effect) if e)
    speed = ours.effect.speed - (theirs.effect.speed if theirs.effect else 0.0)
    efficiency = _difference(ours.effect, theirs.effect)
    quality = (
        efficiency
        if isinstance(efficiency, Unknown)
        else interval_over_restarts([efficiency], LEVEL, _seed_spread(calibration))
    )
    return ExploredEffect(
        config=ours.config,
        along=ours.config.difference(theirs.config),
        speed=interval_over_restarts([speed], LEVEL, calibration.spread(rounds)),
        quality=quality,
        total=speed + (0.0 if isinstance(efficiency, Unknown) else efficiency),
    )


def _difference(ours: Effect, theirs: Effect | None) -> float | Unknown:
    if isinstance(ours.efficiency, Unknown):
        return ours.efficiency
    if theirs is None:
        return ours.efficiency.value
    if isinstance(theirs.efficiency, Unknown):
        return theirs.efficiency
    return ours.efficiency.value - theirs.efficiency.value


def _seed_spread(calibration: Calibration) -> KnownSpread | None:
    """How far apart two seeds of the baseline are in tokens: more than two configurations on one seed."""
    if isinstance(calibration.curve, Unknown):
        return None
    losses: dict[int, list[float]] = {}
    for tokens, loss in calibration.points:
        losses.setdefault(tokens, []).append(loss)
    squares = []
    for tokens, (first, *others) in losses.items():
        for other in others:
            apart = log_efficiency(calibration.curve, tokens, other - first)
            if not isinstance(apart, Unknown):
                squares.append(apart.value**2)
    return KnownSpread(variance=statistics.fmean(squares), degrees_of_freedom=len(squares)) if squares else None
