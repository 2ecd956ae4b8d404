"""Speed ratios and their intervals from timed slices (docs/method.md, 3).

One restart of a comparison: both sessions are opened in fresh processes, then trained in turn, in random
order within a round, so that disturbances of the machine affect both alike:

    round            0          1          2          3          4               n
    reference   open |==|          |==|    |==|       |==|          |==|   ...   |==|      close
    candidate   open     |========|    |====|    |==|     |==|  |==|       ...       |==|  close
    log-ratio         -0.9       -0.4       0.2        0.2        0.3      ...    0.2
                     |<--- warm-up: left out -->|<------------ settled ---------------->|
                                                      one centre, one standard error

A round gives one log-ratio, a restart one centre, several restarts an interval. Each process has a
per-process offset (page placement and the like) for life, so only reopening averages it out. Speeds are
natural logarithms, in which a ratio and its inverse are equally far from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
from scipy import stats

from autotune.quantity import Interval, Quantity, Unknown
from autotune.trial.types import Slice

FloatArray = npt.NDArray[np.float64]

_MAD_TO_SD = 1.4826  # for a normal distribution; n / (n - 0.8) corrects small samples (Croux & Rousseeuw 1992)
_SETTLED_SDS, _SETTLED_STDERRS = 3.0, 4.0
_NEGLIGIBLE = 0.001  # log units: a drift of 0.1 % does not count as warm-up
_FEWEST_TO_JUDGE = 4
_FEWEST_ROUNDS = 3
_FEWEST_SLICES, _MOST_SLICES = 3, 1000
_LARGEST_AUTOCORRELATION = 0.9
_LARGEST_PAIRWISE = 2000
_STRETCHES = 8
_LARGEST_UTILISATION = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSpeed:
    """Speed of one candidate process over one reference process, in log units.

    `centre` and `stderr` come from the `rounds` kept; the first `dropped` were warm-up. If `steady`
    is false, the ratio never settled and the second half was kept. `stderr` does not include the spread
    between restarts.
    """

    centre: float
    stderr: float
    rounds: int
    dropped: int
    steady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponents:
    """Variances in squared log units: `within` of a paired round, `between` of the per-process offset."""

    within: float
    between: float
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSpread:
    """The variance of one restart's centre, in squared log units, from an independent estimate."""

    variance: float
    degrees_of_freedom: int


def log_ratios(candidate: Sequence[Slice], reference: Sequence[Slice]) -> FloatArray:
    """Log-ratios of candidate over reference tokens/s, shape (rounds,), one per common round.

    Slices outside any round (-1) are left out, as are rounds in which either side has no positive duration or
    tokens. A session has at most one slice per round.
    """
    ours, theirs = ({s.round: s for s in slices if s.round >= 0 and _is_sound(s)} for slices in (candidate, reference))
    shared = sorted(ours.keys() & theirs.keys())
    rates = ((ours[r].tokens_per_second, theirs[r].tokens_per_second) for r in shared)
    return np.array([math.log(a) - math.log(b) for a, b in rates], dtype=np.float64)


def warm_up_length(log_ratios: FloatArray) -> int | None:
    """How many leading values to drop until the series settles; None if it does not, or is too short to tell.

    The series is settled from the first value for which (a) the value, and the median of it and the next two,
    are within 3 robust standard deviations (1.4826 MAD) of the median of the second half, and (b) the two
    halves of the series from there on differ by at most 4 standard errors. At most half is dropped.
    """
    count = len(log_ratios)
    if count < _FEWEST_TO_JUDGE or not np.all(np.isfinite(log_ratios)):
        return None
    tail = log_ratios[count // 2 :]
    centre, spread = float(np.median(tail)), _robust_sd(tail)
    band = max(_SETTLED_SDS * spread, _NEGLIGIBLE)
    for start in range(count // 2 + 1):
        leading = (log_ratios[start], np.median(log_ratios[start : start + 3]))
        if all(abs(value - centre) <= band for value in leading) and _has_no_trend(log_ratios[start:]):
            return start
    return None


def hodges_lehmann(values: FloatArray) -> float:
    """The Hodges-Lehmann centre: the median of all pairwise means, including each value with itself.

    In the unit of the values; NaN if there are none or one is not finite. (Hodges & Lehmann 1963.)
    """
    if len(values) == 0 or not np.all(np.isfinite(values)):
        return math.nan
    return float(np.median(_walsh_averages(values)))


def paired_speed(candidate: Sequence[Slice], reference: Sequence[Slice]) -> PairedSpeed | Unknown:
    """The settled centre of the log-ratios of one pair of processes, and its standard error within the pair.

    The standard error is half the distance between two quantiles of the pairwise means: those one standard
    deviation of Wilcoxon's signed-rank statistic to either side of the median (Hollander & Wolfe 1999, 3.3).
    It is multiplied by sqrt((1 + rho) / (1 - rho)) for a lag-1 autocorrelation rho > 0.
    """
    values = log_ratios(candidate, reference)
    warm_up = warm_up_length(values)
    dropped = len(values) // 2 if warm_up is None else warm_up
    settled = values[dropped:]
    if len(settled) < _FEWEST_ROUNDS:
        return Unknown(
            reason=f"a speed needs {_FEWEST_ROUNDS} rounds after warm-up; {len(settled)} of {len(values)} are left"
        )
    return PairedSpeed(
        centre=hodges_lehmann(settled),
        stderr=_centre_stderr(settled),
        rounds=len(settled),
        dropped=dropped,
        steady=warm_up is not None,
    )


def interval_over_restarts(
    centres: Sequence[float], level: float, known: KnownSpread | None = None
) -> Interval | Unknown:
    """The mean of the restarts' centres with Student's t interval, in log units like the centres.

    If the spread of such a centre is `known` from elsewhere, both estimates of the variance are pooled
    by their degrees of freedom, so that a few restarts that agree by chance do not look certain. One restart
    is then enough; otherwise two are needed. Without a known spread, equal centres give an interval of no
    width: bitwise equal losses have no noise, and timings are never equal. (Kalibera & Jones 2013.)
    """
    values = np.asarray(centres, dtype=np.float64)
    if len(values) < (1 if known else 2):
        return Unknown(reason=f"an interval needs at least 2 restarts; got {len(values)}")
    if not np.all(np.isfinite(values)):
        return Unknown(reason="a restart has no finite speed")
    mean, freedom = float(np.mean(values)), len(values) - 1
    variance = _sd(values) ** 2 if freedom else 0.0
    if known:
        variance = (freedom * variance + known.degrees_of_freedom * known.variance) / (
            freedom + known.degrees_of_freedom
        )
        freedom += known.degrees_of_freedom
    half = _t_quantile(level, freedom) * math.sqrt(variance / len(values))
    return Interval.around(mean, half, level=level)


@overload
def as_ratio(log_ratio: Interval) -> Interval: ...
@overload
def as_ratio(log_ratio: Quantity) -> Quantity: ...
def as_ratio(log_ratio: Quantity) -> Quantity:
    """The ratio of a log-ratio: exp of its three numbers, infinite on overflow."""
    return log_ratio.map(_exp)


def variance_components(copies: Sequence[PairedSpeed]) -> VarianceComponents | Unknown:
    """The two levels of noise, from `copies` of one configuration, all paired with ONE warm reference.

    Method of moments: within = mean(stderr^2 * rounds), between = variance of the centres minus the
    mean stderr^2, at least 0. The reference's own offset is common to all copies and shifts only their
    mean, so `between` is that of one process. In squared log units. (Kalibera & Jones 2013, 6.)
    """
    if len(copies) < 2:
        return Unknown(reason=f"the noise floor needs at least 2 baseline repeats; {len(copies)} finished")
    centres = np.array([copy.centre for copy in copies], dtype=np.float64)
    stderrs = np.array([copy.stderr for copy in copies], dtype=np.float64)
    rounds = np.array([copy.rounds for copy in copies], dtype=np.float64)
    if not (np.all(np.isfinite(centres)) and np.all(np.isfinite(stderrs))):
        return Unknown(reason="a baseline repeat has no finite speed")
    return VarianceComponents(
        within=float(np.mean(stderrs**2 * rounds)),
        between=max(0.0, _sd(centres) ** 2 - float(np.mean(stderrs**2))),
        copies=len(copies),
    )


def pair_variance(components: VarianceComponents, rounds: int) -> float:
    """Variance of the centre of one pair of fresh processes over `rounds` rounds: 2 * between + within / rounds."""
    return 2.0 * components.between + components.within / max(1, rounds)


def slices_per_restart(components: VarianceComponents, restart_seconds: float, slice_seconds: float) -> int:
    """The best number of paired slices per restart.

    sqrt(c_restart / c_slice * within / (2 * between)): both sides are reopened, hence twice the variance of one
    process. Both costs are in seconds; the result is clipped to 3..1000. (Kalibera & Jones 2013, eq. 3.)
    """
    gain, cost = restart_seconds * components.within, slice_seconds * 2.0 * components.between
    if not gain > 0:
        return _FEWEST_SLICES
    if not cost > 0 or gain > _MOST_SLICES**2 * cost:
        return _MOST_SLICES
    return max(_FEWEST_SLICES, math.ceil(math.sqrt(gain / cost)))


def noise_floor(components: VarianceComponents, *, restarts: int, rounds: int, level: float) -> float | Unknown:
    """The smallest log-ratio that `restarts` restarts of `rounds` rounds can resolve (docs/method.md, 3.6).

    The half-width of such a comparison's interval, t(level, copies - 1) * sqrt(pair_variance / restarts),
    with the degrees of freedom of the estimated spread between processes.
    """
    if restarts < 1:
        return Unknown(reason="the noise floor needs at least 1 restart")
    variance = pair_variance(components, rounds)
    if not variance > 0:
        return Unknown(
            reason="all baseline repeats ran at exactly the same speed: there is no noise to estimate a floor from"
        )
    return _t_quantile(level, components.copies - 1) * math.sqrt(variance / restarts)


def implausible(slices: Sequence[Slice], *, flops_per_token: float, peak_flops: float) -> str:
    """Why the timing of a session cannot be true, or the empty string.

    Every slice takes time and does work. The model FLOPs utilisation, tokens/s * FLOPs per token over the peak
    (PaLM, arXiv 2204.02311, appendix B), is at most 1; the limit is 1.25, because the peak is measured too.
    A `peak_flops` of 0 means unknown.
    """
    for slice_ in slices:
        if not _is_sound(slice_):
            return f"a slice must take time and do work; got {slice_.tokens} tokens in {slice_.seconds:g} s"
    seconds = math.fsum(s.seconds for s in slices)
    if not slices or not peak_flops > 0:
        return ""
    utilisation = sum(s.tokens for s in slices) / seconds * flops_per_token / peak_flops
    if utilisation > _LARGEST_UTILISATION:
        return f"the MFU must be at most 1; got {utilisation:.3g}: the clock or the measured peak is wrong"
    return ""


def long_run_rate(slices: Sequence[Slice], *, level: float, draws: int = 500) -> Interval | Unknown:
    """The average tokens/s of a long run of one configuration here, stalls and load bursts included.

    `slices` are in order of time. The estimate is all tokens over all seconds, because a median would leave
    out bursts that a plan of hours cannot avoid. The interval is a bootstrap over up to eight stretches of
    equal length, because slices close in time are correlated (Efron & Tibshirani 1993, 8.6). It does not
    include the spread between processes.
    """
    sound = [(s.tokens, s.seconds) for s in slices if _is_sound(s)]
    if not sound:
        return Unknown(reason="no slice with a positive duration was measured")
    every = np.array(sound, dtype=np.float64)
    middles = np.cumsum(every[:, 1]) - every[:, 1] / 2
    stretch = (middles / every[:, 1].sum() * _STRETCHES).astype(int)
    groups = [every[stretch == number].sum(axis=0) for number in np.unique(stretch)]
    tokens, seconds = np.array(groups).T
    estimate = float(tokens.sum() / seconds.sum())
    if len(groups) < 2:
        return Interval.exactly(estimate, level=level)
    drawn = np.random.default_rng(0).integers(len(groups), size=(draws, len(groups)))
    logs = np.log(tokens[drawn].sum(axis=1) / seconds[drawn].sum(axis=1)) - math.log(estimate)
    # A bootstrap of few groups is too narrow: widen by sqrt(n / (n - 1)) and Student's t over the normal.
    wider = math.sqrt(len(groups) / (len(groups) - 1)) * _t_quantile(level, len(groups) - 1)
    half = wider * float(np.std(logs))
    return Interval(estimate=estimate, low=estimate * math.exp(-half), high=estimate * math.exp(half), level=level)


def _is_sound(slice_: Slice) -> bool:
    return slice_.tokens > 0 and 0 < slice_.seconds < math.inf


def _has_no_trend(values: FloatArray) -> bool:
    """Whether the medians of the two halves agree within 4 standard errors.

    The noise comes from successive differences, which a slow drift hardly affects (von Neumann 1941);
    pi / 2 is the variance of a median over that of a mean.
    """
    early, late = np.array_split(values, 2)
    if len(late) < 2:
        return True
    noise = _robust_sd(np.diff(values)) / math.sqrt(2)
    stderr = noise * math.sqrt(math.pi / 2 * (1 / len(early) + 1 / len(late)))
    return abs(float(np.median(early)) - float(np.median(late))) <= max(_SETTLED_STDERRS * stderr, _NEGLIGIBLE)


def _robust_sd(values: FloatArray) -> float:
    few = len(values) / (len(values) - 0.8)
    return _MAD_TO_SD * few * float(np.median(np.abs(values - np.median(values))))


def _sd(values: FloatArray) -> float:
    """Standard deviation (n - 1); exactly 0 for equal values, despite rounding of their mean."""
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0


def _walsh_averages(values: FloatArray) -> FloatArray:
    """All pairwise means, shape (n * (n + 1) / 2,); a long series is first reduced to 2000 quantiles."""
    if len(values) > _LARGEST_PAIRWISE:
        values = np.quantile(values, (np.arange(_LARGEST_PAIRWISE) + 0.5) / _LARGEST_PAIRWISE)
    first, second = np.triu_indices(len(values))
    averages: FloatArray = (values[first] + values[second]) / 2
    return averages


def _centre_stderr(values: FloatArray) -> float:
    count = len(values)
    signed_rank_sd = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    share = signed_rank_sd / (count * (count + 1) / 2)
    low, high = np.quantile(_walsh_averages(values), (0.5 - share, 0.5 + share), method="weibull")
    rho = min(_autocorrelation(values), _LARGEST_AUTOCORRELATION)
    return float(high - low) / 2 * math.sqrt((1 + rho) / (1 - rho))


def _autocorrelation(values: FloatArray) -> float:
    """Lag-1 autocorrelation; 0 if negative or undefined."""
    deviations = values - values.mean()
    power = float(deviations @ deviations)
    return max(0.0, float(deviations[1:] @ deviations[:-1]) / power) if power > 0 else 0.0


def _t_quantile(level: float, degrees_of_freedom: int) -> float:
    return float(stats.t.ppf(0.5 + level / 2, degrees_of_freedom))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
