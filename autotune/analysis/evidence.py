"""What the records of a study say, before anything is concluded from them. Pure.

Everything here is in log units relative to the baseline: 0 is "as good", 0.05 about 5 % better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from autotune.analysis.efficiency import LogEfficiency, bootstrap_curves, fit_curve, log_efficiency
from autotune.analysis.gates import noise_scale
from autotune.analysis.power import Power, measured_power
from autotune.analysis.rates import (
    KnownSpread,
    PairedSpeed,
    VarianceComponents,
    long_run_rate,
    noise_floor,
    pair_variance,
    paired_speed,
    variance_components,
)
from autotune.analysis.recommendation import Curve, NoiseScale
from autotune.quantity import Interval, Unknown, combine, only_known, or_else
from autotune.trial.types import Completed, Evaluation, Pruned, Slice, Stage, TrialRecord

BASELINE = "baseline"
EXPERT = "expert default"
WINNER = "winner"
SYSTEM_PART = "winner's system part"
REDUCED = "reduced"
CLAIM = "claim"

LEVEL = 0.9
"""Of every interval that is reported."""

NORMAL_QUANTILE = statistics.NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""Standard deviations to either side of a normal's mean that make an interval at `LEVEL`."""

NOISE_BATCHES = 8
"""Optimizer steps whose gradients show the noise scale at the end of a schedule."""

_BOOTSTRAP_DRAWS = 40
_REMEMBERED_PAIRS = 512  # more than a study has
known_speed = lru_cache(maxsize=_REMEMBERED_PAIRS)(paired_speed)
"""`paired_speed`, worked out once for each pair of trials: the stages of a search ask again and again."""

_WITH_REFERENCE = (Stage.CALIBRATE, Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING)  # elsewhere blocks pair members


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the calibration found out about this machine and the baseline.

    `rate` is the baseline's tokens/s over the whole study, stalls and bursts included; `copies` are copies
    of the baseline against the warm reference (A/A) and `noise` what they show; `points` are the baseline's
    cooled losses (horizon tokens, nats per token), `curve` their fit and `curves` its bootstrap;
    `noise_scales` are those of the baseline's gradient at the ends of its schedules; `power` is what the
    copies drew beside the reference.
    """

    rate: Interval
    power: Power | Unknown
    noise_scales: tuple[NoiseScale, ...]
    copies: tuple[PairedSpeed, ...]
    noise: VarianceComponents | Unknown
    points: tuple[tuple[int, float], ...]
    curve: Curve | Unknown
    curves: tuple[Curve, ...]

    def spread(self, rounds: int) -> KnownSpread | None:
        """How much the centres of pairs of fresh processes vary here, as copies of the baseline showed.

        Put together from a difference of two variances, it is worth half of its degrees of freedom.
        """
        if isinstance(self.noise, Unknown):
            return None
        return KnownSpread(
            variance=pair_variance(self.noise, rounds), degrees_of_freedom=max(1, (self.noise.copies - 1) // 2)
        )

    def floor(self, restarts: int, rounds: int) -> float | Unknown:
        """The smallest log-ratio that `restarts` pairs of fresh processes can resolve here in `rounds` rounds each."""
        return combine(lambda noise: noise_floor(noise, restarts=restarts, rounds=rounds, level=LEVEL), self.noise)

    @property
    def process_variance(self) -> float:
        """Of one process's luck, in squared log units; 0 where too few copies of the baseline ran to tell."""
        return or_else(combine(lambda noise: noise.between, self.noise), 0.0)

    def rate_log_sd(self, runs: int) -> float:
        """Standard deviation of ln of what `runs` runs of the baseline cost.

        That of the measured rate, the luck of the process it was measured in, and that of the runs' own processes.
        """
        measured = math.log(self.rate.high / self.rate.low) / (2.0 * NORMAL_QUANTILE)
        return math.sqrt(measured**2 + self.process_variance * (1.0 + 1.0 / runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One configuration against another on one seed in one pair of processes over `rounds` rounds, in log units.

    `loss_difference` is in nats per token (NaN where there is none), `efficiency` what it is worth in tokens.
    """

    block: int
    horizon_tokens: int
    speed: float
    rounds: int
    loss_difference: float
    efficiency: LogEfficiency | Unknown

    @property
    def total(self) -> float:
        """ln S: speed plus efficiency, where the latter is known."""
        return self.speed + or_else(combine(lambda efficiency: efficiency.value, self.efficiency), 0.0)


def calibration_of(records: Sequence[TrialRecord]) -> Calibration | Unknown:
    """What the calibrating stage found out, its rate from all `records`; Unknown where the baseline gave no rate."""
    calibrating = of_stage(records, Stage.CALIBRATE)
    copies = [r for r in calibrating if r.spec.label == BASELINE and isinstance(r.outcome, Completed | Pruned)]
    rate = long_run_rate([s for r in records for slices in _baseline_slices(r) for s in slices], level=LEVEL)
    if not copies or isinstance(rate, Unknown):
        return Unknown(reason="the baseline never reached a steady rate")
    known = tuple(only_known(known_speed(r.slices, r.reference_slices) for r in copies))
    points = tuple(sorted((r.evaluations[-1].tokens_seen, r.evaluations[-1].loss) for r in copies if r.evaluations))
    return Calibration(
        rate=rate,
        power=measured_power(copies, level=LEVEL),
        noise_scales=tuple(
            NoiseScale(
                horizon_tokens=noise.tokens_seen, batch=noise.batch // NOISE_BATCHES, sequences=noise_scale(noise)
            )
            for r in sorted(copies, key=lambda r: r.spec.horizon_tokens)
            for noise in r.gradient_noise
        ),
        copies=known,
        noise=variance_components(known),
        points=points,
        curve=fit_curve(points),
        curves=bootstrap_curves(points, draws=_BOOTSTRAP_DRAWS, rng=np.random.default_rng(0)),
    )


def _baseline_slices(record: TrialRecord) -> Iterator[Sequence[Slice]]:
    """The slices of the baseline that `record` adds: its own, or the warm reference's; each slice once in a study."""
    if record.spec.label == BASELINE:
        yield record.slices
    if record.spec.stage in _WITH_REFERENCE:
        yield record.reference_slices


def evaluation_at(
    records: Sequence[TrialRecord], *, label: str, seed: int, horizon_tokens: int
) -> Evaluation | Unknown:
    """The held-out evaluation at the end of that configuration's schedule on that seed."""
    for record in records:
        spec = record.spec
        if (spec.label, spec.seed, spec.horizon_tokens) == (label, seed, horizon_tokens) and record.evaluations:
            return record.evaluations[-1]
    return Unknown(reason=f"{label} was not evaluated on seed {seed} at {horizon_tokens} tokens")


def against_reference(
    record: TrialRecord, calibration: Calibration, baseline: Evaluation | Unknown
) -> Effect | Unknown:
    """A trial against the warm reference it was paired with; `baseline` is the baseline's evaluation on that seed."""
    speed = known_speed(record.slices, record.reference_slices)
    if isinstance(speed, Unknown):
        return speed
    loss_difference, efficiency = _quality(record, baseline, calibration.curve)
    return Effect(
        block=record.spec.block,
        horizon_tokens=record.spec.horizon_tokens,
        speed=speed.centre,
        rounds=speed.rounds,
        loss_difference=loss_difference,
        efficiency=efficiency,
    )


def effects_of(
    records: Sequence[TrialRecord], label: str, *, against: str, curve: Curve | Unknown
) -> tuple[Effect, ...]:
    """`label` against `against`, once for every block in which both were measured side by side.

    Efficiency is read off the baseline's curve. Where `against` is not the baseline, that takes the
    curve's slope at the baseline's loss for the slope at theirs, which is right to first order.
    """
    effects = []
    for block in sorted({r.spec.block for r in records}):
        members = {r.spec.label: r for r in records if r.spec.block == block and r.is_complete}
        ours, theirs = members.get(label), members.get(against)
        if not ours or not theirs:
            continue
        speed = known_speed(ours.slices, theirs.slices)
        if isinstance(speed, Unknown):
            continue
        partner = theirs.evaluations[-1] if theirs.evaluations else Unknown(reason=f"{against} was not evaluated")
        loss_difference, efficiency = _quality(ours, partner, curve)
        effects.append(
            Effect(
                block=block,
                horizon_tokens=ours.spec.horizon_tokens,
                speed=speed.centre,
                rounds=speed.rounds,
                loss_difference=loss_difference,
                efficiency=efficiency,
            )
        )
    return tuple(effects)


def _quality(
    record: TrialRecord, partner: Evaluation | Unknown, curve: Curve | Unknown
) -> tuple[float, LogEfficiency | Unknown]:
    """The loss above the partner's, in nats per token (NaN where it is not known), and what that is worth in tokens."""
    none = Unknown(reason="it was not evaluated at the end of its schedule")
    own = record.evaluations[-1] if record.evaluations else none
    difference = or_else(combine(lambda ours, theirs: ours.loss - theirs.loss, own, partner), math.nan)
    return difference, combine(_efficiency, curve, partner, own)


def _efficiency(curve: Curve, partner: Evaluation, own: Evaluation) -> LogEfficiency | Unknown:
    equivalent = log_efficiency(curve, partner.tokens_seen, own.loss - partner.loss)
    if isinstance(equivalent, Unknown):
        return equivalent
    # Schedules end on whole steps, so two global batches may stop a few sequences apart.
    return replace(equivalent, value=equivalent.value + math.log(partner.tokens_seen / own.tokens_seen))


def of_stage(records: Sequence[TrialRecord], stage: Stage) -> tuple[TrialRecord, ...]:
    """The records of one stage."""
    return tuple(r for r in records if r.spec.stage is stage)
