"""Studies on disk that are made by hand, for tests that look into their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from small_space import SPACE

from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration
from autotune.study.events import Event, StageFinished, StageStarted, StudyMended, TrialFinished, TrialStarted
from autotune.study.info import FORMAT, StudyInfo
from autotune.study.marks import StageMark
from autotune.study.store import Study
from autotune.trial.types import (
    Completed,
    Costs,
    Evaluation,
    Outcome,
    Ready,
    Slice,
    Stage,
    StageEnd,
    TrialRecord,
    TrialSpec,
)

INFO = StudyInfo(
    format=FORMAT,
    created_at="2026-01-01T00:00:00+00:00",
    space_name="space",
    corpus="/data/text",
    corpus_as_written="",
    budget_seconds=100.0,
    identity={"workload.layers": "2", "text": "abc", "code": "1"},
    forked_from="older",
    warm_start=(Configuration({"micro_batch": 4}),),
)


def make(root: Path, info: StudyInfo = INFO, name: str = "mine") -> Study:
    return Study.create(root / name, info, SPACE)


def order(study: Study, *, label: str = "trial", seed: int = 0, stage: Stage = Stage.RACE) -> TrialSpec:
    return study.order(stage=stage, label=label, config=study.space.baseline, seed=seed, horizon_tokens=1_000, block=0)


def record_of(spec: TrialSpec, outcome: Outcome | None = None) -> TrialRecord:
    """A record in which every field holds something."""
    piece = Slice(round=0, tokens=64, seconds=0.5, step_seconds=(0.2, 0.3), losses=(5.0, 4.9), peak_memory_bytes=7)
    return TrialRecord(
        spec=spec,
        outcome=outcome or Completed(),
        ready=(
            Ready(
                setup_seconds=0.1,
                compile_seconds=0.0,
                parameters=9,
                flops_per_token=54.0,
                tokens_per_step=32,
                horizon_steps=31,
                peak_memory_bytes=8,
                environment={"device": "cpu"},
            ),
        ),
        slices=(piece,),
        reference_slices=(replace(piece, seconds=0.7),),
        evaluations=(Evaluation(tokens_seen=64, loss=4.5, stderr=0.1, tokens=128, bits_per_byte=2.0),),
        costs=Costs(total_seconds=2.0, step_seconds=0.5),
        interleaved=True,
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:00:02+00:00",
    )


def event(number: int) -> Event:
    return Event(
        elapsed_seconds=1.5, what=TrialStarted(stage=Stage.RACE, number=number, label="ä\n", changes={"dtype": "fp32"})
    )


def whole(root: Path) -> Path:
    """A study with something in each of its files."""
    with make(root) as study:
        study.mark(Stage.RACE, StageMark(started_seconds=1.0, deadline_seconds=9.0))
        study.log(Event(elapsed_seconds=1.0, what=StageStarted(stage=Stage.RACE, allotted_seconds=8.0)))
        acknowledge(study)
        study.note_elapsed(5.0)
        study.keep_machine(MACHINE)
        study.mark(Stage.RACE, FINISHED)
        study.log(
            Event(elapsed_seconds=5.0, what=StageFinished(stage=Stage.RACE, spent_seconds=4.0, reason=StageEnd.DONE))
        )
        study.keep_report({"report.json": '{"verdict": "keep"}', "report.md": "# keep"})
        return study.folder


FINISHED = StageMark(started_seconds=1.0, deadline_seconds=5.0, finished_seconds=5.0, reason=StageEnd.DONE)


def acknowledge(study: Study, seed: int = 0) -> None:
    """A trial, with its events."""
    spec = order(study, seed=seed)
    study.log(
        Event(elapsed_seconds=2.0, what=TrialStarted(stage=spec.stage, number=spec.number, label="trial", changes={}))
    )
    study.acknowledge(record_of(spec))
    finished = TrialFinished(
        stage=spec.stage,
        number=spec.number,
        label="trial",
        outcome="completed",
        reason="",
        throughput_ratio=None,
        loss=None,
    )
    study.log(Event(elapsed_seconds=3.0, what=finished))


def said(study: Study) -> list[str]:
    """What was mended, in order."""
    return [event.what.text for event in study.mended if isinstance(event.what, StudyMended)]
