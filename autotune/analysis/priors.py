"""What is known before a search about how learning changes with the token budget: the table of docs/method.md, 9.3.

Every entry is an expectation with a standard deviation, never a fact about the user's model; a search measures, and
combines what it measured with these by precision. All quantities are natural logarithms; a slope is per unit of the
natural logarithm of the token budget. ln e is the logarithm of token efficiency over the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autotune.space.knobs import KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """An expectation: `mean` with standard deviation `sd`, where it comes from, and what it was shown for."""

    name: str
    mean: float
    sd: float
    source: str
    valid: str


RATE_CURVATURE = Prior(
    name="loss of ln e per squared ln of the learning rate off its optimum",
    mean=0.30,
    sd=0.20,
    source="0.20 in 1,911 runs of Step Law (arXiv 2503.04715); 0.31 to 0.46 in benchmarks/horizons.py",
    valid="within a factor of 4 of the optimum; half a million to a billion parameters",
)
BATCH_CURVATURE = Prior(
    name="loss of ln e per squared ln of the batch off its optimum",
    mean=0.17,
    sd=0.10,
    source="1,911 runs of Step Law (arXiv 2503.04715)",
    valid="within a factor of 4 of the optimum",
)
RATE_WITH_BATCH = Prior(
    name="cross term of ln of the learning rate and ln of the batch",
    mean=-0.13,
    sd=0.08,
    source="1,911 runs of Step Law (arXiv 2503.04715)",
    valid="AdamW",
)
RATE_SLOPE = Prior(
    name="slope of ln of the best learning rate at a fixed batch",
    mean=-0.05,
    sd=0.25,
    source="from -0.31 (batches far below the best; arXiv 2409.19913) to +0.30 (at or above it; arXiv 2503.04715)",
    valid="any regime; the sign depends on the batch, so it is never fixed",
)
BATCH_SLOPE = Prior(
    name="slope of ln of the best batch at a fixed learning rate",
    mean=0.40,
    sd=0.30,
    source="0.57 along the best rate (arXiv 2503.04715), less the cross term; 0.47 in arXiv 2410.21676",
    valid="AdamW; widened below 40 M parameters",
)
OTHER_SLOPE = Prior(
    name="slope of ln e of any other learning knob",
    mean=0.0,
    sd=0.20,
    source="1,031 comparisons on recorded runs: with 0.20 nominal 90 % intervals held 91-96 %, with 0.10 only 72-82 %",
    valid="factors of 2 to 25 in the token budget",
)
SLOPE_CHANGE = Prior(
    name="slope beyond the longest budget measured, less the slope measured",
    mean=0.0,
    sd=0.20,
    source="docs/method.md, 9.3",
    valid="any knob",
)
AREA = Prior(
    name="what ln e per ln of the area under the schedule falls by from one token budget to the next, 4 times longer",
    mean=0.15,
    sd=0.20,
    source="benchmarks/horizons.py: 0.82, 0.68, 0.50 and 0.41 at 32, 128, 512 and 2,048 steps",
    valid="trials of tens to thousands of steps",
)
USERS_RATE = Prior(
    name="ln of the best learning rate of the plan over the baseline's",
    mean=0.0,
    sd=1.0,
    source="assumed: a rate in use is within a factor of e of the best, give or take",
    valid="baselines that somebody trains with today",
)
USERS_BATCH = Prior(
    name="ln of the best batch of the plan over the baseline's",
    mean=0.0,
    sd=1.5,
    source="assumed: batches follow the memory as much as the loss",
    valid="baselines that somebody trains with today",
)
OTHER_LEVEL = Prior(
    name="ln e of any other learning knob before it is measured",
    mean=0.0,
    sd=0.20,
    source="assumed from the entries of this table",
    valid="any knob without an entry of its own",
)
INTERACTION = Prior(
    name="ln e of knobs turned together, less the sum of each alone, per further knob",
    mean=0.0,
    sd=0.05,
    source="assumed",
    valid="any knobs but the learning rate with the batch",
)

_COSINE = Prior(name="cosine, the reference", mean=0.0, sd=0.0, source="by definition", valid="always")
_CURVES = "multi-power-law curves (arXiv 2503.12811); at equal peak rate"
SCHEDULES: Mapping[KnobValue, Prior] = MappingProxyType(
    {
        "constant": Prior(name="constant over cosine, ln e", mean=-0.65, sd=0.4, source=_CURVES, valid="long runs"),
        "wsd": Prior(name="wsd over cosine, ln e", mean=0.15, sd=0.2, source=_CURVES, valid="long runs, 20 % decay"),
    }
)
"""ln e at the plan's length, against cosine. Twice the sd found: it was found in larger models."""


def schedule_over(value: KnobValue, other: KnobValue) -> Prior:
    """ln e of one schedule over another at the plan's length."""
    ours, theirs = (SCHEDULES.get(v, _COSINE if v == "cosine" else OTHER_LEVEL) for v in (value, other))
    return Prior(
        name=f"{value} over {other}, ln e",
        mean=ours.mean - theirs.mean,
        sd=math.hypot(ours.sd, theirs.sd),
        source=_CURVES,
        valid=ours.valid,
    )
