"""The words for closed types: verdicts, caveats, outcomes, stages. Data comes in, sentences go out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from autotune.analysis.caveat import (
    AlternatedSessions,
    BaselineLogUnfit,
    BudgetEnded,
    BusyMachine,
    Caveat,
    CombinationsNotFound,
    CurveNotFitted,
    CurveSteepening,
    EfficiencyCensored,
    EnergyUnknown,
    ExpertPartial,
    FewRestarts,
    LearningIsExpected,
    NoisyMachine,
    NoSteadyState,
    NotEquivalent,
    NotGated,
    NumericsInferior,
    NumericsUndecided,
    Overflow,
    RaceSkipped,
    RepeatedData,
    SearchStoppedEarly,
    ShortHorizon,
    SpeedIsExpected,
    TextLeftOut,
    TrialsTooShort,
    Unpriced,
    ValuePruned,
    VocabularyShort,
)
from autotune.analysis.recommendation import NoiseScale, TechniqueVerdict, Verdict
from autotune.quantity import Unknown
from autotune.report.quantities import NOT_KNOWN, duration, percent, significant, size, tokens
from autotune.space.knobs import Complexity, Knob, KnobClass, KnobValue
from autotune.trial.types import FailedKind, InfeasibleKind, Stage


def plain(text: object) -> str:
    """`text` on one line without control characters: text from users and workers must not control a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def value_text(value: KnobValue) -> str:
    """A knob's value as a configuration file writes it, without quotes."""
    return str(value).lower() if isinstance(value, bool) else plain(value)


def stored_value(text: object) -> str:
    """A knob's value that was stored as text, as a configuration file writes it."""
    return {"True": "true", "False": "false"}.get(str(text), plain(text))


def verdict_word(verdict: Verdict) -> str:
    match verdict:
        case Verdict.CLAIMED:
            return "Adopt"
        case Verdict.EXPECTED:
            return "Adopt, expected"
        case Verdict.RACE:
            return "Try it in the real run"
        case Verdict.KEEP:
            return "Keep your baseline"
        case Verdict.NOT_INFORMATIVE:
            return "Not informative"
        case _:
            assert_never(verdict)


def conclusion_word(verdict: str) -> str:
    """A stored verdict in words, for the middle of a sentence; unknown ones are printed as they are."""
    try:
        return verdict_word(Verdict(verdict)).lower()
    except ValueError:
        return plain(verdict.replace("_", " "))


def technique_word(verdict: TechniqueVerdict) -> str:
    match verdict:
        case TechniqueVerdict.ADOPT:
            return "adopt"
        case TechniqueVerdict.NEUTRAL:
            return "neutral"
        case TechniqueVerdict.HARMFUL:
            return "harmful"
        case TechniqueVerdict.EXPECTED:
            return "expected"
        case TechniqueVerdict.EXPLORED:
            return "explored"
        case TechniqueVerdict.NOT_MEASURED:
            return "not measured"
        case _:
            assert_never(verdict)


def class_word(knob_class: KnobClass) -> str:
    match knob_class:
        case KnobClass.SYSTEM:
            return "system: same math"
        case KnobClass.NUMERICS:
            return "precision: different rounding"
        case KnobClass.LEARNING:
            return "learning: different training"
        case _:
            assert_never(knob_class)


def complexity_word(complexity: int) -> str:
    step = Complexity(complexity)
    match step:
        case Complexity.FLAG:
            return "config value"
        case Complexity.CARE:
            return "config value to monitor"
        case Complexity.CHANGE:
            return "code change"
        case _:
            assert_never(step)


def stage_word(stage: str) -> str:
    """The name of a stage in words; unknown names are printed as they are."""
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
            return "ablate"
        case _:
            assert_never(known)


_LABELS: Mapping[str, str] = {
    "expert default": "hand-tuned default",
    "winner's system part": "winner, system knobs only",
    "reduced": "winner, reduced",
    "claim": "recommendation",
}
"""Words for the trial labels of a study that read badly as stored."""


def label_word(label: str) -> str:
    """What a trial is for, in words."""
    return _LABELS.get(label, plain(label))


_ACTIVITIES: Mapping[str, str] = {
    "stepping candidates": "training candidates",
    "stepping the reference": "training the reference",
    "opening sessions": "starting workers",
    "compiling": "compiling",
    "evaluating": "evaluating",
    "everything else": "other",
}


def activity_word(activity: str) -> str:
    """What search time was spent on, in words; unknown activities are printed as they are."""
    return _ACTIVITIES.get(activity, plain(activity.replace("_", " ")))


_OUTCOMES: Mapping[str, str] = {
    "completed": "completed",
    "pruned": "pruned",
    InfeasibleKind.OUT_OF_MEMORY: "out of memory",
    InfeasibleKind.PREDICTED_OUT_OF_MEMORY: "skipped: would not fit in memory",
    InfeasibleKind.TOO_SLOW: "too slow",
    InfeasibleKind.DIVERGED: "diverged",
    InfeasibleKind.COMPILE: "failed to compile",
    InfeasibleKind.INVALID: "invalid combination",
    InfeasibleKind.NOT_EQUIVALENT: "failed the equivalence check",
    FailedKind.CRASH: "crashed",
    FailedKind.HUNG: "hung",
    FailedKind.KILLED: "killed",
    FailedKind.IMPLAUSIBLE: "implausible measurement",
}


def outcome_word(outcome: str) -> str:
    """The outcome of a trial in words; unknown kinds are printed as they are."""
    return _OUTCOMES.get(outcome, plain(outcome.replace("_", " ")))


def caveat_kind(caveat: Caveat) -> str:
    """The name of a caveat in report.json: its class in snake_case, or the name it was first published under."""
    if isinstance(caveat, ValuePruned):
        return "pruned"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(caveat).__name__).lower()


def caveat_words(caveat: Caveat) -> tuple[str, str]:
    """A caveat's title and its text."""
    match caveat:
        case NoSteadyState(trial=trial):
            return "No steady state", (
                f"Trial {trial} never reached a steady throughput. Its rate may still have been drifting."
            )
        case NoisyMachine(floor=floor):
            return "Noisy machine", (
                f"Repeats of the same configuration differ by up to {percent(floor)} on this machine. "
                "Smaller effects cannot be told from noise and are not claimed."
            )
        case BudgetEnded(stage=stage):
            return "Budget spent", (
                f"The time budget ran out in the stage '{stage_word(stage)}'. "
                "What the stage had not measured by then is missing."
            )
        case BusyMachine(others_share=share):
            return "Busy machine", (
                f"Other programs used {percent(share)} of this machine's cores while trials ran. Trials took longer, "
                "fewer of them fitted into the budget, and the rates are below what an idle machine gives. Ratios are "
                "taken side by side and stand, with wider intervals."
            )
        case CombinationsNotFound(stage=stage):
            return "Few combinations are possible", (
                f"Nearly all combinations of the values searched are impossible. The stage '{stage_word(stage)}' ended "
                "when no new one was found, so a better one may have been missed. Narrow the lists and ranges in "
                "[knobs] to values that go together."
            )
        case RaceSkipped():
            return "No race", (
                "There was no time to race the best candidates against each other. "
                "The best one from exploration went straight to confirmation. A close rival may have been missed."
            )
        case FewRestarts(restarts=restarts):
            return "Few restarts", (
                f"The speed-up was confirmed over {count(restarts, 'process restart')}. "
                "Speed varies more between restarts than within one, so the interval is rough."
            )
        case LearningIsExpected(knobs=knobs, factor=factor):
            return "Learning gain expected, not shown", (
                f"{plain(knobs)}: a token efficiency of {significant(factor)}x is expected at the length of your plan. "
                "It is not shown, so the claimed speed-up, saving and ROI leave it out."
            )
        case SpeedIsExpected(knobs=knobs):
            return "Speed expected, not shown", (
                f"{plain(knobs)}: fast in trials, but not confirmed over restarts. The claimed speed-up, saving and "
                "ROI leave it out."
            )
        case TrialsTooShort(
            horizon_tokens=horizon,
            slope=slope,
            r_squared=r_squared,
            informative_tokens=informative,
            cost_seconds=seconds,
        ):
            return "Trials too short to judge learning", (
                f"In trials of {tokens(horizon)} tokens, token efficiency follows the area under the learning-rate "
                f"schedule (slope {significant(slope, 2)}, r^2 {significant(r_squared, 2)}). That says nothing about a "
                "long run, so there is no figure about learning. "
                f"Trials of {tokens(informative)} tokens may inform. As many as there were would take "
                f"{duration(seconds)}."
            )
        case ShortHorizon(knobs=knobs, horizon_tokens=horizon, plan_tokens=planned):
            return "Short trials", (
                f"{plain(knobs)}: trials trained on {tokens(horizon)} tokens. The plan trains on {tokens(planned)} "
                f"tokens, {significant(planned / horizon)} times as many. "
                "Short trials favour small batches and high learning rates."
            )
        case RepeatedData(epochs=epochs):
            return "Repeated data", (
                f"The longest trial went through its training text {significant(epochs)} times. "
                "Part of the ranking may reflect memorisation."
            )
        case CurveNotFitted(reason=reason):
            return "No loss curve", (
                f"No curve could be fitted to the baseline's losses: {plain(reason)}. "
                "Losses were not converted into tokens."
            )
        case CurveSteepening(horizon_tokens=horizon):
            return "Loss curve still steepening", (
                f"The baseline's loss falls ever faster up to {tokens(horizon)} tokens, the longest trials. "
                "So no loss can be predicted for longer runs."
            )
        case BaselineLogUnfit(reason=reason):
            return "Baseline log not used", f"It cannot be of this model and text: {reason}."
        case EfficiencyCensored(bound=bound):
            side = "at least" if bound >= 1 else "at most"
            return "Token efficiency is a bound", (
                "The candidate's loss lies outside the baseline's loss curve. "
                f"Its token efficiency is {side} {significant(bound)}x."
            )
        case AlternatedSessions():
            return "Runs alternated", (
                "Two workers did not fit in memory at once. Whole short runs were alternated instead of single steps, "
                "which cancels less of the noise."
            )
        case EnergyUnknown(reason=reason):
            return "No energy figure", f"Energy could be neither measured nor estimated: {plain(reason)}."
        case Overflow(skipped=skipped, steps=steps):
            return "fp16 overflow", (
                f"{skipped} of {steps} fp16 steps made no update because a gradient overflowed. "
                "A few such steps at the start are normal: the loss scale is settling. "
                "The measured losses include their cost."
            )
        case Unpriced():
            return "No prices", ("The plan gives no price per device-hour. Savings, costs and ROI are in device-hours.")
        case SearchStoppedEarly(stage=stage):
            return "Search stopped early", (
                f"The stage '{stage_word(stage)}' ended early. Going on would have cost more than it was expected "
                "to save."
            )
        case VocabularyShort(wanted=wanted, had=had):
            return "Vocabulary smaller than asked", (
                f"The text fills {had:,} of the {wanted:,} tokens of the vocabulary. "
                "More text, or a smaller vocabulary, would be nearer to your run."
            )
        case TextLeftOut(share=share, bytes=lost, unknown_sizes=unknown, reasons=reasons):
            beside = f", and {count(unknown, 'path')} of unknown size" if unknown else ""
            return "Text left out", (
                f"{size(lost)} of the corpus ({percent(share)}){beside} are no part of the text: {plain(reasons)}. "
                "What the trials learn may differ from what your run learns."
            )
        case ExpertPartial(knobs=knobs):
            return "Hand-tuned default incomplete", (
                f"A careful engineer would also set {plain(knobs)}. "
                "The space does not search that, so the hand-tuned default keeps your value."
            )
        case NotEquivalent(knobs=knobs, reason=reason):
            return "Failed the equivalence check", f"{plain(knobs)}: {plain(reason)}."
        case NotGated(knobs=knobs, reason=reason):
            return "Equivalence not checked", f"{plain(knobs)}: {plain(reason)}."
        case ValuePruned(knobs=knobs, reason=reason):
            return "Not tried on this machine", f"{plain(knobs)}: {plain(reason)}."
        case NumericsUndecided(knobs=knobs, lost=lost, margin=margin):
            return "Low precision not shown to be lossless", (
                f"{plain(knobs)}: it may cost up to {percent(lost)} of token efficiency. Only a loss of at most "
                f"{percent(margin)} would pass as none. The figures include the measured token efficiency."
            )
        case NumericsInferior(knobs=knobs, lost=lost, margin=margin):
            return "Low precision learns worse", (
                f"{plain(knobs)}: it cost {percent(lost)} of token efficiency at the tested token budget, more than "
                f"the {percent(margin)} that pass as none. It is judged over the whole plan, as a learning knob is."
            )
        case _:
            assert_never(caveat)


def horizon_words(names: Iterable[str], knobs: Mapping[str, Knob]) -> str:
    """Which way a short trial biases the named knobs; empty if it biases none of them."""
    favours = [knobs[name].short_horizon_favours for name in names if name in knobs]
    known = " and ".join(f for f in favours if f)
    return f"Short trials favour {known}." if known else ""


def noise_words(scales: Sequence[NoiseScale], batches: Mapping[str, int]) -> str:
    """What the gradient noise says about the global batch; `batches` (by owner) are in sequences."""
    if not scales:
        return ""
    seen = ", ".join(
        f"{_sequences(s.sequences)} after {tokens(s.horizon_tokens)} tokens"
        + (f" ({plain(s.sequences.reason)})" if isinstance(s.sequences, Unknown) else "")
        for s in scales
    )
    text = f"Gradient noise scale of your baseline, in sequences: {seen}."
    last = next((s.sequences for s in reversed(scales) if not isinstance(s.sequences, Unknown)), None)
    if last is None:
        return text
    for whose, batch in batches.items():
        side = (
            "below it: a larger batch costs few extra tokens"
            if batch < last
            else "above it: a larger batch has diminishing returns"
        )
        text += f" {whose} of {batch} is {side}."
    return (
        f"{text} The noise scale grows during training, and with it the largest batch that is still efficient. "
        "It is shown for information; no decision rests on it."
    )


def _sequences(scale: float | Unknown) -> str:
    return NOT_KNOWN if isinstance(scale, Unknown) else f"{scale:,.3g}"


def count(number: int, noun: str) -> str:
    """A number of things: "1 trial", "1,240 trials"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share_text(seconds: float, total: float) -> str:
    """A part of the search time: "12 min 4 s, 41 %"."""
    return f"{duration(seconds)}, {percent(seconds / total)}" if total > 0 else duration(seconds)


READING: tuple[tuple[str, str], ...] = (
    (
        "Speed-up to the same loss",
        (
            "How much sooner training reaches the same validation loss: the throughput ratio times that part of token "
            "efficiency that may be claimed for the plan. 1.25x means the same loss in four fifths of the time."
        ),
    ),
    (
        "Token efficiency",
        (
            "The tokens your baseline needs, divided by the tokens the other configuration needs for the same loss. "
            "Above 1x it needs fewer."
        ),
    ),
    (
        "Tested token budget",
        (
            "The number of tokens that a trial trains on, with a complete learning-rate schedule. "
            "It is usually far smaller than the plan, so a gain in learning need not last."
        ),
    ),
    (
        "Shown and expected",
        (
            "Shown is what fresh data confirm, down to the low end of its interval. Expected is a belief about the "
            "length of your plan. It is stated with its own interval and risk, and never added to what is shown."
        ),
    ),
    (
        "Intervals",
        (
            "The range beside a figure holds the true value with the stated probability, as far as the method's "
            "assumptions hold. It comes from fresh data that was not used to choose the winner."
        ),
    ),
    (
        "Noise floor",
        (
            "The smallest difference this machine could resolve in this search. It was found by running the baseline "
            "against copies of itself. Nothing smaller is claimed."
        ),
    ),
    (
        "ROI and break-even",
        (
            "ROI is the net saving over the plan, divided by the cost of search and adoption. Break-even is the number "
            "of training tokens, all runs together, after which the time saved exceeds the time of the search."
        ),
    ),
    (
        "Techniques",
        (
            "An ablation compares the whole recommendation with the recommendation without one technique. "
            "Techniques interact, so their effects need not multiply to the total. "
            "An explored technique was measured with one process and one seed, and not confirmed."
        ),
    ),
    (
        "What is not claimed",
        (
            "Anything about other hardware or other model sizes, or about final losses far beyond the tested token "
            "budget. A learning rate or batch size found in short trials need not be the optimum of the long run."
        ),
    ),
)
