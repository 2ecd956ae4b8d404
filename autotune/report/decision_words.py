"""The words for a decision: its headline, why, and how the real run guards it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from autotune.analysis.caveat import BusyMachine
from autotune.analysis.decision import (
    Claimed,
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
from autotune.analysis.recommendation import Expectation, Recommendation
from autotune.quantity import Interval, Unknown
from autotune.report import words
from autotune.report.changes import difference, rest_of
from autotune.report.key_figures import pays_back
from autotune.report.quantities import (
    NOT_KNOWN,
    Printer,
    duration,
    finite,
    percent,
    probability,
    tokens,
)
from autotune.report.words import count, plain
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobClass


def headline(r: Recommendation) -> str:
    """The conclusion in one line. Its aside, if any, is in parentheses at the end."""
    word = words.verdict_word(r.verdict)
    match r.decision:
        case Claimed():
            return f"{word}{_speedup_in_short(r)}"
        case Expected(config=config):
            return f"Adopt {difference(r.baseline, config)}: {_shown_in_short(r)}, {_expected_in_short(r)}"
        case RaceInRun(config=config):
            tried = f"try {difference(r.claimed, config)} in the real run"
            if r.claimed == r.baseline:
                return f"Keep your baseline, and {tried}: drop it if it does not do better"
            shown = f"Adopt {difference(r.baseline, r.claimed)}: {_shown_in_short(r)}"
            return f"{shown}; {tried}, and drop it if it does not do better"
        case Keep():
            return f"{word}: {_short_reason_to_keep(r)}"
        case NotInformative(reason=reason):
            return f"{word}: {plain(reason)}"
        case _:
            assert_never(r.decision)


def why(r: Recommendation, p: Printer, study: str) -> Iterator[str]:
    """Why, in sentences."""
    match r.decision:
        case Claimed():
            yield from _why_claimed(r, p)
        case Expected() as expected:
            yield from _why_expected(r, expected)
        case RaceInRun() as race:
            yield from _why_race(r, race)
        case Keep():
            yield from _why_keep(r, p)
        case NotInformative() as nothing:
            yield from _why_not_informative(r, p, nothing, study)
        case _:
            assert_never(r.decision)


def subject(r: Recommendation) -> str:
    """The configuration that the key figures are about."""
    if r.claimed == r.baseline:
        is_other = r.candidate == r.baseline and isinstance(r.decision, Expected | RaceInRun)
        return "the claimed part (nothing is claimed)" if is_other else "the best candidate (not recommended)"
    return "the recommended configuration" if isinstance(r.decision, Claimed) else rest_of(r)


def guard_words(r: Recommendation, config: Configuration, guard: Guard, study: str) -> str:
    """How the real run guards against a loss with `config`; `study` is the name to look it up by."""
    runs, tried = r.plan.runs, difference(r.claimed, config)
    match guard:
        case Look(needs_run=needs_run):
            other = f"the log of your baseline run (`autotune look {study} LOG`)"
            if needs_run:
                other = (
                    f"one run of {_baseline_learning(r, config)} at full length, which is one of the plan's {runs:,}"
                )
            return (
                f"Run 1 of the plan, with {tried}, is the look. Compare its validation loss with {other}. "
                f"{_then_decide(runs - 1 - needs_run)}"
            )
        case Trunks(share=share):
            length = finite(r.plan_tokens)
            each = f" ({tokens(share * length.estimate)} tokens)" if isinstance(length, Interval) else ""
            return (
                f"Start two runs, one of {rest_of(r)} and one with {tried}, to {share * 100:g} % of the tokens "
                f"each{each}. Cool both down over a fifth of that, and keep the better one: it goes on from where its "
                "cooldown began."
            )
        case Watch():
            return (
                f"How fast {tried} is shows in the first minutes of a run: compare its tokens/s with those of "
                f"{rest_of(r)}, and go back if it is no faster."
            )
        case Unguarded():
            if runs > 1:
                return f"It is not: a run to compare it with {rest_of(r)} would cost more than it is expected to save."
            return "It is not: nothing in the plan can tell in time whether it is worse."
        case _:
            assert_never(guard)


def _then_decide(others: int) -> str:
    if others < 1:
        return "It is for later plans: this one has no other run to decide for."
    return f"Then decide for the other {'run' if others == 1 else f'{others:,} runs'}."


def _baseline_learning(r: Recommendation, config: Configuration) -> str:
    """The learning knobs that a look is held against, with their values."""
    learning = {n for n, knob in r.knobs.items() if knob.knob_class is KnobClass.LEARNING}
    values = {name: value for name, value in r.claimed.items() if name in learning}
    known = difference(config, Configuration(values))
    return f"your baseline's learning knobs ({known})" if known else "your baseline's learning knobs"


# -- what is shown -----------------------------------------------------------------------------------


def _speedup_in_short(r: Recommendation) -> str:
    speedup = finite(r.over_baseline.speedup)
    if isinstance(speedup, Unknown):
        return f"; the speed-up is not known: {plain(speedup.reason)}"
    shown = Printer(speedup.level).ratio(speedup)
    return f": same validation loss {shown.value} sooner ({_level(speedup)} interval {shown.interval}x)"


def _level(interval: Interval) -> str:
    return f"{interval.level * 100:g} %"


def _why_claimed(r: Recommendation, p: Printer) -> Iterator[str]:
    rate, efficiency = p.ratio(r.over_baseline.throughput), p.ratio(r.over_baseline.token_efficiency)
    if rate.is_known:
        same = f" Token efficiency is {efficiency.text}." if efficiency.is_known else ""
        yield f"Confirmed on fresh data: throughput is {rate.text} your baseline's.{same}"
    yield _saving_sentence(r, p) or "The saving on your plan is not known."


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


# -- what is expected --------------------------------------------------------------------------------


def _shown_in_short(r: Recommendation) -> str:
    speedup = finite(r.over_baseline.speedup)
    if r.claimed == r.baseline:
        return "nothing is shown to pay"
    if isinstance(speedup, Unknown):
        return f"the speed-up of {rest_of(r)} is not known"
    return f"same validation loss {Printer(speedup.level).ratio(speedup).value} sooner is shown"


def _expected_in_short(r: Recommendation) -> str:
    speedup = finite(r.expectation.speedup) if isinstance(r.expectation, Expectation) else r.expectation
    if isinstance(speedup, Unknown):
        return f"the expected speed-up is not known: {plain(speedup.reason)}"
    shown = Printer(speedup.level).ratio(speedup)
    range_ = f" ({_level(speedup)} interval {shown.interval}x)" if shown.interval else ""
    gain = f"same validation loss {shown.value} sooner" if r.claimed == r.baseline else shown.value
    return f"{gain} is expected{range_}"


def _why_expected(r: Recommendation, expected: Expected) -> Iterator[str]:
    rest, worse = rest_of(r), probability(expected.prospect.probability_worse)
    yield (
        f"Your plan is expected to cost the least with it: {percent(expected.cost)} of the cost with {rest}"
        f"{_if_guarded(expected.guard)}. Probability that it costs more: {worse}."
    )
    if r.claimed == r.baseline:
        yield "If you rely only on what is shown, keep your baseline."
    else:
        yield f"If you rely only on what is shown, adopt {rest} alone: {difference(r.baseline, r.claimed)}."


def _why_race(r: Recommendation, race: RaceInRun) -> Iterator[str]:
    rest, worse = rest_of(r), probability(race.prospect.probability_worse)
    at_once = percent(race.prospect.expected_cost)
    yield (
        f"Adopting {difference(r.claimed, race.config)} at once is not worth the risk: with a probability of {worse} "
        f"your plan would cost more than with {rest}, and it would cost {at_once} of that on average."
    )
    yield (
        "Trying it first, and dropping it if it does no better, is worth it: your plan is then expected to cost "
        f"{percent(race.cost)} of what it costs with {rest}, a saving of {percent(1.0 - race.cost)}."
    )


def _if_guarded(guard: Guard) -> str:
    match guard:
        case Look():
            return " if its first run is looked at"
        case Trunks():
            return " if both are compared at the start of the run"
        case Watch():
            return " if its speed is watched"
        case Unguarded():
            return ""
        case _:
            assert_never(guard)


# -- why not -----------------------------------------------------------------------------------------


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


def _why_keep(r: Recommendation, p: Printer) -> Iterator[str]:
    speedup, floor = p.ratio(r.over_baseline.speedup), p.percent(r.noise_floor)
    if r.candidate == r.baseline:
        yield f"After {count(len(r.trials), 'trial')}, no configuration was left that beats your baseline."
        if floor.is_known:
            yield f"This machine cannot resolve differences below {floor.value}."
    elif _gains_speed(r):
        yield f"On fresh data, the best candidate reached {speedup.text}. That is more than noise."
        yield _saving_sentence(r, p) or "It was not shown to save anything on your plan."
        if pays := pays_back(r):
            yield f"It {pays}."
    else:
        yield f"On fresh data, the best candidate's speed-up was {speedup.text}."
        if floor.is_known:
            yield f"The noise floor of this machine is {floor.text}. No gain below it is claimed."
    yield from _if_busy(r)


def _why_not_informative(r: Recommendation, p: Printer, nothing: NotInformative, study: str) -> Iterator[str]:
    speedup = p.ratio(r.over_baseline.speedup)
    if speedup.is_known:
        yield f"The best candidate's speed-up, {speedup.text}, is not shown to pay on your plan."
    else:
        yield "No candidate could be compared with your baseline well enough to call it better or worse."
    yield "Keep your baseline until more is known."
    yield from _if_busy(r)
    if nothing.tokens > 0:
        yield (
            f"Trials of {tokens(nothing.tokens)} tokens each would inform. A search with as many of them as were tried "
            f"takes about {duration(nothing.cost_seconds)}."
        )
    else:
        yield (
            f"A larger budget narrows it down: `autotune resume {study} --fork NEW --budget 20m` "
            "starts from what this search found."
        )


def _if_busy(r: Recommendation) -> Iterator[str]:
    """The likely cause, where other programs kept the machine from measuring."""
    for caveat in r.caveats:
        if isinstance(caveat, BusyMachine):
            share = percent(caveat.others_share)
            yield (
                f"Other programs used {share} of this machine's cores meanwhile: on a quiet machine the same budget "
                "measures more, and more surely."
            )
