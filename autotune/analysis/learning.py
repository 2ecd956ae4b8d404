"""From the records of the ladder to what they say about learning: losses as token efficiency, gated by length. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autotune.analysis.efficiency import interpolated_log_efficiency
from autotune.analysis.evidence import known_speed
from autotune.analysis.informative import Starvation, step_starvation
from autotune.analysis.linear import Belief
from autotune.analysis.rates import PairedSpeed
from autotune.analysis.surface import Feature, Seen, Surface
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobClass, Law
from autotune.trial.types import Failed, Infeasible, Stage, TrialRecord, TrialSpec
from autotune.workload.space import SearchSpace

LADDER_STAGES = (Stage.EXPLORE_LEARNING, Stage.CONFIRM)
_SPEED_SD, _SPEED_NOISE_SD = 0.1, 0.03  # of ln throughput: a learning knob's effect, one pair of processes
_SEED = 0  # of calibration and exploration
_SLOPE_ERROR = 0.1  # relative error of ln e: the loss is not linear in ln of tokens between two token budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What trials of complete schedules showed.

    `measured` is every trial's ln e; `informed` those that inform about learning; `starvation` the gate's regression by
    token budget.
    """

    measured: tuple[Seen, ...]
    informed: tuple[Seen, ...]
    starvation: Mapping[int, Starvation]

    @property
    def starved(self) -> tuple[int, ...]:
        """The token budgets at which trials measure the area under the schedule and nothing else."""
        return tuple(tokens for tokens, found in sorted(self.starvation.items()) if found.is_starved)

    @property
    def is_informative(self) -> bool:
        """Whether some trial informs about learning."""
        return bool(self.informed)


def learnt_from(records: Sequence[TrialRecord], space: SearchSpace) -> Learnt:
    """What the trials with other learning knobs showed, each against its partner with the baseline's."""
    points = _points(records, space)
    lengths = {r.spec.horizon_tokens for r in records if r.spec.stage is Stage.EXPLORE_LEARNING}
    measured = []
    for record in records:
        is_trial = record.spec.stage in LADDER_STAGES and record.spec.horizon_tokens in lengths
        if is_trial and space.changed(record.spec.config, KnobClass.LEARNING):
            seen = _seen(record, partner_of(record.spec, records, space), points)
            if not isinstance(seen, Unknown):
                measured.append(seen)
    areas = {seen: _log_area(space, seen) for seen in measured}
    starvation = {}
    for tokens in {seen.tokens for seen in measured}:
        found = step_starvation([(g, s.log_efficiency) for s, g in areas.items() if s.tokens == tokens])
        if isinstance(found, Starvation):
            starvation[tokens] = found
    starved = {tokens for tokens, found in starvation.items() if found.is_starved}
    informed = tuple(seen for seen in measured if seen.tokens not in starved)
    return Learnt(measured=tuple(measured), informed=informed, starvation=starvation)


def partner_of(spec: TrialSpec, records: Sequence[TrialRecord], space: SearchSpace) -> TrialRecord | Unknown:
    """The run that a trial's loss is compared with: same seed, length and precision, the baseline's learning knobs."""
    for other in records:
        theirs = other.spec
        if theirs.seed != spec.seed or theirs.horizon_tokens != spec.horizon_tokens or not other.evaluations:
            continue
        learns = space.changed(theirs.config, KnobClass.LEARNING)
        if not learns and not space.changed(theirs.config, KnobClass.NUMERICS, base=spec.config):
            return other
    return Unknown(reason=f"the baseline was not trained on seed {spec.seed} for {spec.horizon_tokens} tokens")


def tried_on_ladder(records: Sequence[TrialRecord], space: SearchSpace) -> tuple[tuple[Configuration, int], ...]:
    """Every configuration and length of the ladder's trials, however they ended: none is run twice."""
    return tuple(
        (r.spec.config, r.spec.horizon_tokens)
        for r in records
        if r.spec.stage is Stage.EXPLORE_LEARNING and space.changed(r.spec.config, KnobClass.LEARNING)
    )


def failed_on_ladder(records: Sequence[TrialRecord]) -> tuple[Configuration, ...]:
    """The configurations that diverged or could not run."""
    return tuple(
        r.spec.config for r in records if r.spec.stage in LADDER_STAGES and isinstance(r.outcome, Infeasible | Failed)
    )


def learning_speed(records: Sequence[TrialRecord], surface: Surface) -> Mapping[Feature, float]:
    """ln of throughput per unit of each feature of `surface`, from the trials of the ladder; rates have no effect."""
    features = [f for f in surface.features if surface.space.workload.knobs[f[0]].law is not Law.RATE]
    rows, values = [], []
    for record in records:
        if record.spec.stage is Stage.EXPLORE_LEARNING:
            speed = known_speed(record.slices, record.reference_slices)
            if isinstance(speed, PairedSpeed):
                turned = surface.turned(record.spec.config)
                rows.append([*(turned.get(feature, 0.0) for feature in features), 1.0])
                values.append(speed.centre)
    sds = [*[_SPEED_SD] * len(features), 1.0]
    belief = Belief(np.zeros(len(sds)), np.diag(np.square(sds)))
    if rows:
        belief = belief.given(np.array(rows), np.array(values), np.full(len(rows), _SPEED_NOISE_SD**2))
    return dict(zip(features, belief.mean.tolist(), strict=False))


def _seen(record: TrialRecord, partner: TrialRecord | Unknown, points: Sequence[tuple[int, float]]) -> Seen | Unknown:
    if not record.evaluations or not record.is_complete:
        return Unknown(reason="it was not evaluated at the end of its schedule")
    if isinstance(partner, Unknown):
        return partner
    own, theirs = record.evaluations[-1], partner.evaluations[-1]
    difference = own.loss - theirs.loss
    efficiency = interpolated_log_efficiency(points, theirs.tokens_seen, difference)
    if isinstance(efficiency, Unknown):
        return efficiency
    return Seen(
        config=record.spec.config,
        tokens=record.spec.horizon_tokens,
        log_efficiency=efficiency.value + math.log(theirs.tokens_seen / own.tokens_seen),
        variance=(_SLOPE_ERROR * efficiency.value) ** 2,
        seed=record.spec.seed,
    )


def _points(records: Sequence[TrialRecord], space: SearchSpace) -> list[tuple[int, float]]:
    """The losses of the baseline's learning knobs by length: of one seed, whose luck then cancels in their slope."""
    return [
        (record.evaluations[-1].tokens_seen, record.evaluations[-1].loss)
        for record in records
        if record.spec.seed == _SEED and record.is_complete and record.evaluations
        if record.spec.stage in (Stage.CALIBRATE, Stage.EXPLORE_LEARNING)
        if not space.changed(record.spec.config, KnobClass.LEARNING)
    ]


def _log_area(space: SearchSpace, seen: Seen) -> float:
    """ln of the area under its schedule over that of the baseline's; NaN if not known."""
    ours, theirs = (space.workload.schedule_area(c, seen.tokens) for c in (seen.config, space.baseline))
    if isinstance(ours, Unknown) or isinstance(theirs, Unknown):
        return math.nan
    return math.log(ours / theirs)
