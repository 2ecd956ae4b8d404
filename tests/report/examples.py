"""Realistic recommendations, of every decision and every guard, for the tests of everything that shows them."""

from __future__ import annotations

from dataclasses import replace

from autotune.analysis.decision import Expected, Prospect, RaceInRun, decided
from autotune.analysis.recommendation import Comparison, Recommendation, Roi
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration

from .caveat_examples import CAVEATS
from .search_examples import BASELINE, LEARNING, WINNER, claimed, expectation, keep, not_informative, too_short


def hopeful(base: Configuration, prospect: Prospect, *, runs: int, has_baseline_log: bool = False) -> Recommendation:
    """The decision on learning knobs with that prospect over `base`, which is claimed unless it is the baseline."""
    r = claimed()
    config = base.with_values(LEARNING)
    decision = decided(config, prospect, runs=runs, has_baseline_log=has_baseline_log)
    assert decision is not None
    r = replace(
        r,
        decision=decision,
        recommended=decision.config if isinstance(decision, Expected) else base,
        plan=replace(r.plan, runs=runs),
        baseline_hours=r.baseline_hours.scaled(runs / 4),
        claimed_hours=r.claimed_hours.scaled(runs / 4),
        expectation=expectation(base, prospect, speedup=1.0 if base == BASELINE else 1.4213, hours=23.6 * runs),
    )
    if base == WINNER:
        return r
    none = Unknown(reason="no gain found was shown to last for the whole plan")
    nothing = Comparison(speedup=none, throughput=none, token_efficiency=none)
    saving = replace(r.net_saving, seconds_per_step=none, hours=none, money=none, kwh=none, candidate_watts=none)
    return replace(
        r,
        candidate=BASELINE,
        claimed=BASELINE,
        over_baseline=nothing,
        over_expert=nothing,
        claimed_hours=r.baseline_hours,
        candidate_footprint=r.baseline_footprint,
        net_saving=saving,
        roi=Roi(ratio=none, probability_positive=float("nan")),
        break_even_tokens=none,
    )


def expected() -> Recommendation:
    """Recommended on top of the claimed part; run 1 is the look, against a log that the user has."""
    return hopeful(WINNER, Prospect(mean=0.18, sd=0.20), runs=4, has_baseline_log=True)


def expected_with_a_run_to_look() -> Recommendation:
    """The same with a plan so long that a run of the baseline's learning knobs pays."""
    return hopeful(WINNER, Prospect(mean=0.16, sd=0.36), runs=40)


def expected_alone() -> Recommendation:
    """Nothing is claimed, and the only run is raced against the baseline from two trunks."""
    return hopeful(BASELINE, Prospect(mean=0.35, sd=0.50), runs=1)


def expected_unguarded() -> Recommendation:
    """So probable that a race would cost more than it saves."""
    return hopeful(BASELINE, Prospect(mean=0.30, sd=0.10), runs=1)


def expected_speed() -> Recommendation:
    """Recommended on top of the claimed part for its speed alone, which no restart confirmed."""
    r = expected()
    config, prospect = WINNER.with_values({"compile": "default"}), Prospect(mean=0.15, sd=0.04)
    decision = decided(config, prospect, runs=4, has_baseline_log=False, is_speed_alone=True)
    assert isinstance(decision, Expected)
    beyond = replace(expectation(WINNER, prospect, speedup=1.4213, hours=23.6 * 4), config=config)
    return replace(
        r,
        decision=decision,
        recommended=config,
        expectation=replace(beyond, knobs={"compile": "default"}),
        caveats=(*r.caveats, CAVEATS["speed_is_expected"]),
    )


def race() -> Recommendation:
    """Only worth trying because it can be dropped; nothing is claimed."""
    return hopeful(BASELINE, Prospect(mean=0.10, sd=0.40), runs=10)


def race_over_the_claimed() -> Recommendation:
    """Raced from two trunks on top of the claimed part."""
    r = hopeful(WINNER, Prospect(mean=0.20, sd=0.50), runs=1)
    assert isinstance(r.decision, RaceInRun)
    return r


EXAMPLES = {
    "claimed": claimed,
    "expected": expected,
    "expected_with_a_run_to_look": expected_with_a_run_to_look,
    "expected_alone": expected_alone,
    "expected_unguarded": expected_unguarded,
    "expected_speed": expected_speed,
    "race": race,
    "race_over_the_claimed": race_over_the_claimed,
    "keep": keep,
    "not_informative": not_informative,
    "too_short": too_short,
}
