"""The key figures of a report, in groups: speed, worth, ground, footprint; their effect on the plan.

Figures of what is shown and of what is only expected are never mixed.
"""

from __future__ import annotations

import dataclasses

from autotune.analysis.recommendation import Expectation, Footprint, Recommendation
from autotune.quantity import Quantity, Unknown
from autotune.report.changes import rest_of
from autotune.report.quantities import (
    NOT_KNOWN,
    Printer,
    Shown,
    duration,
    finite,
    money,
    percent,
    probability,
    significant,
    tokens,
)
from autotune.report.view import FigureGroup, KeyFigure
from autotune.report.words import plain


def pays_back(r: Recommendation) -> str:
    """The share of the plan, over all runs, after which the search has paid off; empty if unknown."""
    point, length = finite(r.break_even_tokens), finite(r.plan_tokens)
    if isinstance(point, Unknown) or isinstance(length, Unknown) or length.estimate <= 0:
        return ""
    total = r.plan.runs * length.estimate
    if point.estimate > total:
        return f"pays back after {tokens(point.estimate)} tokens, and your plan has {tokens(total)}"
    share = percent(point.estimate / total)
    return f"pays back after {share} of your plan ({tokens(point.estimate)} of {tokens(total)} tokens)"


def carried_figures(r: Recommendation, p: Printer) -> tuple[KeyFigure, ...]:
    """Savings per step and on the user's own plan."""
    saving = r.net_saving
    provenance = plain(saving.energy_provenance)
    figures = (
        KeyFigure(
            label="Time saved per step",
            shown=p.seconds(saving.seconds_per_step),
            note="per optimizer step of your baseline",
        ),
        KeyFigure(label="Device time saved", shown=p.hours(saving.hours), note="on the whole plan, net of the search"),
        KeyFigure(
            label="Money saved" if r.plan.device_hour_usd > 0 else "Net saving",
            shown=p.money(saving.money, r.plan.currency),
            note=f"net of search and adoption{_electricity(r)}",
        ),
        KeyFigure(label="Energy saved", shown=p.plain(saving.kwh, unit="kWh"), note=f"{provenance}, net of the search"),
    )
    return tuple(_without_idle_note(f) for f in figures)


def shown_figures(r: Recommendation, p: Printer) -> tuple[KeyFigure, ...]:
    """What the claimed part gains, in short."""
    _, hours, amount, _ = carried_figures(r, p)
    worth = (hours, amount) if r.plan.device_hour_usd > 0 else (hours,)  # unpriced, both are the same
    return tuple(_without_idle_note(f) for f in (_speedup(r, p), *worth, _roi(r, p)))


def expected_figures(r: Recommendation, expected: Expectation, p: Printer) -> tuple[KeyFigure, ...]:
    """What is expected at the plan's length, but not shown; all of the whole configuration except over the claimed."""
    over_claimed = KeyFigure(
        label="Expected speed-up over the claimed part",
        shown=p.ratio(expected.over_claimed),
        note="at your plan's length, cost of adopting it included",
    )
    figures = (
        *((over_claimed,) if r.claimed != r.baseline else ()),
        KeyFigure(
            label="Expected speed-up over your baseline",
            shown=p.ratio(expected.speedup),
            note="to the same loss, at your plan's length",
        ),
        KeyFigure(
            label="Expected throughput",
            shown=p.ratio(expected.throughput),
            note="vs your baseline",
        ),
        KeyFigure(
            label="Expected token efficiency",
            shown=p.ratio(expected.token_efficiency),
            note="vs your baseline, at your plan's length",
        ),
        KeyFigure(
            label="Probability of costing more",
            shown=_stated(probability(expected.probability_worse)),
            note=f"compared with {rest_of(r)}",
        ),
        KeyFigure(
            label="Expected device time saved",
            shown=p.hours(expected.hours),
            note="by the whole configuration on the whole plan, net of the search",
        ),
        KeyFigure(
            label="Expected money saved" if r.plan.device_hour_usd > 0 else "Expected net saving",
            shown=p.money(expected.money, r.plan.currency),
            note="by the whole configuration, net of search and adoption",
        ),
        KeyFigure(label="Expected ROI", shown=p.plain(expected.roi), note="of the whole configuration"),
    )
    return tuple(map(_without_idle_note, figures))


def _speedup(r: Recommendation, p: Printer) -> KeyFigure:
    return KeyFigure(label="Speed-up to the same loss", shown=p.ratio(r.over_baseline.speedup), note="")


def _roi(r: Recommendation, p: Printer) -> KeyFigure:
    chance = probability(r.roi.probability_positive)
    certainty = "" if chance == NOT_KNOWN else f"probability of any saving: {chance}"
    return KeyFigure(label="ROI", shown=p.plain(r.roi.ratio), note=certainty)


def _electricity(r: Recommendation) -> str:
    """Where the electricity in a sum of money comes from, if it is paid separately."""
    if not r.plan.pays_for_energy:
        return ""
    if isinstance(r.net_saving.baseline_watts, Unknown):
        return "; electricity not included"
    return f"; includes electricity, {plain(r.net_saving.energy_provenance)}"


def figure_groups(r: Recommendation, p: Printer) -> tuple[FigureGroup, ...]:
    spent = f"{duration(r.search_cost.total_seconds)}, {money(r.search_cost.money, r.plan.currency)}"
    adoption = f"plus {money(r.search_cost.adoption_money, r.plan.currency)} to adopt"
    plan_label = "Plan as recommended" if r.recommended == r.claimed else "Plan with the claimed part"
    claimed_plan = KeyFigure(label=plan_label, shown=p.hours(r.claimed_hours), note="device time")
    is_repeated = r.recommended != r.claimed == r.baseline  # it is the plan with the baseline
    groups = (
        FigureGroup(
            title="Speed",
            figures=(
                _speedup(r, p),
                KeyFigure(label="Throughput", shown=p.ratio(r.over_baseline.throughput), note="vs your baseline"),
                KeyFigure(
                    label="Token efficiency",
                    shown=p.ratio(r.over_baseline.token_efficiency),
                    note="vs your baseline, at the tested token budget",
                ),
                KeyFigure(
                    label="Speed-up vs hand-tuned default",
                    shown=p.ratio(r.over_expert.speedup),
                    note="vs what a careful engineer sets without measuring, at the tested token budget",
                ),
            ),
        ),
        FigureGroup(
            title="Return",
            figures=(
                _roi(r, p),
                KeyFigure(label="Break-even", shown=p.tokens(r.break_even_tokens), note=pays_back(r)),
                KeyFigure(
                    label="Search cost", shown=_stated(spent), note=adoption if r.search_cost.adoption_money else ""
                ),
            ),
        ),
        FigureGroup(
            title="Baseline and plan",
            figures=(
                KeyFigure(
                    label="Baseline throughput",
                    shown=p.plain(r.baseline_tokens_per_second, unit="tokens/s"),
                    note="measured on this machine",
                ),
                KeyFigure(label="Plan with your baseline", shown=p.hours(r.baseline_hours), note="device time"),
                *(() if is_repeated else (claimed_plan,)),
                KeyFigure(
                    label="Noise floor",
                    shown=p.percent(r.noise_floor),
                    note="smallest difference this machine can resolve",
                ),
            ),
        ),
        FigureGroup(
            title="Footprint",
            figures=(
                _footprint("Baseline footprint", r.baseline_footprint, _draw(r.net_saving.baseline_watts, r, p)),
                _footprint("Candidate footprint", r.candidate_footprint, _draw(r.net_saving.candidate_watts, r, p)),
            ),
        ),
    )
    return tuple(dataclasses.replace(g, figures=tuple(map(_without_idle_note, g.figures))) for g in groups)


def _draw(watts: Quantity, r: Recommendation, p: Printer) -> str:
    """The mean power draw and its source; empty if unknown, as the saved energy then says."""
    shown = p.plain(watts, unit="W")
    return f", {shown.text} {plain(r.net_saving.energy_provenance)}" if shown.is_known else ""


def _footprint(label: str, footprint: Footprint | Unknown, draw: str) -> KeyFigure:
    if isinstance(footprint, Unknown):
        reason = plain(footprint.reason)
        shown = Shown(text=f"{NOT_KNOWN}: {reason}", value=NOT_KNOWN, interval="", reason=reason, bounds=())
        return KeyFigure(label=label, shown=shown, note="")
    mfu = NOT_KNOWN if isinstance(footprint.mfu, Unknown) else percent(footprint.mfu)
    memory = f"{significant(footprint.peak_memory_bytes / 2**30)} GiB peak memory"
    return KeyFigure(
        label=label, shown=_stated(f"{footprint.parameters:,} parameters"), note=f"{memory}, MFU {mfu}{draw}"
    )


def _without_idle_note(figure: KeyFigure) -> KeyFigure:
    """`figure` without its note if there is no number for it to explain."""
    return figure if figure.shown.is_known else dataclasses.replace(figure, note="")


def _stated(text: str) -> Shown:
    """A figure known exactly, without an interval."""
    return Shown(text=text, value=text, interval="", reason="", bounds=(0.0,))
