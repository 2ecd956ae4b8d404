"""Sequential selection for the race (docs/method.md, 6.1)."""

from __future__ import annotations

import numpy as np

from autotune.analysis.rates import FloatArray


def survivors(observations: FloatArray, *, delta: float, alpha: float, first_stage: int = 5) -> tuple[int, ...]:
    """The candidates still in the race after all given blocks: Kim and Nelson's sequential selection.

    `observations` has shape (blocks, candidates): X = ln S, NaN from the block in which a candidate stopped
    running; `delta` is the smallest lead worth finding, in the same log units. With n0 = `first_stage` blocks
    and k candidates, eta = ((2*alpha / (k - 1))^(-2 / (n0 - 1)) - 1) / 2 and h^2 = 2*eta*(n0 - 1). After
    block r >= n0, i is eliminated if sum X_i < sum X_l - max(0, delta/2 * (h^2 * S_il^2 / delta^2 - r)) for
    some remaining l, where S_il^2 is the variance of X_i - X_l over the first n0 blocks. The best is among the
    survivors with probability 1 - alpha if it leads by delta. Blocks in which no candidate ran are ignored.
    Before `first_stage` blocks only candidates that stopped running are eliminated. (Kim & Nelson 2001,
    TOMACS 11, with c = 1.)
    """
    candidates = observations.shape[1]
    known = np.where(np.isfinite(observations), observations, np.nan)
    blocks = known[~np.all(np.isnan(known), axis=1)]
    if candidates < 2 or len(blocks) < first_stage or not delta > 0:
        return tuple(np.flatnonzero(~np.isnan(blocks).any(axis=0)).tolist())

    degrees = first_stage - 1
    eta = ((2 * alpha / (candidates - 1)) ** (-2 / degrees) - 1) / 2
    h_squared = 2 * eta * degrees
    first = blocks[:first_stage]
    variances = np.var(first[:, :, None] - first[:, None, :], axis=0, ddof=1)  # (candidates, candidates)

    racing = np.arange(candidates)
    for r in range(first_stage, len(blocks) + 1):
        racing = racing[~np.isnan(blocks[:r, racing]).any(axis=0)]
        sums = blocks[:r, racing].sum(axis=0)
        lead = sums[None, :] - sums[:, None]  # lead of the column over the row
        allowed = np.maximum(0.0, delta / 2 * (h_squared * variances[np.ix_(racing, racing)] / delta**2 - r))
        racing = racing[~(lead > allowed).any(axis=1)]
    return tuple(racing.tolist())
