"""What a running search shows: a panel on a terminal, lines elsewhere."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pty
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scripted_study import ScriptedStudy

from autotune.cli.live import LivePanel, PlainLines, panel, progress_for, sentence
from autotune.simulation.executor import MACHINE
from autotune.space.knobs import KnobValue
from autotune.study.events import (
    Event,
    Happening,
    IncumbentFound,
    MachineBusy,
    NextTrialNotWorthIt,
    RaceWon,
    SittingFinished,
    SittingStarted,
    StageFinished,
    StageNotWorthIt,
    StageStarted,
    StudyMended,
    TextRead,
    TrialFinished,
    TrialRepeated,
    TrialStarted,
)
from autotune.study.fold import Progress, fold
from autotune.trial.types import Stage, StageEnd

SYSTEM = Stage.EXPLORE_SYSTEM
CHANGES: dict[str, KnobValue] = {"dtype": "bf16_autocast", "tied_head": True}
STARTED = SittingStarted(study="s", budget_seconds=1800.0, spent_seconds=240.0, resumed=True)
STAGE = StageStarted(stage=SYSTEM, allotted_seconds=540.0)
TRIAL = TrialStarted(stage=SYSTEM, number=7, label="proposal 2", changes=CHANGES)
PRUNED = TrialFinished(
    stage=SYSTEM,
    number=7,
    label="proposal 2",
    outcome="pruned",
    reason="slower than the best",
    throughput_ratio=0.728,
    loss=None,
)
BEST = IncumbentFound(stage=SYSTEM, number=7, label="proposal 2", speedup=1.42, changes=CHANGES)

SENTENCES: list[tuple[Happening, str]] = [
    (STARTED, "study s: resumed after 4 min, budget 30 min"),
    (
        SittingStarted(study="s", budget_seconds=1800.0, spent_seconds=0.0, resumed=False),
        "study s: started, budget 30 min",
    ),
    (StudyMended(text="a\x1b[2J was damaged"), "mended: a [2J was damaged"),
    (
        MachineBusy(others_share=0.4),
        "warning: other programs use 40 % of this machine's cores; what is measured now is slower and less certain",
    ),
    (
        TextRead(corpus=MACHINE.corpus, horizon_tokens=200_000_000),
        (
            "text: 1,000 documents; tokens: 100,000,000 to train on, 1,000,000 held out (0.99 %); vocabulary: 2,048; "
            "too little text: trials of 200,000,000 tokens read it 2.00 times, which favours what learns by heart: "
            "use more text or a smaller horizon_tokens"
        ),
    ),
    (STAGE, "stage explore system knobs: up to 9 min"),
    (
        StageFinished(stage=SYSTEM, spent_seconds=312.4, reason=StageEnd.DONE),
        "stage explore system knobs: finished after 5 min 12 s",
    ),
    (
        StageFinished(stage=SYSTEM, spent_seconds=312.4, reason=StageEnd.BUDGET),
        f"stage explore system knobs: finished after 5 min 12 s, {StageEnd.BUDGET.value}",
    ),
    (
        TrialStarted(stage=Stage.CALIBRATE, number=0, label="baseline", changes={}),
        "trial 0: baseline (no changes)",
    ),
    (TRIAL, "trial 7: proposal 2 (dtype=bf16_autocast, tied_head=true)"),
    (PRUNED, "trial 7 pruned: 0.73x, slower than the best"),
    (
        TrialFinished(
            stage=Stage.CONFIRM,
            number=9,
            label="winner",
            outcome="completed",
            reason="",
            throughput_ratio=1.2345,
            loss=6.34123,
        ),
        "trial 9 completed: 1.23x, loss 6.341",
    ),
    (
        TrialFinished(stage=SYSTEM, number=9, label="", outcome="hung", reason="", throughput_ratio=None, loss=None),
        "trial 9 hung",
    ),
    (BEST, "best so far: 1.42x, trial 7 (dtype=bf16_autocast, tied_head=true)"),
    (
        TrialRepeated(stage=SYSTEM, number=7),
        "trial 7: measured again, because the baseline was slow at that moment, too",
    ),
    (
        NextTrialNotWorthIt(stage=SYSTEM, expected_saving=0.0012, trial_cost=0.0031, currency="USD"),
        "no more trials: the next one would cost 0.0031 USD and is expected to save 0.0012 USD",
    ),
    (
        StageNotWorthIt(stage=SYSTEM, hoped_seconds=80.0, cost_seconds=180.0),
        (
            "no more trials: a gain would save about 1 min 20 s of your plan, "
            "and 3 min to find and confirm it is too much for that"
        ),
    ),
    (
        RaceWon(stage=Stage.RACE, label="finalist 1", changes=CHANGES),
        "race: finalist 1 wins as the simplest of the fastest (dtype=bf16_autocast, tied_head=true)",
    ),
    (SittingFinished(verdict="keep"), "search finished: keep your baseline"),
]


def event(what: Happening) -> Event:
    return Event(elapsed_seconds=93.2, what=what)


@pytest.fixture
def terminal() -> Iterator[tuple[io.TextIOWrapper, int]]:
    """A stream that is a terminal, and the descriptor that what it shows can be read from."""
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream, reader
    os.close(reader)


# -- lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "told"), SENTENCES, ids=lambda value: type(value).__name__)
def test_an_event_is_one_sentence(what: Happening, told: str) -> None:
    assert sentence(what) == told


def test_every_kind_of_event_has_its_sentence_tested() -> None:
    assert {type(what) for what, _ in SENTENCES} == set(get_args(Happening))


def is_printable_in_digits(what: Happening) -> bool:
    """Whether its numbers, if they are any, are no larger than what rounding to a few digits leaves finite."""
    values = [getattr(what, f.name) for f in dataclasses.fields(what)]
    return all(abs(v) < 1e300 for v in values if isinstance(v, float) and math.isfinite(v))


ANY_EVENT = st.one_of(*(st.from_type(kind) for kind in get_args(Happening))).filter(is_printable_in_digits)


@given(ANY_EVENT)
def test_whatever_an_event_holds_its_sentence_is_one_printable_line(what: Happening) -> None:
    assert sentence(what).isprintable()


def test_a_pipe_gets_a_line_for_each_event() -> None:
    stream = io.StringIO()
    with progress_for(stream) as progress:
        assert isinstance(progress, PlainLines)
        progress(event(STAGE))
        progress(event(PRUNED))
    assert stream.getvalue() == (
        "[1 min 33 s] stage explore system knobs: up to 9 min\n"
        "[1 min 33 s] trial 7 pruned: 0.73x, slower than the best\n"
    )


def test_a_closed_pipe_ends_the_output_and_not_the_search() -> None:
    stream = io.StringIO()
    progress = PlainLines(stream)
    stream.close()
    for what, _ in SENTENCES:
        progress(event(what))


def test_a_full_pipe_error_ends_the_output_and_not_the_search() -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError(32, "Broken pipe")

    stream = Gone()
    progress = PlainLines(stream)
    progress(event(STAGE))
    progress(event(STAGE))
    assert stream.writes == 1


# -- the panel ---------------------------------------------------------------------------------------


def test_a_terminal_gets_the_panel(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, reader = terminal
    with progress_for(stream) as progress:
        assert isinstance(progress, LivePanel)
        progress(event(STARTED))
        progress(event(STAGE))
    assert "explore system knobs" in os.read(reader, 100_000).decode()


def test_a_dumb_terminal_gets_lines(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(terminal[0]), PlainLines)


def screen(width: int = 80, *, is_terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, height=40, force_terminal=is_terminal, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def frame(*happenings: Happening, elapsed_seconds: float = 93.2, width: int = 100) -> str:
    """The panel after those events."""
    console = screen(width)
    progress = reduce(fold, map(event, happenings), Progress())
    console.print(panel(progress, elapsed_seconds))
    return shown(console)


def test_the_panel_shows_stage_time_trials_best_and_last() -> None:
    other = TrialStarted(stage=SYSTEM, number=8, label="proposal 3", changes={})
    text = frame(STARTED, STAGE, TRIAL, BEST, PRUNED, other, elapsed_seconds=105.2)
    assert "1 min 45 s of 30 min, at most 28 min 15 s left" in text
    assert "> explore system knobs" in text
    assert "12 s of 9 min" in text
    assert "now  trial 8: proposal 3 (no changes)" in text
    assert "best 1.42x trial 7 (dtype=bf16_autocast, tied_head=true)" in text
    assert "last trial 7 pruned: 0.73x, slower than the best (dtype=bf16_autocast, tied_head=true)" in text


def test_a_trial_that_is_too_long_to_be_told_whole_keeps_its_place() -> None:
    long = TrialStarted(stage=SYSTEM, number=7, label="proposal 2", changes=CHANGES | {"attention": "x" * 100})
    assert "\n now  trial 7: proposal 2 (dtype=bf16" in frame(long)


def test_a_finished_stage_shows_what_it_took_and_a_decision_is_shown() -> None:
    end = StageFinished(stage=SYSTEM, spent_seconds=312.4, reason=StageEnd.DONE)
    text = frame(STAGE, end, TrialRepeated(stage=SYSTEM, number=7))
    assert "+ explore system knobs   5 min 12 s" in text
    assert "why  trial 7: measured again" in text


def test_before_anything_happened_there_is_a_panel() -> None:
    assert "calibrate" in frame()


@given(st.lists(ANY_EVENT))
def test_whatever_happens_the_panel_fits_and_holds_no_control_codes(happenings: list[Happening]) -> None:
    text = frame(*happenings, width=60)
    assert all(line.isprintable() for line in text.split("\n"))


def test_what_a_worker_wrote_is_neither_markup_nor_control_code() -> None:
    nasty = TrialStarted(stage=SYSTEM, number=1, label="[bold]x[/nonsense]\x1b]0;t\x07", changes={})
    assert "[bold]x[/nonsense]" in frame(nasty)
    console = screen(is_terminal=True)
    with LivePanel(console) as progress:
        progress(event(nasty))
    assert "\x1b]0;" not in shown(console)
    assert "[bold]x[/nonsense]" in shown(console)


def test_a_terminal_that_goes_away_ends_the_output_and_not_the_search() -> None:
    console = screen(is_terminal=True)
    with LivePanel(console) as progress:
        progress(event(STARTED))
        console.file.close()
        for what, _ in SENTENCES:
            progress(event(what))


# -- a whole search ----------------------------------------------------------------------------------


def test_the_best_so_far_of_a_search_shows_its_speed_up(tmp_path: Path) -> None:
    console, stream = screen(160, is_terminal=True), io.StringIO()
    scripted = ScriptedStudy(folder=tmp_path / "s", budget_seconds=400.0)
    with LivePanel(console) as live, PlainLines(stream) as lines:
        scripted.sit([live, lines])
    best = [e.what for e in scripted.events if isinstance(e.what, IncumbentFound)]
    assert best
    for incumbent in best:
        assert f"best so far: {incumbent.speedup:.2f}x, trial {incumbent.number} (" in stream.getvalue()
    top = max(best, key=lambda incumbent: incumbent.speedup)
    assert f"best {top.speedup:.2f}x trial {top.number} (" in shown(console)
    assert len(stream.getvalue().splitlines()) == len(scripted.events)
