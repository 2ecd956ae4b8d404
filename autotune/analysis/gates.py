"""Gates: tests that a configuration must pass before its speed counts (docs/method.md, 2).

System knobs must compute the same as the baseline (`equivalence`); precision knobs must not learn worse
(`non_inferiority`). `noise_scale` suggests batch sizes and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from autotune.quantity import Unknown
from autotune.trial.types import Fingerprint, GradientNoise
from autotune.workload.base import CompareSketches


@dataclass(frozen=True, slots=True, kw_only=True)
class Inequivalence:
    """A failed equivalence gate: what differs (`logits`, `gradient` or `update`), and its relative distance."""

    what: str
    distance: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether token efficiency is shown to lose at most the margin: `low` > -`margin`, in log units.

    `low` is the one-sided lower bound at `level` of the mean log efficiency `mean` over `seeds` seeds.
    """

    is_shown: bool
    mean: float
    low: float
    margin: float
    level: float
    seeds: int


def relative_distance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The norm of the difference over the norm of `theirs`, a ratio.

    For two sketches it estimates the relative distance of the sketched tensors (Charikar, Chen &
    Farach-Colton 2002). Infinite if it is not a number, if the lengths differ, or if only `theirs` is zero.
    """
    if len(ours) != len(theirs):
        return math.inf
    difference = math.hypot(*(a - b for a, b in zip(ours, theirs, strict=True)))
    norm = math.hypot(*theirs)
    if difference == 0.0 and norm < math.inf:
        return 0.0
    distance = difference / norm if norm > 0.0 else math.inf
    return distance if math.isfinite(distance) and math.isfinite(norm) else math.inf


def equivalence(ours: Fingerprint, theirs: Fingerprint, gate: CompareSketches) -> Inequivalence | None:
    """The first difference beyond the tolerances of `gate` between two sessions of one seed; None if there is none.

    The sessions may differ in system knobs and rounding. Logits are compared first, then gradient, then update,
    because a difference in one causes differences in the next.
    """
    for what, mine, its, tolerance in (
        ("logits", ours.logits, theirs.logits, gate.logits),
        ("gradient", ours.gradient, theirs.gradient, gate.gradient),
        ("update", ours.update, theirs.update, gate.update),
    ):
        distance = relative_distance(mine, its)
        if distance > tolerance:
            return Inequivalence(what=what, distance=distance, tolerance=tolerance)
    return None


def non_inferiority(log_efficiencies: Sequence[float], *, margin: float, level: float) -> NonInferiority | Unknown:
    """Whether the lower bound of the mean log efficiency over paired seeds is above -`margin` (log units).

    The bound is mean - t(level, n - 1) * sd / sqrt(n), one-sided at `level` (0.95 is 95 %). For equal values
    the bound is the mean: bitwise equal losses have no noise. (Wellek 2010, Testing Statistical
    Hypotheses of Equivalence and Noninferiority, 2.2 and 5.3: one half of the two one-sided tests.)
    """
    values = np.asarray(log_efficiencies, dtype=np.float64)
    seeds = len(values)
    if seeds < 2:
        return Unknown(reason=f"non-inferiority needs at least 2 seeds; got {seeds}")
    if not np.all(np.isfinite(values)):
        return Unknown(reason="the token efficiency on a seed is not finite")
    mean = float(np.mean(values))
    half = 0.0
    if np.ptp(values) > 0:
        half = float(stats.t.ppf(level, seeds - 1)) * float(np.std(values, ddof=1)) / math.sqrt(seeds)
    low = mean - half
    return NonInferiority(is_shown=low > -margin, mean=mean, low=low, margin=margin, level=level, seeds=seeds)


def noise_scale(noise: GradientNoise) -> float | Unknown:
    """The simple noise scale tr(Sigma) / |G|^2 in sequences: larger batches than this have diminishing returns.

    From squared norms at two batch sizes b < B by the unbiased estimators
    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b) and tr(Sigma) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)
    (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1). Their ratio is not unbiased.
    """
    small, large = noise.micro_batch, noise.batch
    if not 0 < small < large:
        return Unknown(
            reason=f"the noise scale needs two batch sizes; got {large} sequences in micro-batches of {small}"
        )
    of_small, of_large = noise.micro_square_norm, noise.square_norm
    if not (math.isfinite(of_small) and math.isfinite(of_large)):
        return Unknown(reason="the norm of a gradient is not finite")
    square_gradient = (large * of_large - small * of_small) / (large - small)
    trace = max(0.0, (of_small - of_large) / (1 / small - 1 / large))
    if not square_gradient > 0 or not math.isfinite(trace / square_gradient):
        return Unknown(reason=f"noise hides the gradient over {large} sequences: more are needed")
    return trace / square_gradient
