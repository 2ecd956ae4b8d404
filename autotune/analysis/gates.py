"""Gates: tests that a configuration has to pass before its speed may count for anything (METHOD 2).

What changes only how a step is computed must compute the same (`equivalence`); what rounds otherwise
must not learn worse (`non_inferiority`). `noise_scale` proposes batch sizes and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from autotune_model.config import TrainingConfig
from scipy import stats

from autotune.quantity import Unknown
from autotune.trial.types import Fingerprint, GradientNoise


@dataclass(frozen=True, slots=True, kw_only=True)
class Inequivalence:
    """What differs (`logits`, `gradient` or `update`), by what share of its norm, and what would have been forgiven."""

    what: str
    distance: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether token efficiency is shown to lose no more than the margin: `low` > -`margin`, in log units.

    `low` is the one-sided lower bound at `level` of the mean log efficiency `mean` over `seeds` seeds.
    """

    is_shown: bool
    mean: float
    low: float
    margin: float
    level: float
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tolerances:
    logits: float
    gradient: float
    update: float


# Relative distances. "Seen" is the largest for all system knobs, alone and together, against plain fp32 on a CPU:
# six seeds of 2 layers of width 64, two of 4 of width 256, one of 6 of width 512. The update is the coarsest, for
# Adam's first step is the sign of the gradient: elements near zero flip, and the distance grows with the root of
# their share. Mistakes tried are 0.07 off in logits and gradient and more (a mask off by one, no mask, a loss that
# is not divided), 0.55 in the update (no bias correction), but 0.002 there where weight decay is forgotten.
_TOLERANCES: Mapping[str, _Tolerances] = {
    # Seen 7e-7, 6e-7, 6e-5: sums in another order. More is forgiven to other devices and deeper models.
    "fp32": _Tolerances(logits=1e-3, gradient=1e-3, update=1e-3),
    # Seen 8e-4, 8e-4, 0.03: ten bits of mantissa.
    "fp16_autocast": _Tolerances(logits=5e-3, gradient=5e-3, update=0.15),
    # Seen 7e-3, 7e-3, 0.10: seven bits. The update is forgiven fourfold only, to stay below the 0.55.
    "bf16_autocast": _Tolerances(logits=4e-2, gradient=4e-2, update=0.4),
    # Seen 9e-3, 9e-3, 0.10: the same bits in more places.
    "bf16_master": _Tolerances(logits=4e-2, gradient=4e-2, update=0.4),
    # The update is rounded away where the rate is small (seen 0.37 at a rate of 1e-4): what that does is for the loss
    # to show, as the non-inferiority of numerics asks.
    "bf16_pure": _Tolerances(logits=4e-2, gradient=4e-2, update=math.inf),
}

# Muon orthogonalises in bf16 whatever the dtype of training: seen 0.004 in fp32 on the same models, 0.05 and 0.11 in
# fp16 and bf16. A forgotten weight decay, 0.004 to 0.012 there, passes; what is wrong before the update does not.
_MUON_UPDATE = 2e-2


_ROUNDING_OF_PRODUCTS = {"highest": "fp32", "high": "fp16_autocast", "medium": "bf16_autocast"}
"""What fp32 products of a `matmul_precision` are as coarse as: TF32 has the ten bits of fp16."""


def rounding_of(*configs: TrainingConfig) -> str:
    """The coarsest arithmetic of any of `configs`, as a value of the knob `dtype`."""
    found = [name for c in configs for name in (c.dtype, _ROUNDING_OF_PRODUCTS[c.matmul_precision])]
    return max(found, key=list(_TOLERANCES).index)


def relative_distance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The norm of the difference over the norm of `theirs`, a ratio; infinite where it is not a number.

    Of two sketches that estimates the relative distance of what they stand for (Charikar, Chen &
    Farach-Colton 2002). Infinite, too, where their lengths differ or only `theirs` is zero.
    """
    if len(ours) != len(theirs):
        return math.inf
    difference = math.hypot(*(a - b for a, b in zip(ours, theirs, strict=True)))
    norm = math.hypot(*theirs)
    if difference == 0.0 and norm < math.inf:
        return 0.0
    distance = difference / norm if norm > 0.0 else math.inf
    return distance if math.isfinite(distance) and math.isfinite(norm) else math.inf


def equivalence(
    ours: Fingerprint, theirs: Fingerprint, *, dtype: str, optimizer: str = "adamw"
) -> Inequivalence | None:
    """Where two sessions of one seed do not compute the same, as far as rounding allows; None if they do.

    They may differ in system knobs and rounding; `dtype` is the coarser of theirs (`rounding_of`), and
    `optimizer` is that of both. The first difference on the way from logits to gradient to update is
    named, for the later ones follow.
    """
    tolerances = _TOLERANCES[dtype]
    if optimizer == "muon":
        tolerances = replace(tolerances, update=max(tolerances.update, _MUON_UPDATE))
    for what in ("logits", "gradient", "update"):
        distance = relative_distance(getattr(ours, what), getattr(theirs, what))
        tolerance: float = getattr(tolerances, what)
        if distance > tolerance:
            return Inequivalence(what=what, distance=distance, tolerance=tolerance)
    return None


def non_inferiority(log_efficiencies: Sequence[float], *, margin: float, level: float) -> NonInferiority | Unknown:
    """Whether the lower bound of the mean log efficiency over paired seeds lies above -`margin` (log units).

    The bound is mean - t(level, n - 1) * sd / sqrt(n), one-sided at `level` (0.95 is 95 %). Equal values
    give a bound without width: losses of equal bits have no noise. (Wellek 2010, Testing Statistical
    Hypotheses of Equivalence and Noninferiority, 2.2 and 5.3: one half of the two one-sided tests.)
    """
    values = np.asarray(log_efficiencies, dtype=np.float64)
    seeds = len(values)
    if seeds < 2:
        return Unknown(reason=f"{seeds} seed(s) show no spread between seeds: at least 2 are needed")
    if not np.all(np.isfinite(values)):
        return Unknown(reason="the token efficiency on a seed is not finite")
    mean = float(np.mean(values))
    half = 0.0
    if np.ptp(values) > 0:
        half = float(stats.t.ppf(level, seeds - 1)) * float(np.std(values, ddof=1)) / math.sqrt(seeds)
    low = mean - half
    return NonInferiority(is_shown=low > -margin, mean=mean, low=low, margin=margin, level=level, seeds=seeds)


def noise_scale(noise: GradientNoise) -> float | Unknown:
    """The simple noise scale tr(Sigma) / |G|^2 in sequences: the batch beyond which further ones help less and less.

    From squared norms at two batch sizes b < B by the unbiased estimators
    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b) and tr(Sigma) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)
    (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1). Their ratio is not unbiased.
    """
    small, large = noise.micro_batch, noise.batch
    if not 0 < small < large:
        return Unknown(reason=f"one batch of {large} sequences in micro-batches of {small}: two sizes are needed")
    of_small, of_large = noise.micro_square_norm, noise.square_norm
    if not (math.isfinite(of_small) and math.isfinite(of_large)):
        return Unknown(reason="the norm of a gradient is not finite")
    square_gradient = (large * of_large - small * of_small) / (large - small)
    trace = max(0.0, (of_small - of_large) / (1 / small - 1 / large))
    if not square_gradient > 0 or not math.isfinite(trace / square_gradient):
        return Unknown(reason=f"over {large} sequences the gradient cannot be told from its noise: more are needed")
    return trace / square_gradient
