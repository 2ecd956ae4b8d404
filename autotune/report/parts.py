"""The two parts of a conclusion, apart from each other: what is shown, and what is expected but not shown."""

from __future__ import annotations

from typing import assert_never

from autotune.analysis.decision import Claimed, Expected, Keep, NotInformative, RaceInRun, Unguarded
from autotune.analysis.recommendation import Recommendation
from autotune.quantity import Unknown
from autotune.report import words
from autotune.report.changes import changed, rest_of, turns_of
from autotune.report.decision_words import guard_words
from autotune.report.key_figures import expected_figures, shown_figures
from autotune.report.quantities import Printer
from autotune.report.view import Part
from autotune.report.words import plain
from autotune.space.configuration import Configuration

_IS_DROPPED = "They do not count that it is dropped if it turns out to be worse."
_NOT_SHOWN = (
    "These figures are for the length of your plan. They combine shorter trials with what is published about how such "
    "gains change with length. Nothing shows them yet, so no other figure of this report includes them."
)


def parts_of(r: Recommendation, p: Printer, study: str) -> tuple[Part, ...]:
    """What is shown and what is expected; empty if nothing is recommended that is not shown."""
    match r.decision:
        case Expected(config=config, guard=guard) | RaceInRun(config=config, guard=guard):
            remark = "" if isinstance(guard, Unguarded) else _IS_DROPPED
            return _shown(r, p), _expected(r, p, config, remark=remark, guard=guard_words(r, config, guard, study))
        case Claimed() | Keep() | NotInformative():
            return ()
        case _:
            assert_never(r.decision)


def unused_part(r: Recommendation, p: Printer) -> tuple[Part, ...]:
    """What is expected of a configuration that is not recommended for it; empty if there is none."""
    match r.decision:
        case Expected() | RaceInRun():
            return ()
        case Claimed() | Keep() | NotInformative():
            if isinstance(r.expectation, Unknown):
                return ()
            reason = (
                f"It is not recommended: compared with {rest_of(r)}, it is not expected to pay at an acceptable risk, "
                "not even if it is dropped once it turns out to be worse."
            )
            return (_expected(r, p, r.expectation.config, title="Expected, not shown, not recommended", reason=reason),)
        case _:
            assert_never(r.decision)


def _shown(r: Recommendation, p: Printer) -> Part:
    is_claimed = r.claimed != r.baseline
    return Part(
        kind="shown",
        title="Shown",
        text=("The claimed part, confirmed on fresh data.",) if is_claimed else ("Nothing is shown to pay.",),
        turns=turns_of(r.baseline, r.claimed, r.knobs),
        figures=shown_figures(r, p) if is_claimed else (),
        guard="",
    )


def _expected(
    r: Recommendation,
    p: Printer,
    config: Configuration,
    *,
    title: str = "Expected, not shown",
    reason: str = "",
    remark: str = "",
    guard: str = "",
) -> Part:
    favours = words.horizon_words(changed(r.claimed, config), r.knobs)
    missing = f"Its figures are not known: {plain(r.expectation.reason)}." if isinstance(r.expectation, Unknown) else ""
    return Part(
        kind="expected",
        title=title,
        text=tuple(filter(None, (reason, missing or f"{_NOT_SHOWN} {remark}".strip(), favours))),
        turns=turns_of(r.claimed, config, r.knobs),
        figures=() if isinstance(r.expectation, Unknown) else expected_figures(r, r.expectation, p),
        guard=guard,
    )
