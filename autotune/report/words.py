"""The words for closed types: verdicts, caveats, outcomes, stages. Data comes in, sentences go out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from autotune_model.knobs import KNOBS, Complexity, KnobClass, KnobValue

from autotune.analysis.recommendation import Caveat, CaveatKind, NoiseScale, TechniqueVerdict, Verdict
from autotune.quantity import Unknown
from autotune.report.quantities import duration, money, percent, significant, tokens
from autotune.trial.types import FailedKind, InfeasibleKind, Stage


def plain(text: object) -> str:
    """`text` on one line without control characters: what users and workers wrote is not to steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def value_text(value: KnobValue) -> str:
    """A knob's value as a configuration file writes it, without quotes."""
    return str(value).lower() if isinstance(value, bool) else plain(value)


def verdict_word(verdict: Verdict) -> str:
    match verdict:
        case Verdict.ADOPT:
            return "Adopt"
        case Verdict.KEEP_BASELINE:
            return "Keep what you have"
        case Verdict.INCONCLUSIVE:
            return "Inconclusive"
        case _:
            assert_never(verdict)


def technique_word(verdict: TechniqueVerdict) -> str:
    match verdict:
        case TechniqueVerdict.ADOPT:
            return "adopt"
        case TechniqueVerdict.NEUTRAL:
            return "neutral"
        case TechniqueVerdict.HARMFUL:
            return "harmful"
        case TechniqueVerdict.HYPOTHESIS:
            return "hypothesis"
        case TechniqueVerdict.EXPLORED:
            return "explored"
        case TechniqueVerdict.NOT_MEASURED:
            return "not measured"
        case _:
            assert_never(verdict)


def class_word(knob_class: KnobClass) -> str:
    match knob_class:
        case KnobClass.SYSTEM:
            return "system: same mathematics"
        case KnobClass.NUMERICS:
            return "numerics: other rounding"
        case KnobClass.LEARNING:
            return "learning: other optimisation"
        case _:
            assert_never(knob_class)


def complexity_word(complexity: int) -> str:
    step = Complexity(complexity)
    match step:
        case Complexity.FLAG:
            return "a flag"
        case Complexity.CARE:
            return "a flag to keep an eye on"
        case Complexity.CHANGE:
            return "a change of code"
        case _:
            assert_never(step)


def stage_word(stage: str) -> str:
    """The name of a stage in words; a name that is no stage's is printed as it is."""
    try:
        known = Stage(stage)
    except ValueError:
        return plain(stage.replace("_", " "))
    match known:
        case Stage.CALIBRATE:
            return "calibrate"
        case Stage.EXPLORE_SYSTEM:
            return "explore system knobs"
        case Stage.EXPLORE_LEARNING:
            return "explore learning knobs"
        case Stage.RACE:
            return "race"
        case Stage.CONFIRM:
            return "confirm"
        case Stage.ATTRIBUTE:
            return "attribute"
        case _:
            assert_never(known)


_OUTCOMES: Mapping[str, str] = {
    "completed": "completed",
    "pruned": "stopped early, as it could no longer win",
    InfeasibleKind.OUT_OF_MEMORY: "out of memory",
    InfeasibleKind.PREDICTED_OUT_OF_MEMORY: "not started, as it would not fit in memory",
    InfeasibleKind.TOO_SLOW: "too slow",
    InfeasibleKind.DIVERGED: "diverged",
    InfeasibleKind.COMPILE: "did not compile",
    InfeasibleKind.INVALID: "not a valid combination",
    InfeasibleKind.NOT_EQUIVALENT: "does not compute the same",
    FailedKind.CRASH: "crashed",
    FailedKind.HUNG: "hung",
    FailedKind.IMPLAUSIBLE: "not measurable",
}


def outcome_word(outcome: str) -> str:
    """What became of a trial, in words; a kind that is not known here is printed as it is."""
    return _OUTCOMES.get(outcome, plain(outcome.replace("_", " ")))


class _Details:
    """The details of a caveat by name. A report is never lost over a missing figure: the gap is printed as such."""

    def __init__(self, caveat: Caveat) -> None:
        self._details = caveat.details

    def text(self, key: str, default: str = "(not recorded)") -> str:
        return plain(self._details[key]) if key in self._details else default

    def number(self, key: str) -> float | None:
        value = self._details.get(key)
        return float(value) if isinstance(value, int | float) else None

    def percent(self, key: str) -> str:
        value = self.number(key)
        return self.text(key) if value is None else percent(value)

    def ratio(self, key: str) -> str:
        value = self.number(key)
        return self.text(key) if value is None else f"{significant(value)}x"

    def tokens(self, key: str) -> str:
        value = self.number(key)
        return self.text(key) if value is None else f"{tokens(value)} tokens"

    def amount(self, key: str, currency: str) -> str:
        value = self.number(key)
        return self.text(key) if value is None else money(value, currency)


def caveat_words(caveat: Caveat, *, currency: str) -> tuple[str, str]:
    """A caveat's title and its text."""
    d = _Details(caveat)
    match caveat.kind:
        case CaveatKind.NO_STEADY_STATE:
            return "No steady state", (
                f"Trial {d.text('trial')} never settled to a steady speed, so its rate may still have been drifting."
            )
        case CaveatKind.NOISY_MACHINE:
            return "Noisy machine", (
                f"Two copies of the same configuration differed by as much as {d.percent('floor')} on this machine; "
                "effects smaller than that cannot be told from noise and are not claimed."
            )
        case CaveatKind.BUDGET_ENDED:
            return "Budget ended", (
                f"The budget ended during the stage '{stage_word(d.text('stage'))}'; "
                "what it had not measured by then is missing here."
            )
        case CaveatKind.RACE_SKIPPED:
            return "No race", (
                f"No race was run (candidates: {d.text('candidates')}): the best of the exploration went straight to "
                "confirmation, so a rival close behind it may have been passed over."
            )
        case CaveatKind.FEW_RESTARTS:
            return "Few restarts", (
                f"The speed was confirmed over {d.text('restarts')} restarts of the processes. "
                "Restarts differ by more than their slices tell, so the interval is rough."
            )
        case CaveatKind.LEARNING_IS_HYPOTHESIS:
            return "Learning gain not claimed", (
                f"At the tested horizon {d.text('knobs')} gained a factor of {d.ratio('factor')}. "
                "Nothing shows that the gain lasts to the length of the plan, so it is listed as a hypothesis "
                "and left out of the speed-up, the saving and the ROI."
            )
        case CaveatKind.SHORT_HORIZON:
            horizon, planned = d.number("horizon_tokens"), d.number("plan_tokens")
            factor = f", {significant(planned / horizon)} times as many" if horizon and planned else ""
            return "Short horizon", (
                f"{d.text('knobs')}: judged over {d.tokens('horizon_tokens')}, while the plan runs "
                f"{d.tokens('plan_tokens')}{factor}. Short horizons favour small batches and high learning rates."
            )
        case CaveatKind.REPEATED_DATA:
            return "Repeated data", (
                f"The longest judged trial read its text {d.text('epochs')} times over, "
                "so part of the ranking may be one of memorising."
            )
        case CaveatKind.CURVE_NOT_FITTED:
            return "No loss curve", (
                f"The baseline's loss curve could not be fitted: {d.text('reason')}. "
                "Losses were not converted into tokens."
            )
        case CaveatKind.EFFICIENCY_CENSORED:
            return "Token efficiency is a bound", (
                "The candidate's loss lies outside the range of the baseline's curve; "
                f"its token efficiency is only known to lie beyond {d.ratio('bound')}."
            )
        case CaveatKind.ALTERNATED_SESSIONS:
            return "Alternated sessions", (
                "Two sessions did not fit in memory together, so whole short runs were alternated "
                "instead of single steps; the pairing removes less of the noise."
            )
        case CaveatKind.ENERGY_UNKNOWN:
            return "No energy figure", f"Energy could be neither measured nor estimated: {d.text('reason')}."
        case CaveatKind.OVERFLOW:
            return "fp16 overflowed", (
                f"{d.text('skipped')} of {d.text('steps')} steps in fp16 made no update, for a gradient overflowed. "
                "A few at the start are the loss scale finding its size; what they cost is in the losses measured here."
            )
        case CaveatKind.UNPRICED:
            return "No prices", (
                "The plan names no price of a device-hour, so savings, costs and ROI are stated in device-hours."
            )
        case CaveatKind.SEARCH_STOPPED_EARLY:
            figures = ""
            if d.number("expected_saving") is not None:
                saving, cost = d.amount("expected_saving", currency), d.amount("cost", currency)
                figures = f" (expected saving {saving}, cost {cost})"
            return "Search stopped early", (
                f"The stage '{stage_word(d.text('stage'))}' was ended because one more trial was expected to save "
                f"less than it would have cost{figures}."
            )
        case CaveatKind.EXPERT_PARTIAL:
            return "Expert default in part", (
                f"The expert default could not be used whole on this machine; left at your value: {d.text('knobs')}."
            )
        case CaveatKind.NOT_EQUIVALENT:
            return "Excluded by the equivalence gate", f"{d.text('knobs')}: {d.text('reason')}."
        case CaveatKind.PRUNED:
            return "Not tried on this machine", f"{d.text('knobs')}: {d.text('reason')}."
        case CaveatKind.NUMERICS_UNDECIDED:
            return "Low precision not shown to learn as well", (
                f"{d.text('knobs')}: it may cost up to {d.percent('lost')} of the tokens; only a loss of at most "
                f"{d.percent('margin')} would pass as none. The measured token efficiency is in the figures."
            )
        case CaveatKind.NUMERICS_INFERIOR:
            return "Low precision learns worse", (
                f"{d.text('knobs')}: it cost {d.percent('lost')} of the tokens at the tested horizon, more than the "
                f"{d.percent('margin')} that pass as none; it is judged at the plan's length, as a learning knob is."
            )
        case _:
            assert_never(caveat.kind)


def horizon_words(knobs: Iterable[str]) -> str:
    """Which way a short horizon biases those knobs; empty where it does none of them."""
    favours = [KNOBS[name].short_horizon_favours for name in knobs if name in KNOBS]
    known = " and ".join(f for f in favours if f)
    return f"Short horizons favour {known}." if known else ""


def noise_words(scales: Sequence[NoiseScale], batches: Mapping[str, int]) -> str:
    """What the gradient's noise says of the global batch: `batches` by whose they are, in sequences."""
    if not scales:
        return ""
    seen = "; ".join(
        f"after {tokens(s.horizon_tokens)} tokens "
        + (f"not known ({plain(s.sequences.reason)})" if isinstance(s.sequences, Unknown) else f"{s.sequences:,.3g}")
        for s in scales
    )
    text = f"The simple noise scale of your baseline's gradient, in sequences: {seen}."
    last = next((s.sequences for s in reversed(scales) if not isinstance(s.sequences, Unknown)), None)
    if last is None:
        return text
    for whose, batch in batches.items():
        side = (
            "below it: a larger batch would cost few tokens more" if batch < last else "above it: more of it helps less"
        )
        text += f" {whose} of {batch} is {side}."
    return f"{text} It grows with the run, and with it the batch that costs nothing; it proposes and decides nothing."


def share_text(seconds: float, total: float) -> str:
    """A part of the search time: "12 min 4 s, 41 %"."""
    return f"{duration(seconds)}, {percent(seconds / total)}" if total > 0 else duration(seconds)


READING: tuple[tuple[str, str], ...] = (
    (
        "Speed-up to equal quality",
        (
            "How much sooner the same validation loss is reached: throughput (tokens per second, as a ratio) times "
            "that part of token efficiency that may be claimed for the plan. 1.25x means four fifths of the time."
        ),
    ),
    (
        "Token efficiency",
        (
            "The tokens your baseline needs divided by the tokens the other configuration needs for the same loss. "
            "Above 1x fewer tokens are needed."
        ),
    ),
    (
        "Intervals",
        (
            "The range beside a figure holds the true value with the stated probability, as far as the method's "
            "assumptions hold. It comes from fresh data that had no part in choosing the winner."
        ),
    ),
    (
        "Noise floor",
        (
            "The smallest effect this machine could resolve today, found by measuring the baseline against copies of "
            "itself. Nothing smaller is claimed."
        ),
    ),
    (
        "ROI and break-even",
        (
            "ROI is the net saving over the plan divided by what search and adoption cost. The break-even is the "
            "length of run from which on the gain pays for both."
        ),
    ),
    (
        "Techniques",
        (
            "Each one's effect is that of the whole recommendation over the recommendation without it, so the effects "
            "need not multiply to the total."
        ),
    ),
    (
        "What is not claimed",
        (
            "Other hardware or model sizes, final losses far beyond the tested horizon, and that a learning rate or "
            "batch size found in short trials is the optimum of the long run."
        ),
    ),
)
