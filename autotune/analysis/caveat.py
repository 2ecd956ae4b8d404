"""What a reader must know before believing a figure: a closed union of frozen caveats, worded in the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSteadyState:
    """A confirming trial never settled to a steady speed."""

    trial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyMachine:
    """The noise floor, as a ratio minus one, says more about the machine than about any technique."""

    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetEnded:
    """The budget ended within a stage whose data are missed."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceSkipped:
    """There was no time to race the candidates that exploration found close together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewRestarts:
    """The claim rests on fewer restarts than its interval wants."""

    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningIsHypothesis:
    """A learning gain, a ratio of tokens, that is not claimed for the plan; `knobs` joined by commas."""

    knobs: str
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortHorizon:
    """Learning knobs were judged over fewer tokens than the plan has."""

    knobs: str
    horizon_tokens: int
    plan_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedData:
    """The longest judged trial read its text more than once."""

    epochs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveNotFitted:
    """No loss can be turned into tokens."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyCensored:
    """The winner's loss lies outside the baseline's curve; its token efficiency, a ratio, is a bound."""

    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NotEquivalent:
    """A configuration that failed the equivalence gate, by what it changed."""

    knobs: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotGated:
    """System knobs of the candidate that no gate could compare with the baseline before the run."""

    knobs: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuePruned:
    """A value that this machine cannot run, or cannot gain from."""

    knobs: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """Steps of fp16 training that made no update, of all steps of the trials in which that happened."""

    skipped: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternatedSessions:
    """Two sessions did not fit in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyUnknown:
    """Energy could be neither measured nor estimated."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """The plan names no price; device-hours stand for money."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStoppedEarly:
    """A stage ended because going on would have cost more than it was expected to save."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertPartial:
    """Knobs that a careful engineer would set and the space does not search."""

    knobs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsUndecided:
    """Low precision that may cost up to `lost` of the tokens; at most `margin` would pass as none."""

    knobs: str
    lost: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsInferior:
    """Low precision that cost `lost` of the tokens, more than the `margin`."""

    knobs: str
    lost: float
    margin: float


Caveat = (
    NoSteadyState
    | NoisyMachine
    | BudgetEnded
    | RaceSkipped
    | FewRestarts
    | LearningIsHypothesis
    | ShortHorizon
    | RepeatedData
    | CurveNotFitted
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
