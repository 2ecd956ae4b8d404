"""Recommend: draw the conclusion from the records."""

from __future__ import annotations

from autotune.analysis.case import Case
from autotune.analysis.conclude import conclude
from autotune.analysis.evidence import Calibration, calibration_of
from autotune.analysis.recommendation import Recommendation
from autotune.measure.lab import Lab
from autotune.quantity import or_else
from autotune.search.common import case_of
from autotune.study.events import SittingFinished


def recommend(lab: Lab, calibration: Calibration) -> Recommendation:
    """The recommendation from the study's records."""
    recommendation = conclude(whole_case(lab, calibration))
    lab.tell(SittingFinished(verdict=recommendation.verdict.value))
    return recommendation


def whole_case(lab: Lab, calibration: Calibration) -> Case:
    """The study as a case; the plan's cost uses the baseline's rate over the whole study."""
    whole = or_else(calibration_of(lab.study.records), calibration)
    return case_of(lab, whole, search_seconds=lab.study.search_seconds)
