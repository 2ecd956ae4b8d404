"""From a recommendation to the view model of its report: everything is worded and formatted here, once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import assert_never

from autotune.analysis.recommendation import (
    Comparison,
    Curve,
    Recommendation,
    TechniqueEffect,
    TrialSummary,
    Verdict,
)
from autotune.quantity import Interval, Quantity, Unknown
from autotune.report import words
from autotune.report.key_figures import carried_figures, figure_groups, pays_back
from autotune.report.quantities import (
    NOT_KNOWN,
    Printer,
    Shown,
    duration,
    finite,
    money,
    probability,
    significant,
    tokens,
)
from autotune.report.view import (
    CaveatView,
    Change,
    ComparisonRow,
    CurveView,
    Hypothesis,
    OutcomeGroup,
    RunnerUp,
    Share,
    TechniqueRow,
    TrialRow,
    View,
)
from autotune.report.words import count, plain, value_text
from autotune.space.configuration import Configuration
from autotune.space.knobs import Knob, KnobValue
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
    adopted = r.verdict is Verdict.ADOPT
    return View(
        study=plain(study),
        space=plain(space),
        version=plain(version),
        created_at=plain(created_at),
        folder=plain(folder),
        verdict=r.verdict.value,
        verdict_word=words.verdict_word(r.verdict),
        headline=_headline(r),
        why=tuple(_why(r, p, plain(study))),
        subject="the recommended configuration" if adopted else "the best candidate (not recommended)",
        level=f"{p.level * 100:g} %",
        plan=_plan(r.plan, p.tokens(r.plan_tokens)),
        carried=carried_figures(r, p),
        groups=figure_groups(r, p),
        changes_title="What to change" if adopted else "What the best candidate changes (not recommended)",
        value_title="Recommended" if adopted else "Candidate",
        changes=_changes(r),
        toml=_toml(r.recommended, r.baseline),
        comparisons=(
            _comparison("vs your baseline", r.over_baseline, p),
            _comparison("vs the hand-tuned default", r.over_expert, p),
        ),
        noise_floor=p.percent(r.noise_floor),
        techniques=tuple(_technique(t, p, r) for t in r.techniques),
        hypotheses_text=_hypotheses_text(r, p),
        hypotheses=tuple(
            Hypothesis(
                knob=plain(k), title=_title(r.knobs, k), baseline=_value(r.baseline, k), value=words.stored_value(v)
            )
            for k, v in r.hypotheses.items()
        ),
        noise_text=_noise_text(r),
        curve=_curve(r.curve),
        search_text=_search_text(r),
        stages=_shares({words.stage_word(k): v for k, v in r.search_cost.seconds_by_stage.items()}),
        activities=_shares({words.activity_word(k): v for k, v in r.search_cost.seconds_by_activity.items()}),
        runners_up=tuple(
            RunnerUp(
                label=words.label_word(c.label),
                changes=_difference(r.baseline, c.config),
                speedup=p.ratio(c.speedup),
                trials=", ".join(map(str, c.trial_numbers)),
            )
            for c in r.runners_up
        ),
        trials_text=f"{count(len(r.trials), 'trial')}, {duration(sum(t.cost_seconds for t in r.trials))} in total",
        outcomes=_outcomes(r.trials, p),
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


def _headline(r: Recommendation) -> str:
    word = words.verdict_word(r.verdict)
    speedup = finite(r.over_baseline.speedup)
    match r.verdict, speedup:
        case Verdict.ADOPT, Interval(level=level):
            shown = Printer(level).ratio(speedup)
            return f"{word}: same validation loss {shown.value} sooner ({level * 100:g} % interval {shown.interval}x)"
        case Verdict.ADOPT, Unknown(reason=reason):
            return f"{word}; the speed-up is not known: {plain(reason)}"
        case Verdict.KEEP_BASELINE, _:
            return f"{word}: {_short_reason_to_keep(r)}"
        case Verdict.INCONCLUSIVE, Interval(level=level):
            shown = Printer(level).ratio(speedup)
            return f"{word}: the speed-up may lie anywhere in {shown.interval}x"
        case Verdict.INCONCLUSIVE, Unknown(reason=reason):
            return f"{word}: {plain(reason)}"
        case _:
            raise AssertionError(r.verdict)


def _floor(r: Recommendation) -> float:
    floor = finite(r.noise_floor)
    return floor.estimate if isinstance(floor, Interval) else 0.0


def _gains_speed(r: Recommendation) -> bool:
    """Whether the candidate is shown to be faster than the baseline by more than the noise floor."""
    speedup = finite(r.over_baseline.speedup)
    return isinstance(speedup, Interval) and speedup.low > 1 and speedup.estimate > 1 + _floor(r)


def _short_reason_to_keep(r: Recommendation) -> str:
    if r.candidate == r.baseline:
        return "nothing tried is better"
    if _gains_speed(r):
        return "the gain would not pay for itself on this plan"
    return "nothing tried is faster beyond this machine's noise"


def _why(r: Recommendation, p: Printer, study: str) -> Iterator[str]:
    speedup, floor = p.ratio(r.over_baseline.speedup), p.percent(r.noise_floor)
    saving = _saving_sentence(r, p)
    match r.verdict:
        case Verdict.ADOPT:
            rate, efficiency = p.ratio(r.over_baseline.throughput), p.ratio(r.over_baseline.token_efficiency)
            if rate.is_known:
                same = f" Token efficiency is {efficiency.text}." if efficiency.is_known else ""
                yield f"Confirmed on fresh data: throughput is {rate.text} your baseline's.{same}"
            yield saving or "The saving on your plan is not known."
        case Verdict.KEEP_BASELINE:
            if r.candidate == r.baseline:
                yield f"After {count(len(r.trials), 'trial')}, no configuration was left that beats your baseline."
                if floor.is_known:
                    yield f"This machine cannot resolve differences below {floor.value}."
            elif _gains_speed(r):
                yield f"On fresh data, the best candidate reached {speedup.text}. That is more than noise."
                yield saving or "It was not shown to save anything on your plan."
                if pays := pays_back(r):
                    yield f"It {pays}."
            else:
                yield f"On fresh data, the best candidate's speed-up was {speedup.text}."
                if floor.is_known:
                    yield f"The noise floor of this machine is {floor.text}. No gain below it is claimed."
        case Verdict.INCONCLUSIVE:
            if speedup.is_known:
                yield f"The best candidate's speed-up, {speedup.text}, is too uncertain to call it better or worse."
            else:
                yield "No candidate could be compared with your baseline well enough to call it better or worse."
            yield "Keep your baseline until more is known."
            yield (
                f"A larger budget narrows it down: `autotune resume {study} --fork NEW --budget 20m` "
                "starts from what this search found."
            )
        case _:
            assert_never(r.verdict)


def _saving_sentence(r: Recommendation, p: Printer) -> str:
    hours, amount = p.hours(r.net_saving.hours), p.money(r.net_saving.money, r.plan.currency)
    is_priced = r.plan.device_hour_usd > 0  # otherwise both are the same
    known = []
    if hours.is_known:
        known.append(f"{hours.text} of device time")
    if amount.is_known and is_priced:
        known.append(amount.text)
    if not known:
        return ""
    chance = probability(r.roi.probability_positive)
    tail = "" if chance == NOT_KNOWN else f" Probability of any saving: {chance}."
    return f"Net saving on your plan: {', '.join(known)}.{tail}"


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


def _changes(r: Recommendation) -> tuple[Change, ...]:
    new = r.recommended if r.verdict is Verdict.ADOPT else r.candidate
    return tuple(
        Change(
            knob=name,
            title=_title(r.knobs, name),
            baseline=_value(r.baseline, name),
            value=_value(new, name),
            expert=_value(r.expert_default, name),
        )
        for name in _changed(r.baseline, new)
    )


def _changed(baseline: Configuration, other: Configuration) -> tuple[str, ...]:
    """The knobs whose values differ, in the order of the baseline."""
    different = other.difference(baseline)
    return tuple(name for name in baseline if name in different)


def _difference(baseline: Configuration, other: Configuration) -> str:
    return ", ".join(f"{n}={_value(other, n)}" for n in _changed(baseline, other)) or "same as the baseline"


def _title(knobs: Mapping[str, Knob], name: str) -> str:
    return plain(knobs[name].title if name in knobs else name)


def _value(config: Configuration, knob: str) -> str:
    return value_text(config[knob]) if knob in config else ""


def _toml(config: Configuration, baseline: Configuration) -> str:
    """The whole configuration as TOML, with the old value beside each changed line."""

    def literal(value: KnobValue) -> str:
        return json.dumps(value) if isinstance(value, str) else value_text(value)

    lines = []
    for name, value in config.items():
        old = baseline[name]
        remark = f"  # was {literal(old)}" if old != value else ""
        lines.append(f"{name} = {literal(value)}{remark}")
    return "\n".join(lines) + "\n"


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
    if r.batches.hypothesis not in (0, own):
        batches["The batch worth trying"] = r.batches.hypothesis
    return words.noise_words(r.noise_scales, batches)


def _hypotheses_text(r: Recommendation, p: Printer) -> str:
    if not r.hypotheses:
        return ""
    gain = p.ratio(r.hypothesis_efficiency)
    found = f"a token efficiency of {gain.text}" if gain.is_known else f"a gain of unknown size ({gain.reason})"
    return (
        f"These values showed {found} at the tested token budget. Nothing shows that the gain lasts for the whole "
        "plan, so none of the figures above includes it. Test them with longer trials before you rely on them. "
        f"{words.horizon_words(r.hypotheses, r.knobs)}"
    ).strip()


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
