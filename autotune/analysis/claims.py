"""What may be claimed of a confirmed configuration for the user's plan (METHOD 4.4, 6.2, 7, 8). Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autotune_model.config import TrainingConfig
from autotune_model.knobs import ADOPTION_HOURS, KNOBS, KnobClass
from scipy import stats

from autotune.analysis.efficiency import HorizonPoint, curve_variance, extrapolate, tokens_to_reach
from autotune.analysis.evidence import LEVEL, Calibration, Effect, changed
from autotune.analysis.gates import NonInferiority, non_inferiority
from autotune.analysis.montecarlo import Economics, Forecast, forecast
from autotune.analysis.power import Power
from autotune.analysis.rates import KnownSpread, interval_over_restarts
from autotune.analysis.roi import plan_device_seconds
from autotune.quantity import Interval, Unknown
from autotune.space.space import Plan, SearchSpace

_HOUR_SECONDS = 3600.0
_NORMAL_QUANTILE = statistics.NormalDist().inv_cdf(0.5 + LEVEL / 2)
_NUMERICS_MARGIN = 0.02  # of ln e: low precision that costs no more than 2 % of the tokens learns as well
_NUMERICS_LEVEL = 0.95  # one-sided
_LEAST_SD = 0.02  # of ln e on one seed: two or three seeds may agree by luck, never to better than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One configuration against the baseline, in log units, and what of it holds for the plan.

    `speed` and `efficiency` are as measured at the tested horizon; `plan_efficiency` is carried to
    the plan. `total` is what is claimed: speed, times that efficiency only where `is_hypothesis` is
    False. `numerics` says whether its low precision, if any, learns as well. `restarts` and the median
    `rounds` of one say how finely it was compared; `stderr` and `degrees_of_freedom` belong to `total`.
    """

    label: str
    config: TrainingConfig
    restarts: int
    rounds: int
    speed: Interval | Unknown
    efficiency: Interval | Unknown
    plan_efficiency: Interval | Unknown
    total: Interval | Unknown
    is_hypothesis: bool
    numerics: NonInferiority | Unknown
    stderr: float
    degrees_of_freedom: float


def plan_tokens_of(space: SearchSpace, calibration: Calibration) -> float | Unknown:
    """Tokens of one run of the plan; for a target loss, what the baseline's curve needs to get there."""
    if space.plan.tokens:
        return float(space.plan.tokens)
    if isinstance(calibration.curve, Unknown):
        return calibration.curve
    return tokens_to_reach(calibration.curve, space.plan.target_loss)


def claim_of(
    label: str,
    config: TrainingConfig,
    effects: Sequence[Effect],
    space: SearchSpace,
    calibration: Calibration,
    plan_tokens: float,
) -> Claim:
    """What `effects` (this configuration against the baseline, over fresh restarts and seeds) allow to claim.

    A configuration that changes no learning knob is claimed with its efficiency as measured: same
    optimisation, so no horizon enters. Where no loss can be turned into tokens, system knobs alone are
    claimed by their speed, for what does not compute the same was excluded by the gate. A learning gain is carried
    to the plan with the variance of
    that step, and is a hypothesis unless its whole interval lies on the good side there. Low precision
    that is shown to learn worse at the tested horizon pays for it at the plan, with the same variance.
    """
    horizon = space.workload.horizon_tokens
    judged = [e for e in effects if e.horizon_tokens == horizon]
    if len(judged) < 2:
        return _unconfirmed(label, config, len(judged))
    speed = speed_of(judged, calibration)
    efficiencies = [e.efficiency.value for e in judged if not isinstance(e.efficiency, Unknown)]
    complete = len(efficiencies) == len(judged)
    efficiency = interval_over_restarts(efficiencies, LEVEL) if complete else _first_reason(judged)
    rounds = int(statistics.median(e.rounds for e in judged))
    numerics = _numerics(config, space, efficiencies if complete else [])
    learns = bool(changed(config, space.baseline, KnobClass.LEARNING))
    carried = learns or is_inferior(numerics)
    plan_efficiency = _at_plan(effects, calibration, plan_tokens) if carried else efficiency
    is_hypothesis = learns and (isinstance(plan_efficiency, Unknown) or plan_efficiency.low <= 0.0)
    total: Interval | Unknown
    if isinstance(speed, Unknown):
        total = speed
    elif isinstance(plan_efficiency, Unknown):
        gated = changed(config, space.baseline).keys() == changed(config, space.baseline, KnobClass.SYSTEM).keys()
        total = speed if gated else plan_efficiency
    elif is_hypothesis:
        total = speed
    elif carried:
        total = sum_of(speed, plan_efficiency)
    else:
        total = total_of(judged, calibration)
    known = calibration.spread(rounds)
    freedom = float(max(1, len(judged) - 1 + (known.degrees_of_freedom if known else 0)))
    return Claim(
        label=label,
        config=config,
        restarts=len(judged),
        rounds=rounds,
        speed=speed,
        efficiency=efficiency,
        plan_efficiency=plan_efficiency,
        total=total,
        is_hypothesis=is_hypothesis,
        numerics=numerics,
        stderr=0.0 if isinstance(total, Unknown) else (total.high - total.low) / (2.0 * _quantile(freedom)),
        degrees_of_freedom=freedom,
    )


def speed_of(effects: Sequence[Effect], calibration: Calibration) -> Interval | Unknown:
    """ln of the ratio of throughputs over the restarts of `effects`, its spread pooled with the calibration's."""
    return interval_over_restarts([e.speed for e in effects], LEVEL, _spread(effects, calibration))


def total_of(effects: Sequence[Effect], calibration: Calibration) -> Interval | Unknown:
    """ln S at the tested horizon over the restarts of `effects`, likewise; the efficiency varies with the seed."""
    known = _spread(effects, calibration)
    efficiencies = [e.efficiency.value for e in effects if not isinstance(e.efficiency, Unknown)]
    if known and len(efficiencies) > 1:
        known = replace(known, variance=known.variance + statistics.variance(efficiencies))
    return interval_over_restarts([e.total for e in effects], LEVEL, known)


def _spread(effects: Sequence[Effect], calibration: Calibration) -> KnownSpread | None:
    return calibration.spread(int(statistics.median(e.rounds for e in effects))) if effects else None


def _unconfirmed(label: str, config: TrainingConfig, restarts: int) -> Claim:
    unknown = Unknown(reason=f"the budget ended with {restarts} of at least 2 confirming runs done")
    return Claim(
        label=label,
        config=config,
        restarts=restarts,
        rounds=0,
        speed=unknown,
        efficiency=unknown,
        plan_efficiency=unknown,
        total=unknown,
        is_hypothesis=False,
        numerics=unknown,
        stderr=0.0,
        degrees_of_freedom=1.0,
    )


def _numerics(
    config: TrainingConfig, space: SearchSpace, log_efficiencies: Sequence[float]
) -> NonInferiority | Unknown:
    if not changed(config, space.baseline, KnobClass.NUMERICS):
        return Unknown(reason="it rounds as the baseline does")
    if changed(config, space.baseline, KnobClass.LEARNING):
        return Unknown(reason="it also learns otherwise, so its rounding was not judged by itself")
    return non_inferiority(log_efficiencies, margin=_NUMERICS_MARGIN, level=_NUMERICS_LEVEL)


def is_inferior(numerics: NonInferiority | Unknown) -> bool:
    """Whether low precision is shown to learn worse: the upper bound, too, lies below minus the margin."""
    return not isinstance(numerics, Unknown) and 2.0 * numerics.mean - numerics.low < -numerics.margin


def choose(claims: Sequence[Claim]) -> Claim | Unknown:
    """The claim to stand on: the first that is known and no hypothesis; `claims` are in fixed order, boldest first.

    The order is fixed before the data are seen (a gatekeeping procedure), so choosing costs no error rate.
    """
    for claim in claims:
        if not claim.is_hypothesis and not isinstance(claim.total, Unknown):
            return claim
    if not claims:
        return Unknown(reason="no configuration was confirmed against the baseline")
    reasons = [c.total.reason for c in claims if isinstance(c.total, Unknown)]
    return Unknown(reason=reasons[0] if reasons else "every gain found is a hypothesis at the plan's length")


def economics_of(
    space: SearchSpace,
    calibration: Calibration,
    config: TrainingConfig,
    power: Power | Unknown,
    *,
    plan_tokens: float,
    search_seconds: float,
    compile_seconds: float,
) -> Economics:
    """What the plan costs with the baseline and what search and adoption of `config` cost, in the plan's currency."""
    plan = space.plan
    return Economics(
        baseline_device_seconds=plan_device_seconds(plan_tokens, plan.runs, calibration.rate.estimate),
        baseline_log_sd=_rate_log_sd(calibration, plan.runs),
        device_price_per_second=(plan.device_hour_usd or 1.0) / _HOUR_SECONDS,
        kwh_price=plan.kwh_usd if plan.pays_for_energy else 0.0,
        pue=plan.pue,
        power=power,
        one_off_device_seconds=compile_seconds * plan.runs * plan.devices,
        search_device_seconds=search_seconds,
        adoption_cost=adoption_cost(plan, changed(config, space.baseline)),
    )


def _rate_log_sd(calibration: Calibration, runs: int) -> float:
    """Of ln C_0: that of the measured rate, the luck of the process it was measured in, and that of the plan's runs."""
    measured = math.log(calibration.rate.high / calibration.rate.low) / (2.0 * _NORMAL_QUANTILE)
    process = 0.0 if isinstance(calibration.noise, Unknown) else calibration.noise.between
    return math.sqrt(measured**2 + process * (1.0 + 1.0 / runs))


def adoption_cost(plan: Plan, knobs: Iterable[str]) -> float:
    """What adopting those knobs costs in the plan's currency; nothing where only device-hours are counted."""
    hours = sum(ADOPTION_HOURS[KNOBS[name].complexity] for name in knobs)
    return hours * plan.engineer_hour_usd if plan.currency == "USD" else 0.0


def forecast_of(claim: Claim, economics: Economics) -> Forecast | Unknown:
    """The plan with the claimed configuration: net saving, ROI and their uncertainty."""
    if isinstance(claim.total, Unknown):
        return claim.total
    return forecast(
        economics=economics,
        log_speedup_mean=claim.total.estimate,
        log_speedup_stderr=claim.stderr,
        degrees_of_freedom=claim.degrees_of_freedom,
        level=LEVEL,
    )


def _at_plan(effects: Sequence[Effect], calibration: Calibration, plan_tokens: float) -> Interval | Unknown:
    """Learning efficiency carried from all tested horizons to the plan's tokens, seeds' and curve's variance in it."""
    groups: dict[int, list[float]] = {}
    differences: dict[int, list[float]] = {}
    for effect in effects:
        if isinstance(effect.efficiency, Unknown):
            return effect.efficiency
        if effect.efficiency.censored:
            return Unknown(reason="the gain reaches beyond the horizons the baseline was measured at")
        groups.setdefault(effect.horizon_tokens, []).append(effect.efficiency.value)
        differences.setdefault(effect.horizon_tokens, []).append(effect.loss_difference)
    spreads = [statistics.variance(values) for values in groups.values() if len(values) > 1]
    if not spreads:
        return Unknown(reason="a learning gain needs at least two seeds")
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
    # Two horizons a factor of two apart may point anywhere: no gain is claimed to grow on the way to the plan.
    beyond = max(0.0, carried.estimate - max(points, key=lambda p: p.tokens).log_efficiency)
    return replace(carried, estimate=carried.estimate - beyond, low=carried.low - beyond)


def sum_of(speed: Interval, efficiency: Interval) -> Interval:
    """The interval of an independent sum: half-widths add in quadrature."""
    half = math.hypot((speed.high - speed.low) / 2, (efficiency.high - efficiency.low) / 2)
    centre = speed.estimate + efficiency.estimate
    return Interval(estimate=centre, low=centre - half, high=centre + half, level=LEVEL)


def _first_reason(effects: Sequence[Effect]) -> Unknown:
    return next(e.efficiency for e in effects if isinstance(e.efficiency, Unknown))


def _quantile(degrees_of_freedom: float) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, degrees_of_freedom))
