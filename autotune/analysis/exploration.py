"""The exploratory effect of a single knob: a trial compared with one that differs in nothing else. Pure.

Exploratory by construction: one process and one seed each, and showing the best of several values biases it
upwards. It fills the table of techniques; recommendations never use it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from autotune.analysis.case import Case
from autotune.analysis.efficiency import log_efficiency
from autotune.analysis.evidence import LEVEL, Calibration, Effect
from autotune.analysis.rates import KnownSpread, interval_over_restarts
from autotune.quantity import Interval, Unknown, combine, only_known, or_else
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploredEffect:
    """The effect of a knob's value in `config` on speed and token efficiency, over the baseline's value, in log units.

    `along` has that value and those of knobs that had to change with it.
    """

    config: Configuration
    along: Mapping[str, KnobValue]
    speed: Interval | Unknown
    quality: Interval | Unknown
    total: float


def explored_effect(case: Case, name: str) -> ExploredEffect | None:
    """The effect of the knob's best other value; None if no trial of it has a twin with the baseline's value."""
    return max(
        (_between(case, ours, theirs) for ours, theirs in _twins(case, name)),
        key=lambda effect: effect.total,
        default=None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    config: Configuration
    effect: Effect | None  # against the baseline; None for the baseline itself


def _twins(case: Case, name: str) -> list[tuple[_Seen, _Seen]]:
    """Explored configurations with another value of the knob, each with its twin that has the baseline's value."""
    pairs = []
    for seen in case.explored.values():
        for config, effect in seen.items():
            if config[name] == case.baseline[name]:
                continue
            for twin in case.space.turned_back(config, name):
                if twin == case.baseline or twin in seen:
                    theirs = None if twin == case.baseline else seen[twin]
                    pairs.append((_Seen(config=config, effect=effect), _Seen(config=twin, effect=theirs)))
    return pairs


def _between(case: Case, ours: _Seen, theirs: _Seen) -> ExploredEffect:
    assert ours.effect  # noqa: S101 - the baseline has no other value than its own
    rounds = min(e.rounds for e in (ours.effect, theirs.effect) if e)
    speed = ours.effect.speed - (theirs.effect.speed if theirs.effect else 0.0)
    efficiency = _difference(ours.effect, theirs.effect)
    seeds = _seed_spread(case.calibration)
    return ExploredEffect(
        config=ours.config,
        along=case.space.changed(ours.config, base=theirs.config),
        speed=interval_over_restarts([speed], LEVEL, case.calibration.spread(rounds)),
        quality=combine(lambda known: interval_over_restarts([known], LEVEL, seeds), efficiency),
        total=speed + or_else(efficiency, 0.0),
    )


def _difference(ours: Effect, theirs: Effect | None) -> float | Unknown:
    if theirs is None:
        return combine(lambda efficiency: efficiency.value, ours.efficiency)
    return combine(lambda mine, its: mine.value - its.value, ours.efficiency, theirs.efficiency)


def _seed_spread(calibration: Calibration) -> KnownSpread | None:
    """The spread between seeds of the baseline, in tokens; larger than between two configurations on one seed."""
    curve = calibration.curve
    if isinstance(curve, Unknown):
        return None
    losses: dict[int, list[float]] = {}
    for tokens, loss in calibration.points:
        losses.setdefault(tokens, []).append(loss)
    apart = only_known(
        log_efficiency(curve, tokens, other - first) for tokens, (first, *others) in losses.items() for other in others
    )
    squares = [efficiency.value**2 for efficiency in apart]
    return KnownSpread(variance=statistics.fmean(squares), degrees_of_freedom=len(squares)) if squares else None
