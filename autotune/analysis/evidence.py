"""Effects and calibration from the records of a study, before any conclusion. Pure.

Everything is in log units relative to the baseline: 0 is equal, 0.05 is about 5 % better.
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
EXPLORED = "explored"
"""A system configuration that trials show to be faster and nothing confirmed: no record has this label."""
ANCHOR = "baseline's learning"
"""The best system configuration with the baseline's learning knobs: what longer trials are compared with."""

CONFIRM_SEED = 200
"""The first seed of confirmation; exploration uses smaller ones."""

LEVEL = 0.9
"""The level of every reported interval."""

NORMAL_QUANTILE = statistics.NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""Half-width of a normal interval at `LEVEL`, in standard deviations."""

NOISE_BATCHES = 8
"""Optimizer steps over which the noise scale is measured at the end of a schedule."""

_BOOTSTRAP_DRAWS = 40
_REMEMBERED_PAIRS = 512  # more than any study has
_REMEMBERED_CURVES = 32  # a study asks for the same one after every trial
known_speed = lru_cache(maxsize=_REMEMBERED_PAIRS)(paired_speed)
"""`paired_speed`, cached per pair of trials: the stages of a search ask for it repeatedly."""

_WITH_REFERENCE = (Stage.CALIBRATE, Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING)  # others pair members of a block


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The results of calibration for this machine and the baseline.

    `rate` is the baseline's tokens/s over the whole study, stalls and load bursts included. `copies` are copies
    of the baseline against the warm reference (A/A); `noise` is estimated from them. `points` are the cooled losses
    (tokens, nats per token) of the baseline and, for long trials, of its learning knobs; `curve` is their fit and
    `curves` its bootstrap. `noise_scales` are of the baseline's gradient at the end of its schedules. `power` is the
    copies' power draw beside the reference.
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
        """The variance of the centres of pairs of fresh processes here, from copies of the baseline.

        It comes from a difference of two variances, so it counts half of its degrees of freedom.
        """
        if isinstance(self.noise, Unknown):
            return None
        return KnownSpread(
            variance=pair_variance(self.noise, rounds), degrees_of_freedom=max(1, (self.noise.copies - 1) // 2)
        )

    def floor(self, restarts: int, rounds: int) -> float | Unknown:
        """The smallest log-ratio that `restarts` pairs of fresh processes of `rounds` rounds each can resolve here."""
        return combine(lambda noise: noise_floor(noise, restarts=restarts, rounds=rounds, level=LEVEL), self.noise)

    @property
    def process_variance(self) -> float:
        """Variance of the per-process offset, in squared log units; 0 if too few copies of the baseline ran."""
        return or_else(combine(lambda noise: noise.between, self.noise), 0.0)

    def rate_log_sd(self, runs: int) -> float:
        """Standard deviation of ln of the cost of `runs` runs of the baseline.

        It combines the measured rate's error and the offsets of the measuring process and of the runs' processes.
        """
        measured = math.log(self.rate.high / self.rate.low) / (2.0 * NORMAL_QUANTILE)
        return math.sqrt(measured**2 + self.process_variance * (1.0 + 1.0 / runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One configuration against another on one seed, in one pair of processes over `rounds` rounds, in log units.

    `loss_difference` is in nats per token (NaN if there is none); `efficiency` is its equivalent in tokens.
    """

    block: int
    horizon_tokens: int
    speed: float
    rounds: int
    loss_difference: float
    efficiency: LogEfficiency | Unknown

    @property
    def total(self) -> float:
        """ln S: speed plus efficiency, if the latter is known."""
        return self.speed + or_else(combine(lambda efficiency: efficiency.value, self.efficiency), 0.0)


def calibration_of(records: Sequence[TrialRecord]) -> Calibration | Unknown:
    """The results of calibration, with rate and curve from all `records`; Unknown if the baseline gave no rate."""
    calibrating = of_stage(records, Stage.CALIBRATE)
    copies = [r for r in calibrating if r.spec.label == BASELINE and isinstance(r.outcome, Completed | Pruned)]
    rate = long_run_rate([s for r in records for slices in _baseline_slices(r) for s in slices], level=LEVEL)
    if not copies or isinstance(rate, Unknown):
        return Unknown(reason="the baseline never reached a steady rate")
    known = tuple(only_known(known_speed(r.slices, r.reference_slices) for r in copies))
    cooled = [*copies, *(r for r in records if r.spec.label == ANCHOR and r.is_complete and r.spec.seed == 0)]
    points = tuple(sorted((r.evaluations[-1].tokens_seen, r.evaluations[-1].loss) for r in cooled if r.evaluations))
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
        curve=_fitted(points),
        curves=_bootstrapped(points),
    )


@lru_cache(maxsize=_REMEMBERED_CURVES)
def _fitted(points: tuple[tuple[int, float], ...]) -> Curve | Unknown:
    return fit_curve(points)


@lru_cache(maxsize=_REMEMBERED_CURVES)
def _bootstrapped(points: tuple[tuple[int, float], ...]) -> tuple[Curve, ...]:
    return bootstrap_curves(points, draws=_BOOTSTRAP_DRAWS, rng=np.random.default_rng(0))


def _baseline_slices(record: TrialRecord) -> Iterator[Sequence[Slice]]:
    """The baseline slices in `record`: its own, or the warm reference's. Each slice occurs once per study."""
    if record.spec.label == BASELINE:
        yield record.slices
    if record.spec.stage in _WITH_REFERENCE:
        yield record.reference_slices


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

    Efficiency is read off the baseline's curve. If `against` is not the baseline, that uses the curve's
    slope at the baseline's loss in place of the slope at theirs, which is correct to first order.
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
    """The loss difference to the partner in nats per token (NaN if not known), and its equivalent in tokens."""
    none = Unknown(reason="it was not evaluated at the end of its schedule")
    own = record.evaluations[-1] if record.evaluations else none
    difference = or_else(combine(lambda ours, theirs: ours.loss - theirs.loss, own, partner), math.nan)
    return difference, combine(_efficiency, curve, partner, own)


def _efficiency(curve: Curve, partner: Evaluation, own: Evaluation) -> LogEfficiency | Unknown:
    equivalent = log_efficiency(curve, partner.tokens_seen, own.loss - partner.loss)
    if isinstance(equivalent, Unknown):
        return equivalent
    # Schedules end on whole steps, so different global batches may end a few sequences apart.
    return replace(equivalent, value=equivalent.value + math.log(partner.tokens_seen / own.tokens_seen))


def normal_interval(mean: float, sd: float) -> Interval:
    """The interval at `LEVEL` of a normal belief with that mean and standard deviation."""
    return Interval.around(mean, NORMAL_QUANTILE * sd, level=LEVEL)


def of_stage(records: Sequence[TrialRecord], stage: Stage) -> tuple[TrialRecord, ...]:
    """The records of one stage."""
    return tuple(r for r in records if r.spec.stage is stage)
