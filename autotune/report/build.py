"""From a recommendation to the view model of its report: everything is worded and formatted here, once."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.analysis.decision import Keep, NotInformative
from autotune.analysis.recommendation import (
    Comparison,
    Curve,
    Recommendation,
    TechniqueEffect,
    TrialSummary,
)
from autotune.quantity import Interval, Quantity, Unknown
from autotune.report import words
from autotune.report.changes import changes_of, difference, toml_of
from autotune.report.decision_words import headline, subject, why
from autotune.report.key_figures import carried_figures, figure_groups
from autotune.report.parts import parts_of, unused_part
from autotune.report.quantities import (
    NOT_KNOWN,
    Printer,
    Shown,
    duration,
    finite,
    money,
    significant,
    tokens,
)
from autotune.report.text_words import text_rows
from autotune.report.view import (
    CaveatView,
    ComparisonRow,
    CurveView,
    OutcomeGroup,
    RunnerUp,
    Share,
    TechniqueRow,
    TrialRow,
    View,
)
from autotune.report.words import count, plain
from autotune.space.plan import Plan


def build_view(
    recommendation: Recommendation,
    *,
    study: str,
    created_at: str,
    version: str = "",
    space: str = "",
    folder: str = "",
) -> View:
    """Put `recommendation` into words.

    `created_at` is a time in ISO 8601; `folder` is the folder of the written report, empty if none is written.
    """
    r = recommendation
    p = Printer(_level(r))
    is_recommended = not isinstance(r.decision, Keep | NotInformative)
    return View(
        study=plain(study),
        space=plain(space),
        version=plain(version),
        created_at=plain(created_at),
        folder=plain(folder),
        verdict=r.verdict.value,
        verdict_word=words.verdict_word(r.verdict),
        headline=headline(r),
        why=tuple(why(r, p, plain(study))),
        subject=subject(r),
        level=f"{p.level * 100:g} %",
        plan=_plan(r.plan, p.tokens(r.plan_tokens)),
        parts=parts_of(r, p, plain(study)),
        carried=carried_figures(r, p),
        groups=figure_groups(r, p),
        changes_title="What to change" if is_recommended else "What the best candidate changes (not recommended)",
        value_title="Recommended" if is_recommended else "Candidate",
        changes=changes_of(r, r.recommended if is_recommended else r.candidate),
        toml=toml_of(r.recommended, r.baseline),
        comparisons=(
            _comparison("vs your baseline", r.over_baseline, p),
            _comparison("vs the hand-tuned default", r.over_expert, p),
        ),
        noise_floor=p.percent(r.noise_floor),
        techniques=tuple(_technique(t, p, r) for t in r.techniques),
        unused=unused_part(r, p),
        noise_text=_noise_text(r),
        curve=_curve(r.curve),
        search_text=_search_text(r),
        stages=_shares({words.stage_word(k): v for k, v in r.search_cost.seconds_by_stage.items()}),
        activities=_shares({words.activity_word(k): v for k, v in r.search_cost.seconds_by_activity.items()}),
        runners_up=tuple(
            RunnerUp(
                label=words.label_word(c.label),
                changes=difference(r.baseline, c.config) or "same as the baseline",
                speedup=p.ratio(c.speedup),
                trials=", ".join(map(str, c.trial_numbers)),
            )
            for c in r.runners_up
        ),
        trials_text=f"{count(len(r.trials), 'trial')}, {duration(sum(t.cost_seconds for t in r.trials))} in total",
        outcomes=_outcomes(r.trials, p),
        text=text_rows(r.corpus),
        environment=tuple((plain(k.replace("_", " ")), plain(v)) for k, v in r.environment.items()),
        caveats=tuple(
            CaveatView(kind=words.caveat_kind(c), title=title, text=text)
            for c in r.caveats
            for title, text in [words.caveat_words(c)]
        ),
        reading=words.READING,
    )


def _level(r: Recommendation) -> float:
    """The level of the first known quantity; intervals at this level are printed without it."""
    quantities = (r.over_baseline.speedup, r.over_expert.speedup, r.net_saving.hours, r.roi.ratio)
    return next((q.level for q in quantities if isinstance(q, Interval)), 0.9)


def _plan(plan: Plan, length: Shown) -> str:
    if plan.target_loss > 0:
        expected = f"expected length {length.text}" if length.is_known else f"length {length.text}"
        aim = f"to a validation loss of {plan.target_loss:g} nats per token ({expected})"
    else:
        aim = f"of {tokens(plan.tokens)} tokens"
    ownership = "owned" if plan.owned else "rented"
    price = f" at {plan.device_hour_usd:,g} USD per device-hour ({ownership})" if plan.device_hour_usd else ""
    engineer = f", {plan.engineer_hour_usd:,g} USD per engineer-hour" if plan.engineer_hour_usd else ""
    tariff = f", {plan.kwh_usd:,g} USD per kWh" if plan.owned and plan.kwh_usd else ""
    return f"{count(plan.runs, 'run')} {aim} on {count(plan.devices, 'device')}{price}{tariff}{engineer}"


def _comparison(label: str, comparison: Comparison, p: Printer) -> ComparisonRow:
    return ComparisonRow(
        label=label,
        speedup=p.ratio(comparison.speedup),
        throughput=p.ratio(comparison.throughput),
        token_efficiency=p.ratio(comparison.token_efficiency),
    )


def _technique(t: TechniqueEffect, p: Printer, r: Recommendation) -> TechniqueRow:
    old, new = words.stored_value(t.baseline_value), words.stored_value(t.value)
    return TechniqueRow(
        name=plain(t.name),
        title=plain(t.title),
        section=plain(t.section),
        knob_class=words.class_word(t.knob_class),
        complexity=words.complexity_word(t.complexity),
        change=f"{old} -> {new}" if old != new else f"{old}, unchanged",
        speed=p.ratio(t.speed_effect),
        quality=p.ratio(t.quality_effect),
        saving=p.money(t.saving, r.plan.currency),
        roi=p.plain(t.roi),
        break_even=p.tokens(t.break_even_tokens),
        verdict_key=t.verdict.value,
        verdict=words.technique_word(t.verdict),
        reason=". ".join(filter(None, (plain(t.reason), words.horizon_words([t.name], r.knobs).removesuffix(".")))),
    )


def _noise_text(r: Recommendation) -> str:
    own = r.batches.baseline
    if not r.noise_scales:
        return ""
    batches = {"Your batch": own} if own else {}
    if r.batches.candidate != own:
        batches["The candidate's batch"] = r.batches.candidate
    if r.batches.expected not in (0, own):
        batches["The expected configuration's batch"] = r.batches.expected
    return words.noise_words(r.noise_scales, batches)


def _curve(curve: Curve | Unknown) -> CurveView:
    match curve:
        case Unknown(reason=reason):
            return CurveView(text=f"{NOT_KNOWN}: {plain(reason)}", points=(), fit=())
        case Curve(points=points, irreducible=e, amplitude=a, exponent=b):
            return CurveView(
                text=f"L(D) = {significant(e)} + {significant(a)} D^-{significant(b)} nats per token after D tokens",
                points=points,
                fit=(e, a, b),
            )


def _search_text(r: Recommendation) -> str:
    cost, currency = r.search_cost, r.plan.currency
    adoption = f" Adopting the change costs {money(cost.adoption_money, currency)}." if cost.adoption_money else ""
    return (
        f"The search took {duration(cost.total_seconds)} of wall time, failed trials included. "
        f"It cost {money(cost.money, currency)}.{adoption}"
    )


def _shares(seconds: Mapping[str, float]) -> tuple[Share, ...]:
    total = sum(seconds.values())
    return tuple(
        Share(label=label, seconds=value, text=words.share_text(value, total))
        for label, value in seconds.items()
        if value > 0
    )


def _outcomes(trials: tuple[TrialSummary, ...], p: Printer) -> tuple[OutcomeGroup, ...]:
    """Trials by outcome: completed ones first, then in order of appearance."""
    groups: dict[str, list[TrialSummary]] = {"completed": []}
    for trial in trials:
        groups.setdefault(trial.outcome, []).append(trial)
    return tuple(
        OutcomeGroup(
            key=plain(outcome),
            title=words.outcome_word(outcome),
            count=count(len(members), "trial"),
            cost=duration(sum(t.cost_seconds for t in members)),
            trials=tuple(_trial(t, p) for t in members),
        )
        for outcome, members in groups.items()
        if members
    )


def _trial(t: TrialSummary, p: Printer) -> TrialRow:
    def cell(quantity: Quantity, shown: Shown) -> str:
        return shown.text if isinstance(finite(quantity), Interval) else "-"

    return TrialRow(
        number=t.number,
        stage=words.stage_word(t.stage),
        label=words.label_word(t.label),
        reason=plain(t.reason),
        throughput=cell(t.throughput_ratio, p.ratio(t.throughput_ratio)),
        loss=cell(t.loss, p.plain(t.loss, digits=4)),
        cost=duration(t.cost_seconds),
    )
