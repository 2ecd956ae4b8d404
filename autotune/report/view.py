"""The view model of a report: strings and numbers ready to print, the same for HTML, Markdown and terminal."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.report.quantities import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFigure:
    """One figure of the summary, with a few words on its meaning."""

    label: str
    shown: Shown
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureGroup:
    """Key figures that belong together."""

    title: str
    figures: tuple[KeyFigure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A knob whose value differs from the baseline's, with the hand-tuned default's value beside it."""

    knob: str
    title: str
    baseline: str
    value: str
    expert: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """The candidate vs. another configuration."""

    label: str
    speedup: Shown
    throughput: Shown
    token_efficiency: Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueRow:
    """One searched knob and its verdict: `verdict_key` as data, `verdict` in words."""

    name: str
    title: str
    section: str
    knob_class: str
    complexity: str
    change: str
    speed: Shown
    quality: Shown
    saving: Shown
    roi: Shown
    break_even: Shown
    verdict_key: str
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A knob that one configuration changes over another."""

    knob: str
    title: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the conclusion: what is `shown`, or what is `expected` but not shown. Never a mixture of both.

    `turns` are what it changes, and `guard` says how the real run protects against a loss. Each may be empty.
    """

    kind: str
    title: str
    text: tuple[str, ...]
    turns: tuple[Turn, ...]
    figures: tuple[KeyFigure, ...]
    guard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveView:
    """The baseline's loss curve. `fit` is (irreducible, amplitude, exponent), empty if there is no curve."""

    text: str
    points: tuple[tuple[int, float], ...]
    fit: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of the search's wall time."""

    label: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    """A configuration that was measured but not chosen."""

    label: str
    changes: str
    speedup: Shown
    trials: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial."""

    number: int
    stage: str
    label: str
    reason: str
    throughput: str
    loss: str
    cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeGroup:
    """All trials of one outcome. `key` is the outcome as recorded."""

    key: str
    title: str
    count: str
    cost: str
    trials: tuple[TrialRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaveatView:
    """A caveat in words."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A whole report in words.

    `subject` names the configuration that the key figures are about, `value_title` heads the column of the values that
    `changes` lists. `parts` are what is shown and what is expected, if something is recommended that is not shown;
    `unused` is what is expected but not recommended.
    """

    study: str
    space: str
    version: str
    created_at: str
    folder: str
    verdict: str
    verdict_word: str
    headline: str
    why: tuple[str, ...]
    subject: str
    level: str
    plan: str
    parts: tuple[Part, ...]
    carried: tuple[KeyFigure, ...]
    groups: tuple[FigureGroup, ...]
    changes_title: str
    value_title: str
    changes: tuple[Change, ...]
    toml: str
    comparisons: tuple[ComparisonRow, ...]
    noise_floor: Shown
    techniques: tuple[TechniqueRow, ...]
    unused: tuple[Part, ...]
    noise_text: str
    curve: CurveView
    search_text: str
    stages: tuple[Share, ...]
    activities: tuple[Share, ...]
    runners_up: tuple[RunnerUp, ...]
    trials_text: str
    outcomes: tuple[OutcomeGroup, ...]
    text: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    caveats: tuple[CaveatView, ...]
    reading: tuple[tuple[str, str], ...]
