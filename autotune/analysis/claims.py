"""What may be claimed of a confirmed configuration for the user's plan (docs/method.md, 4.4, 6.2, 8). Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from autotune.analysis.efficiency import HorizonPoint, curve_variance, extrapolate
from autotune.analysis.evidence import EXPLORED, LEVEL, Calibration, Effect
from autotune.analysis.gates import NonInferiority, non_inferiority
from autotune.analysis.rates import KnownSpread, interval_over_restarts
from autotune.quantity import Interval, Unknown, all_known, combine, only_known, or_else
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobClass
from autotune.workload.space import SearchSpace

_NUMERICS_MARGIN = 0.02  # in ln e: low precision that costs at most 2 % of the tokens counts as non-inferior
_NUMERICS_LEVEL = 0.95  # one-sided
_MANY = 1e6  # degrees of freedom: normal
_LEAST_SD = 0.02  # lower bound on the sd of ln e per seed: two or three seeds may agree by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One configuration against the baseline, in log units, and what is claimed for the plan.

    `speed` and `efficiency` are measured at the tested token budget; `plan_efficiency` is that at the plan's length.
    `total` is speed plus `plan_efficiency`; it is shown unless `is_expected`. `numerics` is the non-inferiority test of
    low precision. `restarts` and `rounds` (the median per restart) give the resolution of the comparison; `stderr` and
    `degrees_of_freedom` belong to `total`.
    """

    label: str
    config: Configuration
    restarts: int
    rounds: int
    speed: Interval | Unknown
    efficiency: Interval | Unknown
    plan_efficiency: Interval | Unknown
    total: Interval | Unknown
    is_expected: bool
    numerics: NonInferiority | Unknown
    stderr: float
    degrees_of_freedom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningClaim:
    """ln of token efficiency of the learning knobs of a configuration at the plan's length, and whether it is shown.

    `numerics` is that of its precision, exactly 0 if it keeps the baseline's.
    """

    efficiency: Interval | Unknown
    numerics: Interval | Unknown
    is_shown: bool


def claim_of(
    label: str,
    config: Configuration,
    effects: Sequence[Effect],
    space: SearchSpace,
    calibration: Calibration,
    plan_tokens: float,
    learning: LearningClaim | None = None,
) -> Claim:
    """What `effects` (this configuration against the baseline, over fresh restarts and seeds) allow to claim.

    `learning` is what its learning knobs do at the plan's length, if it changes any. Without them, efficiency is
    claimed as measured: the optimization is the same, so it does not depend on the token budget. Where no losses were
    compared, system knobs alone are claimed by their speed: the equivalence gate has excluded what does not compute the
    same. Low precision that is shown to learn worse at the tested token budget has its loss extrapolated to the plan.
    """
    judged = [e for e in effects if e.horizon_tokens == space.workload.horizon_tokens]
    if len(judged) < 2:
        return _unconfirmed(label, config, len(judged))
    speed, efficiency = speed_of(judged, calibration), efficiency_of(judged)
    numerics = _numerics(config, space, judged)
    only_system = space.changed(config) == space.changed(config, KnobClass.SYSTEM)
    plan_efficiency: Interval | Unknown
    if learning:
        plan_efficiency = combine(Interval.plus, learning.efficiency, learning.numerics)
    else:
        plan_efficiency = _at_plan(effects, calibration, plan_tokens) if is_inferior(numerics) else efficiency
    total: Interval | Unknown
    if isinstance(plan_efficiency, Unknown):
        total = speed if only_system else plan_efficiency
    elif learning or is_inferior(numerics):
        total = combine(lambda known: known.plus(plan_efficiency), speed)
    else:
        total = combine(lambda _: total_of(judged, calibration), speed)
    known = _spread(judged, calibration)
    freedom = float(max(1, len(judged) - 1 + (known.degrees_of_freedom if known else 0)))
    return Claim(
        label=label,
        config=config,
        restarts=len(judged),
        rounds=_rounds(judged),
        speed=speed,
        efficiency=efficiency,
        plan_efficiency=plan_efficiency,
        total=total,
        is_expected=learning is not None and not learning.is_shown,
        numerics=numerics,
        stderr=or_else(combine(lambda known: known.half_width / _quantile(freedom), total), 0.0),
        degrees_of_freedom=freedom,
    )


def faster(claim: Claim | None, config: Configuration, ahead: Interval) -> Claim:
    """What is expected of `config`, which differs from that of `claim` (None: the baseline) in system knobs alone.

    `ahead` is ln of its speed over it, as trials showed it: it was not confirmed, so it is never claimed.
    """
    nothing = Interval.exactly(0.0, level=LEVEL)
    speed, efficiency = (claim.speed, claim.plan_efficiency) if claim else (nothing, nothing)
    total = combine(ahead.plus, claim.total) if claim else ahead
    freedom = claim.degrees_of_freedom if claim else _MANY
    return Claim(
        label=EXPLORED,
        config=config,
        restarts=1,
        rounds=0,
        speed=combine(ahead.plus, speed),
        efficiency=claim.efficiency if claim else nothing,
        plan_efficiency=efficiency,
        total=total,
        is_expected=True,
        numerics=claim.numerics if claim else Unknown(reason="it keeps the baseline's precision"),
        stderr=or_else(combine(lambda known: known.half_width / _quantile(freedom), total), 0.0),
        degrees_of_freedom=freedom,
    )


def speed_of(effects: Sequence[Effect], calibration: Calibration) -> Interval | Unknown:
    """ln of the throughput ratio over the restarts of `effects`; its spread is pooled with the calibration's."""
    return interval_over_restarts([e.speed for e in effects], LEVEL, _spread(effects, calibration))


def efficiency_of(effects: Sequence[Effect], known: KnownSpread | None = None) -> Interval | Unknown:
    """ln of token efficiency over the seeds of `effects`; its spread is pooled with `known`, if given."""
    values = all_known(e.efficiency for e in effects)
    return combine(lambda each: interval_over_restarts([e.value for e in each], LEVEL, known), values)


def total_of(effects: Sequence[Effect], calibration: Calibration) -> Interval | Unknown:
    """ln S at the tested token budget over the restarts of `effects`; the known spread includes that between seeds."""
    known = _spread(effects, calibration)
    efficiencies = [e.value for e in only_known(e.efficiency for e in effects)]
    if known and len(efficiencies) > 1:
        known = replace(known, variance=known.variance + statistics.variance(efficiencies))
    return interval_over_restarts([e.total for e in effects], LEVEL, known)


def is_inferior(numerics: NonInferiority | Unknown) -> bool:
    """Whether low precision is shown to learn worse: even the upper bound is below minus the margin."""
    return not isinstance(numerics, Unknown) and 2.0 * numerics.mean - numerics.low < -numerics.margin


def choose(claims: Sequence[Claim], reduced: Claim | None = None, *, slack: float = 0.0) -> Claim | Unknown:
    """The claim to make: the first of `claims` that is known and shown. They are ordered boldest first.

    The order is fixed before the data are seen (a gatekeeping procedure), so choosing does not raise the error rate.
    A `reduced` configuration replaces the choice unless it is worse by more than `slack`, in log units.
    """
    for claim in claims:
        if not claim.is_expected and isinstance(claim.total, Interval):
            if reduced is None or reduced.is_expected or isinstance(reduced.total, Unknown):
                return claim
            return reduced if reduced.total.estimate >= claim.total.estimate - slack else claim
    if not claims:
        return Unknown(reason="no configuration was confirmed against the baseline")
    reasons = [c.total for c in claims if isinstance(c.total, Unknown)]
    return reasons[0] if reasons else Unknown(reason="no gain found was shown to last for the whole plan")


def _rounds(effects: Sequence[Effect]) -> int:
    return int(statistics.median(e.rounds for e in effects))


def _spread(effects: Sequence[Effect], calibration: Calibration) -> KnownSpread | None:
    return calibration.spread(_rounds(effects)) if effects else None


def _unconfirmed(label: str, config: Configuration, restarts: int) -> Claim:
    unknown = Unknown(reason=f"confirmation needs at least 2 restarts; {restarts} finished")
    return Claim(
        label=label,
        config=config,
        restarts=restarts,
        rounds=0,
        speed=unknown,
        efficiency=unknown,
        plan_efficiency=unknown,
        total=unknown,
        is_expected=False,
        numerics=unknown,
        stderr=0.0,
        degrees_of_freedom=1.0,
    )


def _numerics(config: Configuration, space: SearchSpace, effects: Sequence[Effect]) -> NonInferiority | Unknown:
    if not space.changed(config, KnobClass.NUMERICS):
        return Unknown(reason="it keeps the baseline's precision")
    if space.changed(config, KnobClass.LEARNING):
        return Unknown(reason="it also changes learning knobs, so its precision was not judged separately")
    known = only_known(e.efficiency for e in effects)
    judged = [e.value for e in known] if len(known) == len(effects) else []
    return non_inferiority(judged, margin=_NUMERICS_MARGIN, level=_NUMERICS_LEVEL)


def _at_plan(effects: Sequence[Effect], calibration: Calibration, plan_tokens: float) -> Interval | Unknown:
    """Efficiency extrapolated from the tested token budgets to the plan, with the variance of seeds and curve."""
    groups: dict[int, list[float]] = {}
    differences: dict[int, list[float]] = {}
    for effect in effects:
        if isinstance(effect.efficiency, Unknown):
            return effect.efficiency
        if effect.efficiency.censored:
            return Unknown(reason="the gain is outside the token budgets that the baseline was trained on")
        groups.setdefault(effect.horizon_tokens, []).append(effect.efficiency.value)
        differences.setdefault(effect.horizon_tokens, []).append(effect.loss_difference)
    spreads = [statistics.variance(values) for values in groups.values() if len(values) > 1]
    if not spreads:
        return Unknown(reason="an efficiency at the plan needs at least two seeds")
    of_seeds = max(statistics.fmean(spreads), _LEAST_SD**2)
    points = [
        HorizonPoint(
            tokens=tokens,
            log_efficiency=statistics.fmean(values),
            variance=of_seeds / len(values)
            + curve_variance(calibration.curves, tokens, statistics.fmean(differences[tokens])),
        )
        for tokens, values in groups.items()
    ]
    carried = extrapolate(points, plan_tokens, level=LEVEL)
    if isinstance(carried, Unknown):
        return carried
    # The slope between two token budgets a factor of two apart is too uncertain to claim that a gain grows.
    beyond = max(0.0, carried.estimate - max(points, key=lambda p: p.tokens).log_efficiency)
    return replace(carried, estimate=carried.estimate - beyond, low=carried.low - beyond)


def _quantile(degrees_of_freedom: float) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, degrees_of_freedom))
