"""Token efficiency from final losses, and its extrapolation to the plan's token budget (docs/method.md, 4).

The token efficiency e of a configuration is the tokens the baseline needs over the tokens it needs
itself for the same held-out loss. It is read off the baseline's curve L(D) = E + A * D**-beta. Losses are
in nats per token, D in tokens, signed quantities in log units. "Cooled" losses are those at the end of a
complete schedule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from autotune.analysis.priors import OTHER_SLOPE
from autotune.analysis.rates import FloatArray
from autotune.analysis.recommendation import Curve
from autotune.quantity import Interval, Unknown

_EXPONENTS: FloatArray = np.geomspace(0.02, 3.0, 80)
_REFINED, _REFINEMENTS = 21, 2
_SCALE_ROUNDS = 3  # least squares first, then twice more with outliers down-weighted
_PARAMETERS = 3
_FEWEST_HORIZONS = 3
_HUBER = 1.345  # in standard deviations: 95 % efficient on normal noise
_MAD_TO_SD = 1.4826
_HUBER_ROUNDS = 10
_EXACT_FIT = 1e-9  # nats: residuals below this are rounding
_RANGE_FACTOR = 2.0  # the curve is trusted this far outside its token budgets
_LEAST_VARIANCE = 1e-12  # squared log units: keeps the system solvable for exact losses
_LOG_MOST_TOKENS = 100.0
_NORMAL_SD_SHARE = 0.158655  # the share of a normal distribution below minus one standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEfficiency:
    """ln of token efficiency. If `censored`, it is only a bound: the loss is outside the trusted part of the curve."""

    value: float
    censored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonPoint:
    """A log efficiency measured with schedules of `tokens`, and its variance in squared log units."""

    tokens: int
    log_efficiency: float
    variance: float


def fit_curve(points: Sequence[tuple[int, float]]) -> Curve | Unknown:
    """The baseline's curve through its cooled losses, given as (tokens, nats per token), one per run.

    Variable projection: for every beta of a grid, refined twice, E >= 0 and A are linear and found by
    Huber's robust regression at one common scale; the beta with the least Huber loss wins. (Form:
    Hoffmann et al. 2022, eq. 2, at fixed model size; robust loss as there.)
    """
    if not all(tokens > 0 and 0 < loss < math.inf for tokens, loss in points):
        return Unknown(reason="a baseline run has no finite, positive loss or no tokens")
    points = sorted(points)  # float sums depend on order, and the fit of a nearly flat curve on the last digit
    horizons = sorted({tokens for tokens, _ in points})
    if len(horizons) < _FEWEST_HORIZONS:
        return Unknown(reason=f"a loss curve needs {_FEWEST_HORIZONS} token budgets; got {len(horizons)}")
    shortest, longest = (np.mean([loss for tokens, loss in points if tokens == end]) for end in _ends(horizons))
    if not longest < shortest:
        return Unknown(reason="the baseline's loss does not fall from the smallest to the largest token budget")

    losses = np.array([loss for _, loss in points], dtype=np.float64)
    log_tokens = np.log(np.array([tokens for tokens, _ in points], dtype=np.float64))
    origin = float(log_tokens.mean())
    exponent, irreducible, scaled_amplitude = _search_exponent(log_tokens - origin, losses)
    if exponent >= _EXPONENTS[-1] or not scaled_amplitude > 0:
        return Unknown(reason="the baseline's loss falls only between the smallest token budgets: no curve fits")
    return Curve(
        points=tuple(points),
        irreducible=irreducible,
        amplitude=scaled_amplitude * math.exp(exponent * origin),
        exponent=exponent,
    )


def bootstrap_curves(points: Sequence[tuple[int, float]], *, draws: int, rng: np.random.Generator) -> tuple[Curve, ...]:
    """Bootstrap replicates of the curve: residuals are resampled; fits that fail are left out.

    Residuals are centred and scaled by sqrt(n / (n - 3)), because three parameters were fitted to n runs.
    With three runs or fewer there are no residuals and no curves. (Residual bootstrap: Efron &
    Tibshirani 1993, 9.4.)
    """
    curve = fit_curve(points)
    spare = len(points) - _PARAMETERS
    if isinstance(curve, Unknown) or spare < 1:
        return ()
    horizons = [tokens for tokens, _ in points]
    fitted = np.array([loss_after(curve, tokens) for tokens in horizons])
    residuals = np.array([loss for _, loss in points]) - fitted
    residuals = (residuals - residuals.mean()) * math.sqrt(len(points) / spare)
    resampled = (fitted + rng.choice(residuals, size=len(points)) for _ in range(draws))
    fits = (fit_curve(list(zip(horizons, losses.tolist(), strict=True))) for losses in resampled)
    return tuple(fit for fit in fits if isinstance(fit, Curve))


def loss_after(curve: Curve, tokens: float) -> float:
    """The baseline's loss after a complete schedule of `tokens`, in nats per token: E + A * D**-beta."""
    return curve.irreducible + _reducible(curve, tokens)


def tokens_to_reach(curve: Curve, loss: float) -> float | Unknown:
    """The tokens the baseline needs for `loss` nats per token: (A / (loss - E))**(1 / beta)."""
    if not loss > curve.irreducible:
        return Unknown(reason=f"a loss of {loss:.3f} is below the baseline's limit of {curve.irreducible:.3f}")
    log_tokens = (math.log(curve.amplitude) - math.log(loss - curve.irreducible)) / curve.exponent
    if not 0 <= log_tokens <= _LOG_MOST_TOKENS:
        return Unknown(reason=f"a loss of {loss:.3f} is outside the baseline's curve")
    return math.exp(log_tokens)


def log_efficiency(curve: Curve, tokens: int, loss_difference: float) -> LogEfficiency | Unknown:
    """ln(D_eq / D), where D_eq = L^-1(L(D) + loss_difference): the baseline's tokens to the candidate's loss.

    `loss_difference` is candidate minus baseline on the same seed, in nats per token after `tokens`, so that
    the seed's offset cancels. In closed form -ln(1 + loss_difference / (A * D**-beta)) / beta. If D_eq is above
    twice the largest or below half the smallest token budget fitted, that bound is returned (docs/method.md, 4.3).
    """
    if not math.isfinite(loss_difference):
        return Unknown(reason="the difference of losses is not finite")
    shortest, longest = _ends([horizon for horizon, _ in curve.points])
    low, high = shortest / _RANGE_FACTOR, longest * _RANGE_FACTOR
    if not low <= tokens <= high:
        return Unknown(reason=f"the baseline's curve was fitted from {shortest} to {longest} tokens, not near {tokens}")
    value = _unbounded_log_efficiency(curve, tokens, loss_difference)
    bounded = min(max(value, math.log(low / tokens)), math.log(high / tokens))
    return LogEfficiency(value=bounded, censored=value != bounded)


def interpolated_log_efficiency(
    points: Sequence[tuple[int, float]], tokens: int, loss_difference: float
) -> LogEfficiency | Unknown:
    """The same, read off the baseline's own losses near `tokens`, linear in ln of the token budget between them.

    No law is assumed: in short trials the loss falls ever faster, and a power law through all of them overstates a
    difference there. `points` are (tokens, cooled loss); beyond the outermost, by at most a factor of 2, the last slope
    goes on.
    """
    losses: dict[int, list[float]] = {}
    for length, loss in points:
        losses.setdefault(length, []).append(loss)
    lengths = sorted(losses)
    means = [float(np.mean(losses[length])) for length in lengths]
    if not math.isfinite(loss_difference) or len(lengths) < 2:
        return Unknown(reason=f"ln e needs a finite loss and 2 token budgets of the baseline; got {len(lengths)}")
    if any(later >= earlier for earlier, later in itertools.pairwise(means)):
        return Unknown(reason="the baseline's loss does not fall from one token budget to the next")
    edge = math.log(_RANGE_FACTOR)
    xs = np.log(np.array(lengths, dtype=np.float64))
    if not xs[0] - edge <= math.log(tokens) <= xs[-1] + edge:
        return Unknown(reason=f"the baseline was trained for {lengths[0]} to {lengths[-1]} tokens, not near {tokens}")
    first, last = (means[0] - means[1]) / (xs[1] - xs[0]), (means[-2] - means[-1]) / (xs[-1] - xs[-2])
    xs = np.array([xs[0] - edge, *xs, xs[-1] + edge])
    ys = np.array([means[0] + edge * first, *means, means[-1] - edge * last])
    wanted = float(np.interp(math.log(tokens), xs, ys)) + loss_difference
    bounded = min(max(wanted, float(ys[-1])), float(ys[0]))
    value = float(np.interp(-bounded, -ys, xs)) - math.log(tokens)
    return LogEfficiency(value=value, censored=wanted != bounded)


def curve_variance(curves: Sequence[Curve], tokens: int, loss_difference: float) -> float:
    """Variance of the log efficiency due to the curve, in squared log units; infinite if unknown.

    Half the distance between the 15.9 % and 84.1 % quantiles over bootstrapped curves, squared. For a normal
    distribution that is the variance, and it is robust to outliers. Values are not censored here: if all were at
    one bound, they would look certain.
    """
    if len(curves) < 2:
        return math.inf
    values = [_unbounded_log_efficiency(curve, tokens, loss_difference) for curve in curves]
    low, high = np.quantile(values, (_NORMAL_SD_SHARE, 1 - _NORMAL_SD_SHARE), method="nearest")
    return float((high - low) / 2) ** 2 if math.isfinite(high) and math.isfinite(low) else math.inf


def extrapolate(
    points: Sequence[HorizonPoint], plan_tokens: float, *, level: float, slope_prior_sd: float = OTHER_SLOPE.sd
) -> Interval | Unknown:
    """The expected log efficiency at `plan_tokens`, with its interval, in log units.

    Bayesian regression of ln e on ln D, with a flat prior on the level and slope N(0, slope_prior_sd^2). With
    z = ln(D / D_plan), the slope is noise with covariance slope_prior_sd^2 * z z'. So the prediction is the
    generalised mean of the points under V = diag(variance) + slope_prior_sd^2 * z z', with variance
    1 / (1' V^-1 1); one point gives variance + (slope_prior_sd * z)^2. Quantiles are normal, because the
    variances are taken as known (docs/method.md, 4.4; Rasmussen & Williams 2006, 2.7).
    """
    if not points or not 0 < plan_tokens < math.inf:
        return Unknown(reason="no token budget was measured, or the plan has no length")
    tokens, values, variances = np.array([(p.tokens, p.log_efficiency, p.variance) for p in points], dtype=np.float64).T
    if not (np.all(tokens > 0) and np.all(variances >= 0) and np.all(np.isfinite([tokens, values, variances]))):
        return Unknown(reason="the efficiency at a token budget, or its variance, is not known")
    distance = np.log(tokens / plan_tokens)
    covariance = np.diag(np.maximum(variances, _LEAST_VARIANCE)) + slope_prior_sd**2 * np.outer(distance, distance)
    weights = np.linalg.solve(covariance, np.ones(len(points)))
    precision = float(weights.sum())
    estimate = float(weights @ values) / precision
    half = float(stats.norm.ppf(0.5 + level / 2)) / math.sqrt(precision)
    return Interval.around(estimate, half, level=level)


def _ends(horizons: Sequence[int]) -> tuple[int, int]:
    return min(horizons), max(horizons)


def _reducible(curve: Curve, tokens: float) -> float:
    """The reducible part of the loss: A * D**-beta."""
    return math.exp(math.log(curve.amplitude) - curve.exponent * math.log(tokens))


def _unbounded_log_efficiency(curve: Curve, tokens: int, loss_difference: float) -> float:
    """ln(D_eq / D), infinite if the curve never reaches that loss."""
    relative = loss_difference / _reducible(curve, tokens)
    return -math.log1p(relative) / curve.exponent if relative > -1 else math.inf


def _search_exponent(log_tokens: FloatArray, losses: FloatArray) -> tuple[float, float, float]:
    """Exponent, irreducible loss and amplitude (at log_tokens = 0) that minimise the Huber loss."""
    to_sd = _MAD_TO_SD * math.sqrt(len(losses) / max(1, len(losses) - _PARAMETERS))
    threshold = math.inf
    for _ in range(_SCALE_ROUNDS):
        *_, residuals = _best(_EXPONENTS, log_tokens, losses, threshold)
        threshold = max(_HUBER * to_sd * float(np.median(np.abs(residuals))), _EXACT_FIT)
    exponents = _EXPONENTS
    best, irreducible, amplitude, _ = _best(exponents, log_tokens, losses, threshold)
    for _ in range(_REFINEMENTS):
        below, above = exponents[max(best - 1, 0)], exponents[min(best + 1, len(exponents) - 1)]
        exponents = np.geomspace(below, above, _REFINED)
        best, irreducible, amplitude, _ = _best(exponents, log_tokens, losses, threshold)
    return float(exponents[best]), irreducible, amplitude


def _best(
    exponents: FloatArray, log_tokens: FloatArray, losses: FloatArray, threshold: float
) -> tuple[int, float, float, FloatArray]:
    """Index of the best exponent, its E and A, and its residuals, shape (runs,).

    Huber regression by iteratively reweighted least squares, for all exponents at once: arrays have shape
    (exponents, runs). An infinite threshold means ordinary least squares.
    """
    powers: FloatArray = np.exp(-np.outer(exponents, log_tokens))
    weights = np.ones_like(powers)
    for _ in range(_HUBER_ROUNDS if math.isfinite(threshold) else 1):
        irreducible, amplitude = _least_squares(powers, losses, weights)
        residuals = losses - irreducible[:, None] - amplitude[:, None] * powers
        distances = np.abs(residuals)
        weights = threshold / np.maximum(distances, threshold) if math.isfinite(threshold) else weights
    near = np.minimum(distances, threshold)
    best = int(np.argmin(np.sum(near * (distances - near / 2), axis=1)))
    return best, float(irreducible[best]), float(amplitude[best]), residuals[best]


def _least_squares(powers: FloatArray, losses: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted least squares of losses on E + A * powers with E >= 0 and A >= 0, row by row; each (exponents,)."""
    total = weights.sum(axis=1)
    mean_power, mean_loss = (weights * powers).sum(axis=1) / total, (weights * losses).sum(axis=1) / total
    centred = powers - mean_power[:, None]
    amplitude = np.maximum((weights * centred * losses).sum(axis=1) / (weights * centred**2).sum(axis=1), 0.0)
    irreducible = mean_loss - amplitude * mean_power
    through_origin = (weights * powers * losses).sum(axis=1) / (weights * powers**2).sum(axis=1)
    negative = irreducible < 0
    return np.where(negative, 0.0, irreducible), np.where(negative, through_origin, amplitude)
