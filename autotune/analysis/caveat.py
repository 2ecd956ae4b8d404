"""Caveats on a recommendation's figures: a closed union of frozen dataclasses, worded in the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSteadyState:
    """A confirmation trial never reached a steady speed."""

    trial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyMachine:
    """The noise floor (a ratio minus one) is large: it may hide the effect of most techniques."""

    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetEnded:
    """The budget ended during a stage whose data are needed."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceSkipped:
    """There was no time to race candidates that were close in exploration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewRestarts:
    """The claim has fewer restarts than a reliable interval needs."""

    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningIsExpected:
    """A learning gain at the plan's length, a ratio of tokens, that is expected but not claimed."""

    knobs: str
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyMachine:
    """While trials ran, other programs computed in this share of the machine's cores, on average."""

    others_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinationsNotFound:
    """A stage ended because hardly any combination of the values is possible and no new one was found."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedIsExpected:
    """System knobs that were fast in trials, but are not confirmed over restarts."""

    knobs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsTooShort:
    """The trials of `horizon_tokens` measure the area under the learning-rate schedule: no figure about learning.

    `slope` and `r_squared` are those of ln of token efficiency on ln of the area. Trials of `informative_tokens` may
    inform; as many as there were would take `cost_seconds`.
    """

    horizon_tokens: int
    slope: float
    r_squared: float
    informative_tokens: float
    cost_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortHorizon:
    """Learning knobs were tested on fewer tokens than the plan has."""

    knobs: str
    horizon_tokens: int
    plan_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyShort:
    """The text has fewer different tokens than the tokenizer was to have."""

    wanted: int
    had: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLeftOut:
    """A large share of the corpus (of all bytes that are known) is no part of the text.

    `unknown_sizes` counts folders that were not entered and files that could not be looked at.
    """

    share: float
    bytes: int
    unknown_sizes: int
    reasons: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedData:
    """The longest trial judged on its loss read the text more than once."""

    epochs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveNotFitted:
    """Without a loss curve, losses cannot be converted to tokens."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSteepening:
    """The baseline's loss still falls ever faster up to `horizon_tokens`: no loss can be told for longer runs."""

    horizon_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineLogUnfit:
    """The log of the baseline cannot be of this model and text, so it is not used."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyCensored:
    """The winner's loss is outside the baseline's curve, so its token efficiency, a ratio, is only a bound."""

    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NotEquivalent:
    """A configuration failed the equivalence gate; `knobs` is what it changed."""

    knobs: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotGated:
    """System knobs of the candidate that no equivalence gate could check."""

    knobs: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuePruned:
    """A value was skipped: this machine cannot run it, or cannot gain from it."""

    knobs: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """fp16 training skipped updates: `skipped` of all `steps` of the affected trials."""

    skipped: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternatedSessions:
    """Two sessions did not fit in memory together, so whole runs alternated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyUnknown:
    """Energy was neither measured nor estimated."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """The plan has no price; figures are in device-hours instead of money."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStoppedEarly:
    """A stage ended because continuing was expected to cost more than it saves."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertPartial:
    """The hand-tuned default lacks knobs that the space does not search."""

    knobs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsUndecided:
    """Low precision may cost up to the share `lost` of the tokens, which exceeds the non-inferiority `margin`."""

    knobs: str
    lost: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsInferior:
    """Low precision cost the share `lost` of the tokens, more than the non-inferiority `margin`."""

    knobs: str
    lost: float
    margin: float


Caveat = (
    NoSteadyState
    | NoisyMachine
    | BudgetEnded
    | RaceSkipped
    | FewRestarts
    | LearningIsExpected
    | SpeedIsExpected
    | BusyMachine
    | CombinationsNotFound
    | TrialsTooShort
    | ShortHorizon
    | VocabularyShort
    | TextLeftOut
    | RepeatedData
    | CurveNotFitted
    | CurveSteepening
    | BaselineLogUnfit
    | EfficiencyCensored
    | NotEquivalent
    | NotGated
    | ValuePruned
    | Overflow
    | AlternatedSessions
    | EnergyUnknown
    | Unpriced
    | SearchStoppedEarly
    | ExpertPartial
    | NumericsUndecided
    | NumericsInferior
)
