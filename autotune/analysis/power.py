"""The power draw of training: measured, else estimated, else unknown with a reason (docs/method.md, 7). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.analysis.rates import interval_over_restarts
from autotune.quantity import Interval, Unknown
from autotune.space.plan import Plan
from autotune.trial.types import Slice, TrialRecord

ESTIMATED = "estimated from device_watts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The mean power draw of training, in ln of watts, without facility overhead.

    `ratio` is `candidate` over `baseline`, taken block by block, so that other load on the machine is in both.
    Each interval is over restarts, by Student's t with `degrees_of_freedom`. `provenance` is shown with every
    figure derived from this.
    """

    baseline: Interval
    candidate: Interval
    ratio: Interval
    degrees_of_freedom: float
    provenance: str


def measured_power(records: Sequence[TrialRecord], *, level: float) -> Power | Unknown:
    """The power measured in the records of one configuration, one restart each, paired with baseline slices.

    A restart gives joules over seconds of all its paired slices, because the meter is slower than a slice.
    """
    pairs = [pair for record in records if (pair := _watts_of(record))]
    if not pairs or min(map(min, pairs)) <= 0.0:
        return Unknown(reason=_why_not(records, is_read=bool(pairs)))
    baseline = interval_over_restarts([math.log(theirs) for _, theirs in pairs], level)
    candidate = interval_over_restarts([math.log(ours) for ours, _ in pairs], level)
    ratio = interval_over_restarts([math.log(ours / theirs) for ours, theirs in pairs], level)
    if isinstance(baseline, Unknown) or isinstance(candidate, Unknown) or isinstance(ratio, Unknown):
        return Unknown(reason=f"the energy meter was read in {len(pairs)} of at least 2 restarts")
    return Power(
        baseline=baseline,
        candidate=candidate,
        ratio=ratio,
        degrees_of_freedom=float(len(pairs) - 1),
        provenance=f"measured ({_meter_of(records)})",
    )


def power_of(plan: Plan, measured: Power | Unknown) -> Power | Unknown:
    """The measured power; else the plan's `device_watts`, the same for every configuration; else why neither."""
    if isinstance(measured, Power):
        return measured
    if plan.device_watts <= 0:
        return Unknown(reason=f"{measured.reason} and the plan names no device_watts")
    watts = Interval.exactly(math.log(plan.device_watts))
    return Power(
        baseline=watts,
        candidate=watts,
        ratio=Interval.exactly(0.0),
        degrees_of_freedom=1.0,
        provenance=ESTIMATED,
    )


def _watts_of(record: TrialRecord) -> tuple[float, float] | None:
    """Mean watts of a record and of its partner, over the rounds in which both were metered."""
    ours, theirs = (
        {s.round: s for s in slices if s.round >= 0 and s.energy_joules is not None and s.seconds > 0}
        for slices in (record.slices, record.reference_slices)
    )
    shared = ours.keys() & theirs.keys()
    if not shared:
        return None
    return _mean_watts([ours[r] for r in shared]), _mean_watts([theirs[r] for r in shared])


def _mean_watts(slices: Sequence[Slice]) -> float:
    return math.fsum(s.energy_joules or 0.0 for s in slices) / math.fsum(s.seconds for s in slices)


def _meter_of(records: Sequence[TrialRecord]) -> str:
    """What the workers reported about their meter; empty if they are too old to report it."""
    return next((told for r in records for ready in r.ready if (told := ready.environment.get("energy_meter"))), "")


def _why_not(records: Sequence[TrialRecord], *, is_read: bool) -> str:
    told = _meter_of(records)
    if is_read:
        return f"the energy meter ({told}) did not advance"
    return f"no energy meter was read ({told})" if told else "no energy meter was read"
