"""From timed slices to speed ratios and their intervals (METHOD 3).

One restart of a comparison: both sessions are opened afresh, then trained in turn, in random order
within a round, so that whatever the machine does meets both alike:

    round            0          1          2          3          4               n
    reference   open |==|          |==|    |==|       |==|          |==|   ...   |==|      close
    candidate   open     |========|    |====|    |==|     |==|  |==|       ...       |==|  close
    log-ratio         -0.9       -0.4       0.2        0.2        0.3      ...    0.2
                     |<--- warm-up: left out -->|<------------ settled ---------------->|
                                                      one centre, one standard error

A round gives one log-ratio, a restart one centre, several restarts an interval: a process keeps its
luck (page placement and the like) for life, so only reopening it averages that out. Speeds are
handled as natural logarithms, in which a ratio and its inverse are equally far from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from autotune.recommendation import Interval, Unknown
from autotune.trial.types import Slice

FloatArray = npt.NDArray[np.float64]

_MAD_TO_SD = 1.4826  # of a normal distribution; n / (n - 0.8) mends few values (Croux & Rousseeuw 1992)
_SETTLED_SDS, _SETTLED_STDERRS = 3.0, 4.0
_NEGLIGIBLE = 0.001  # log units: a drift of a tenth of a per cent is no warm-up
_FEWEST_TO_JUDGE = 4
_FEWEST_ROUNDS = 3
_FEWEST_SLICES, _MOST_SLICES = 3, 1000
_LARGEST_AUTOCORRELATION = 0.9
_LARGEST_PAIRWISE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSpeed:
    """Speed of one candidate process over one reference process, in log units.

    `centre` and `stderr` come from the `rounds` kept; the first `dropped` were warm-up. Where `steady`
    is false the ratio never settled and the second half was kept. `stderr` knows nothing of the spread
    between restarts.
    """

    centre: float
    stderr: float
    rounds: int
    dropped: int
    steady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponents:
    """Variances of log-ratios: of one round `within` a restart, of a restart's true centre `between` them."""

    within: float
    between: float


def log_ratios(candidate: Sequence[Slice], reference: Sequence[Slice]) -> FloatArray:
    """Log-ratios of candidate over reference tokens/s, shape (rounds,), one per round both have.

    Slices outside any round (-1) and rounds in which either side has no positive duration or tokens are
    left out. A session has at most one slice per round.
    """
    ours, theirs = ({s.round: s for s in slices if s.round >= 0 and _is_sound(s)} for slices in (candidate, reference))
    shared = sorted(ours.keys() & theirs.keys())
    rates = ((ours[r].tokens_per_second, theirs[r].tokens_per_second) for r in shared)
    return np.array([math.log(a) - math.log(b) for a, b in rates], dtype=np.float64)


def warm_up_length(log_ratios: FloatArray) -> int | None:
    """How many leading values to drop until the series settles; None where it does not, or is too short to tell.

    The series is settled from the first value that (a) lies, as does the median of it and the next two,
    within 3 robust standard deviations (1.4826 MAD) of the median of the second half, and from which on
    (b) the two halves of what remains differ by no more than 4 standard errors. At most
    half is dropped.
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
    """The Hodges-Lehmann centre: the median of all pairwise means, values with themselves included.

    In the unit of the values; NaN where there are none or one is not finite. (Hodges & Lehmann 1963.)
    """
    if len(values) == 0 or not np.all(np.isfinite(values)):
        return math.nan
    return float(np.median(_walsh_averages(values)))


def paired_speed(candidate: Sequence[Slice], reference: Sequence[Slice]) -> PairedSpeed | Unknown:
    """The settled centre of the log-ratios of one pair of processes, and its standard error within the pair.

    The standard error is half the distance between the pairwise means one standard deviation of
    Wilcoxon's signed-rank statistic to either side of their median (Hollander & Wolfe 1999, 3.3), times
    sqrt((1 + rho) / (1 - rho)) for a lag-1 autocorrelation rho > 0.
    """
    values = log_ratios(candidate, reference)
    settled, dropped, steady = _settled(values)
    if len(settled) < _FEWEST_ROUNDS:
        return Unknown(
            reason=f"of {len(values)} paired rounds {len(settled)} are left after warm-up: {_FEWEST_ROUNDS} are needed"
        )
    return PairedSpeed(
        centre=hodges_lehmann(settled),
        stderr=_centre_stderr(settled),
        rounds=len(settled),
        dropped=dropped,
        steady=steady,
    )


def tokens_per_second(slices: Sequence[Slice]) -> float | Unknown:
    """The steady training rate of one session, in tokens/s: the median over its settled slices."""
    logs = np.array([math.log(s.tokens_per_second) for s in slices if _is_sound(s)], dtype=np.float64)
    if len(logs) == 0:
        return Unknown(reason="no slice with a positive duration was measured")
    settled, _, _ = _settled(logs)
    return math.exp(float(np.median(settled)))


def interval_over_restarts(centres: Sequence[float], level: float) -> Interval | Unknown:
    """The mean of the restarts' centres with Student's t interval, in log units like the centres.

    At least two restarts are needed. Equal centres give an interval of no width: losses of equal bits
    have no noise; timings are never equal. (Kalibera & Jones 2013.)
    """
    values = np.asarray(centres, dtype=np.float64)
    if len(values) < 2:
        return Unknown(reason=f"{len(values)} restart(s) show no spread between restarts: at least 2 are needed")
    if not np.all(np.isfinite(values)):
        return Unknown(reason="a restart has no finite speed")
    mean = float(np.mean(values))
    half = _t_quantile(level, len(values) - 1) * _sd(values) / math.sqrt(len(values))
    return Interval(estimate=mean, low=mean - half, high=mean + half, level=level)


def as_ratio(interval: Interval) -> Interval:
    """An interval of ratios from one in log units: exp of its three numbers."""
    return Interval(
        estimate=_exp(interval.estimate), low=_exp(interval.low), high=_exp(interval.high), level=interval.level
    )


def variance_components(groups: Sequence[FloatArray]) -> VarianceComponents | Unknown:
    """The variance of rounds within a restart and of restarts, from each restart's settled log-ratios.

    Method of moments of the unbalanced one-way layout, clipped at 0: within = MS_within, between =
    (MS_between - MS_within) / n0 with n0 = (N - sum n_i^2 / N) / (k - 1) (Searle, Casella & McCulloch
    1992, 3.6). In squared log units.
    """
    filled = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    if len(filled) < 2:
        return Unknown(reason="fewer than 2 restarts: the spread between restarts cannot be told")
    sizes = np.array([len(group) for group in filled], dtype=np.float64)
    total, spare = float(sizes.sum()), float(sizes.sum()) - len(filled)
    if spare < 1:
        return Unknown(reason="one round per restart: the spread within restarts cannot be told")
    if not all(np.all(np.isfinite(group)) for group in filled):
        return Unknown(reason="a log-ratio is not finite")
    means = np.array([group.mean() for group in filled])
    grand_mean = float(sizes @ means) / total
    within = sum(float(np.sum((group - group.mean()) ** 2)) for group in filled) / spare
    mean_square_between = float(sizes @ (means - grand_mean) ** 2) / (len(filled) - 1)
    effective_size = (total - float(sizes @ sizes) / total) / (len(filled) - 1)
    return VarianceComponents(within=within, between=max(0.0, (mean_square_between - within) / effective_size))


def slices_per_restart(components: VarianceComponents, restart_seconds: float, slice_seconds: float) -> int:
    """How many slices to take before it pays better to reopen: sqrt(c_restart / c_slice * within / between).

    Both costs are in seconds; the answer is kept between 3 and 1000. (Kalibera & Jones 2013, eq. 3.)
    """
    gain, cost = restart_seconds * components.within, slice_seconds * components.between
    if not gain > 0:
        return _FEWEST_SLICES
    if not cost > 0 or gain > _MOST_SLICES**2 * cost:
        return _MOST_SLICES
    return max(_FEWEST_SLICES, math.ceil(math.sqrt(gain / cost)))


def noise_floor(centres: Sequence[float], *, restarts: int, level: float) -> float | Unknown:
    """The smallest log-ratio that a comparison over `restarts` restarts can tell from nothing (METHOD 3.6).

    `centres` are the log-ratios of n copies of the baseline to ONE warm reference. The reference's own
    luck is common to all of them and shifts only their mean, so their standard deviation `sd` is that of
    one process's luck. A later comparison reopens both sides: one pair of processes then varies by
    2*sd^2, the mean of `restarts` pairs by 2*sd^2/restarts. The floor is the half-width of its interval,
    t(level, n - 1) * sd * sqrt(2 / restarts), with the degrees of freedom that `sd` was estimated with.
    """
    values = np.asarray(centres, dtype=np.float64)
    if len(values) < 2 or restarts < 1:
        return Unknown(reason="the noise floor needs at least 2 copies of the baseline and 1 restart")
    if not np.all(np.isfinite(values)):
        return Unknown(reason="a copy of the baseline has no finite speed")
    sd = _sd(values)
    if sd == 0:
        return Unknown(reason="copies of the baseline ran at exactly equal speed: the clock shows no noise to judge by")
    return _t_quantile(level, len(values) - 1) * sd * math.sqrt(2 / restarts)


def _is_sound(slice_: Slice) -> bool:
    return slice_.tokens > 0 and 0 < slice_.seconds < math.inf


def _settled(values: FloatArray) -> tuple[FloatArray, int, bool]:
    """The values kept, how many leading ones were dropped, and whether the series settled."""
    warm_up = warm_up_length(values)
    dropped = len(values) // 2 if warm_up is None else warm_up
    return values[dropped:], dropped, warm_up is not None


def _has_no_trend(values: FloatArray) -> bool:
    """Whether the medians of the two halves agree within 4 standard errors.

    The noise is taken from successive differences, which a slow drift hardly touches (von Neumann 1941);
    pi / 2 is the excess variance of a median.
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
    """Standard deviation (n - 1); exactly 0 for equal values, whose mean may round."""
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0


def _walsh_averages(values: FloatArray) -> FloatArray:
    """All pairwise means, shape (n * (n + 1) / 2,); a long series is first reduced to 2000 of its quantiles."""
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
    """Lag-1 autocorrelation, 0 where negative or undefined."""
    deviations = values - values.mean()
    power = float(deviations @ deviations)
    return max(0.0, float(deviations[1:] @ deviations[:-1]) / power) if power > 0 else 0.0


def _t_quantile(level: float, degrees_of_freedom: int) -> float:
    return float(stats.t.ppf(0.5 + level / 2, degrees_of_freedom))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
