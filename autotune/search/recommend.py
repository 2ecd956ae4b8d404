"""Recommend: conclude from the records."""

from __future__ import annotations

from autotune.analysis.caveats import Circumstances
from autotune.analysis.conclude import conclude
from autotune.analysis.evidence import Calibration, calibration_of
from autotune.analysis.recommendation import Recommendation
from autotune.measure.lab import Lab
from autotune.quantity import Unknown
from autotune.search.common import expert_of
from autotune.study.events import EventKind
from autotune.trial.types import Stage, StageEnd


def recommend(lab: Lab, calibration: Calibration) -> Recommendation:
    """The recommendation that the study's records support; its plan is costed with the rate of the whole study."""
    whole = calibration_of(lab.study.records)
    facts = Circumstances(
        expert=expert_of(lab),
        search_seconds=lab.study.search_seconds,
        seconds_by_stage=lab.study.seconds_by_stage,
        stage_ends={s: StageEnd(m.reason) for s in Stage if (m := lab.study.stage(s)) and m.finished},
        train_tokens=lab.machine.corpus.train_tokens,
        environment=lab.machine.environment,
        peak_flops=lab.machine.peak_flops,
        pruned=lab.pruned,
    )
    recommendation = conclude(lab.space, lab.study.records, calibration if isinstance(whole, Unknown) else whole, facts)
    lab.tell(EventKind.SITTING_FINISHED, verdict=recommendation.verdict.value)
    return recommendation
