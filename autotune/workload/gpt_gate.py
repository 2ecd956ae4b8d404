"""Tolerances of the built-in GPT's equivalence gate: how far rounding may move a session from the baseline."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from autotune.space.configuration import Configuration
from autotune.workload.base import CompareSketches

# Relative distances. "Seen" is the largest over all system knobs, alone and together, against plain fp32 on a CPU:
# six seeds of 2 layers of width 64, two of 4 of width 256, one of 6 of width 512. The update is the coarsest:
# Adam's first step is the sign of the gradient, so elements near zero flip, and the distance grows with the root of
# their share. Deliberate mistakes are at least 0.07 off in logits and gradient (a mask off by one, no mask, a loss
# that is not divided) and 0.55 in the update (no bias correction), but only 0.002 there if weight decay is left out.
_BY_DTYPE: Mapping[str, CompareSketches] = {
    # Seen 7e-7, 6e-7, 6e-5: a different order of summation. The margin is for other devices and deeper models.
    "fp32": CompareSketches(logits=1e-3, gradient=1e-3, update=1e-3),
    # Seen 8e-4, 8e-4, 0.03: ten bits of mantissa.
    "fp16_autocast": CompareSketches(logits=5e-3, gradient=5e-3, update=0.15),
    # Seen 7e-3, 7e-3, 0.10: seven bits. The update's margin is only fourfold, to stay below the 0.55.
    "bf16_autocast": CompareSketches(logits=4e-2, gradient=4e-2, update=0.4),
    # Seen 9e-3, 9e-3, 0.10: the same bits in more places.
    "bf16_master": CompareSketches(logits=4e-2, gradient=4e-2, update=0.4),
    # At a small learning rate the update is rounded away (seen 0.37 at a rate of 1e-4). The loss shows what that
    # costs: the non-inferiority test of precision covers it.
    "bf16_pure": CompareSketches(logits=4e-2, gradient=4e-2, update=math.inf),
}

# Muon orthogonalises in bf16 at any training dtype: seen 0.004 in fp32 on the same models, 0.05 and 0.11 in
# fp16 and bf16. A missing weight decay (0.004 to 0.012) passes; mistakes before the update do not.
_MUON_UPDATE = 2e-2

_ROUNDING_OF_PRODUCTS = {"highest": "fp32", "high": "fp16_autocast", "medium": "bf16_autocast"}
"""The dtype with the same rounding as fp32 products at each `matmul_precision`: TF32 has the ten bits of fp16."""


def tolerances_of(configuration: Configuration, baseline: Configuration) -> CompareSketches:
    """Tolerances for two sessions of one seed: the coarser precision of the two, and the configuration's optimizer."""
    both = (configuration, baseline)
    found = [*(str(c["dtype"]) for c in both), *(_ROUNDING_OF_PRODUCTS[str(c["matmul_precision"])] for c in both)]
    tolerances = _BY_DTYPE[max(found, key=list(_BY_DTYPE).index)]
    if configuration["optimizer"] == "muon":
        return dataclasses.replace(tolerances, update=max(tolerances.update, _MUON_UPDATE))
    return tolerances
