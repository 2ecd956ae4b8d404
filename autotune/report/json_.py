"""The report as data: the published form of a `Recommendation`, described by `docs/report.schema.json`."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, assert_never

from autotune.analysis.caveat import Caveat
from autotune.analysis.decision import (
    Claimed,
    Decision,
    Expected,
    Guard,
    Keep,
    Look,
    NotInformative,
    RaceInRun,
    Trunks,
    Unguarded,
    Watch,
)
from autotune.analysis.recommendation import (
    Comparison,
    Contender,
    Curve,
    Expectation,
    Footprint,
    Recommendation,
    TechniqueEffect,
    TrialSummary,
)
from autotune.quantity import Interval, Quantity, Unknown
from autotune.report.quantities import finite
from autotune.report.view import View
from autotune.space.plan import Plan
from autotune.workload.machine import Corpus

SCHEMA_VERSION = 2
"""Increased when a field changes its meaning or is removed, but not for a new field alone."""


def render_json(recommendation: Recommendation, view: View) -> str:
    """The text of `report.json`. Never contains NaN or Infinity.

    Raises:
        ValueError: a plain figure that must always be known (a cost, a time) is not finite.
    """
    return json.dumps(_report(recommendation, view), indent=2, allow_nan=False) + "\n"


def _report(r: Recommendation, view: View) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "autotune_version": view.version,
        "study": view.study,
        "space": view.space,
        "created_at": view.created_at,
        "verdict": r.verdict.value,
        "decision": _decision(r.decision),
        "headline": view.headline,
        "why": list(view.why),
        "baseline": dict(r.baseline),
        "expert_default": dict(r.expert_default),
        "candidate": dict(r.candidate),
        "claimed": dict(r.claimed),
        "recommended": dict(r.recommended),
        "speedup": _both(r, "speedup"),
        "throughput": _both(r, "throughput"),
        "token_efficiency": _both(r, "token_efficiency"),
        "plan": _plan(r.plan, r.plan_tokens),
        "baseline_rate": {
            "tokens_per_second": _quantity(r.baseline_tokens_per_second),
            "plan_hours": _quantity(r.baseline_hours),
            "claimed_plan_hours": _quantity(r.claimed_hours),
        },
        "footprint": {
            "baseline": _footprint(r.baseline_footprint),
            "candidate": _footprint(r.candidate_footprint),
        },
        "net_saving": {
            "seconds_per_step": _quantity(r.net_saving.seconds_per_step),
            "hours": _quantity(r.net_saving.hours),
            "money": _quantity(r.net_saving.money),
            "currency": r.plan.currency,
            "kwh": _quantity(r.net_saving.kwh),
            "baseline_watts": _quantity(r.net_saving.baseline_watts),
            "candidate_watts": _quantity(r.net_saving.candidate_watts),
            "energy_provenance": r.net_saving.energy_provenance,
        },
        "roi": {**_quantity(r.roi.ratio), "probability_positive": _probability(r.roi.probability_positive)},
        "break_even_tokens": _quantity(r.break_even_tokens),
        "search_cost": {
            "total_seconds": r.search_cost.total_seconds,
            "money": r.search_cost.money,
            "adoption_money": r.search_cost.adoption_money,
            "currency": r.plan.currency,
            "seconds_by_stage": dict(r.search_cost.seconds_by_stage),
            "seconds_by_activity": dict(r.search_cost.seconds_by_activity),
        },
        "noise_floor": _quantity(r.noise_floor),
        "curve": _curve(r.curve),
        "techniques": [_technique(t) for t in r.techniques],
        "expectation": _expectation(r.expectation, r.plan.currency),
        "noise_scales": [
            {
                "horizon_tokens": s.horizon_tokens,
                "batch": s.batch,
                "sequences": {"unknown": s.sequences.reason} if isinstance(s.sequences, Unknown) else s.sequences,
            }
            for s in r.noise_scales
        ],
        "runners_up": [_contender(c) for c in r.runners_up],
        "trials": [_trial(t) for t in r.trials],
        "trials_by_outcome": _by_outcome(r.trials),
        "text": _text(r.corpus),
        "environment": dict(r.environment),
        "caveats": [
            {"kind": words.kind, "details": _details(c), "title": words.title, "text": words.text}
            for c, words in zip(r.caveats, view.caveats, strict=True)
        ],
    }


def _text(corpus: Corpus) -> dict[str, Any]:
    facts = dataclasses.asdict(corpus)
    return {**facts, "left_out": [{**row, "examples": list(row["examples"])} for row in facts["left_out"]]}


def _quantity(quantity: Quantity) -> dict[str, Any]:
    known = finite(quantity)
    match known:
        case Interval():
            return dataclasses.asdict(known)
        case Unknown(reason=reason):
            return {"unknown": reason}
        case _:
            assert_never(known)


def _decision(decision: Decision) -> dict[str, Any]:
    match decision:
        case Claimed(config=config):
            return {"kind": "claimed", "configuration": dict(config)}
        case Expected():
            return {"kind": "expected", **_prospective(decision)}
        case RaceInRun():
            return {"kind": "race", **_prospective(decision)}
        case Keep():
            return {"kind": "keep"}
        case NotInformative(reason=reason, tokens=tokens, cost_seconds=seconds):
            return {"kind": "not_informative", "reason": reason, "tokens": tokens, "cost_seconds": seconds}
        case _:
            assert_never(decision)


def _prospective(decision: Expected | RaceInRun) -> dict[str, Any]:
    return {
        "configuration": dict(decision.config),
        "guard": _guard(decision.guard),
        "probability_worse": _probability(decision.prospect.probability_worse),
        "expected_cost": decision.cost,
        "expected_cost_unguarded": decision.prospect.expected_cost,
    }


def _guard(guard: Guard) -> dict[str, Any]:
    match guard:
        case Look(needs_run=needs_run):
            return {"kind": "look", "needs_run": needs_run}
        case Trunks(share=share):
            return {"kind": "trunks", "share": share}
        case Watch():
            return {"kind": "watch"}
        case Unguarded():
            return {"kind": "unguarded"}
        case _:
            assert_never(guard)


def _expectation(expectation: Expectation | Unknown, currency: str) -> dict[str, Any]:
    if isinstance(expectation, Unknown):
        return {"unknown": expectation.reason}
    return {
        "configuration": dict(expectation.config),
        "knobs": dict(expectation.knobs),
        "speedup": _quantity(expectation.speedup),
        "throughput": _quantity(expectation.throughput),
        "token_efficiency": _quantity(expectation.token_efficiency),
        "over_claimed": _quantity(expectation.over_claimed),
        "probability_worse": _probability(expectation.probability_worse),
        "hours": _quantity(expectation.hours),
        "money": _quantity(expectation.money),
        "currency": currency,
        "roi": _quantity(expectation.roi),
    }


def _footprint(footprint: Footprint | Unknown) -> dict[str, Any]:
    if isinstance(footprint, Unknown):
        return {"unknown": footprint.reason}
    mfu = footprint.mfu
    return {
        "parameters": footprint.parameters,
        "peak_memory_bytes": footprint.peak_memory_bytes,
        "mfu": {"unknown": mfu.reason} if isinstance(mfu, Unknown) else mfu,
    }


def _both(r: Recommendation, name: str) -> dict[str, Any]:
    def of(comparison: Comparison) -> dict[str, Any]:
        return _quantity(getattr(comparison, name))

    return {"over_baseline": of(r.over_baseline), "over_expert_default": of(r.over_expert)}


def _plan(plan: Plan, length: Quantity) -> dict[str, Any]:
    """The plan as the user gave it, and the length of a run."""
    return {**dataclasses.asdict(plan), "currency": plan.currency, "expected_tokens": _quantity(length)}


def _probability(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _details(caveat: Caveat) -> dict[str, Any]:
    """A caveat's fields; numbers that JSON cannot hold are text."""
    fields = dataclasses.asdict(caveat).items()
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields}


def _curve(curve: Curve | Unknown) -> dict[str, Any]:
    match curve:
        case Unknown(reason=reason):
            return {"unknown": reason}
        case Curve():
            return {
                "points": [{"tokens": d, "loss": loss} for d, loss in curve.points],
                "irreducible": curve.irreducible,
                "amplitude": curve.amplitude,
                "exponent": curve.exponent,
            }


def _technique(t: TechniqueEffect) -> dict[str, Any]:
    return {
        "name": t.name,
        "title": t.title,
        "section": t.section,
        "class": t.knob_class.value,
        "complexity": int(t.complexity),
        "baseline_value": t.baseline_value,
        "value": t.value,
        "speed_effect": _quantity(t.speed_effect),
        "quality_effect": _quantity(t.quality_effect),
        "saving": _quantity(t.saving),
        "roi": _quantity(t.roi),
        "break_even_tokens": _quantity(t.break_even_tokens),
        "verdict": t.verdict.value,
        "reason": t.reason,
    }


def _contender(c: Contender) -> dict[str, Any]:
    return {
        "label": c.label,
        "config": dict(c.config),
        "speedup": _quantity(c.speedup),
        "trial_numbers": list(c.trial_numbers),
    }


def _trial(t: TrialSummary) -> dict[str, Any]:
    return {
        "number": t.number,
        "stage": t.stage,
        "label": t.label,
        "outcome": t.outcome,
        "reason": t.reason,
        "throughput_ratio": _quantity(t.throughput_ratio),
        "loss": _quantity(t.loss),
        "cost_seconds": t.cost_seconds,
    }


def _by_outcome(trials: tuple[TrialSummary, ...]) -> dict[str, Any]:
    outcomes = dict.fromkeys(t.outcome for t in trials)
    return {
        outcome: {
            "trials": [t.number for t in trials if t.outcome == outcome],
            "cost_seconds": sum(t.cost_seconds for t in trials if t.outcome == outcome),
        }
        for outcome in outcomes
    }
