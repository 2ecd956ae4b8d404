import io
import os
import pty
from collections.abc import Iterator

import pytest
from autotune_model.knobs import KNOBS
from report.examples import CREATED_AT, EXAMPLES, adopt
from rich.console import Console

from autotune.cli.terminal import (
    LiveProgress,
    PlainProgress,
    print_knobs,
    print_recommendation,
    progress_for,
    sentence,
)
from autotune.report import build_view
from autotune.study.events import Event, EventKind

DATA: dict[EventKind, dict[str, object]] = {
    EventKind.SITTING_STARTED: {"study": "s", "budget_seconds": 1800.0, "spent_seconds": 0.0, "resumed": True},
    EventKind.STAGE_STARTED: {"allotted_seconds": 540.0},
    EventKind.STAGE_FINISHED: {"spent_seconds": 312.4, "reason": "all knobs tried"},
    EventKind.TRIAL_STARTED: {"number": 7, "label": "bf16", "config": {"dtype": "bf16_autocast", "tied_head": True}},
    EventKind.TRIAL_FINISHED: {
        "number": 7,
        "label": "bf16",
        "outcome": "predicted_oom",
        "reason": "needs\n9 GiB\x1b[31m",
        "ratio": 1.2345,
        "loss": 6.34123,
    },
    EventKind.INCUMBENT: {"number": 7, "label": "bf16", "ratio": 1.42, "config": {"dtype": "bf16_autocast"}},
    EventKind.DECISION: {"what": "skip compile", "why": "28 s of compilation never pay", "seconds": 28.0},
    EventKind.SITTING_FINISHED: {"verdict": "keep_baseline"},
}

SENTENCES = {
    EventKind.SITTING_STARTED: "study s resumed, budget 30 min",
    EventKind.STAGE_STARTED: "started, allotted 9 min",
    EventKind.STAGE_FINISHED: "finished, after 5 min 12 s, all knobs tried",
    EventKind.TRIAL_STARTED: "trial 7 started, bf16, dtype=bf16_autocast, tied_head=true",
    EventKind.TRIAL_FINISHED: (
        "trial 7 not started, as it would not fit in memory, bf16, 1.23x, loss 6.341, needs 9 GiB [31m"
    ),
    EventKind.INCUMBENT: "best so far is trial 7, bf16, 1.42x, dtype=bf16_autocast",
    EventKind.DECISION: "skip compile, 28 s of compilation never pay",
    EventKind.SITTING_FINISHED: "finished: keep baseline",
}


def event(kind: EventKind, data: dict[str, object] | None = None, stage: str = "explore_system") -> Event:
    return Event(kind=kind, stage=stage, elapsed_seconds=93.2, data=DATA[kind] if data is None else data)


@pytest.fixture
def terminal() -> Iterator[tuple[io.TextIOWrapper, int]]:
    """A stream that is a terminal, and the descriptor that what it shows can be read from."""
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream, reader
    os.close(reader)


@pytest.mark.parametrize("kind", EventKind)
def test_every_event_is_one_line_in_a_pipe(kind: EventKind) -> None:
    stream = io.StringIO()
    with progress_for(stream) as progress:
        assert isinstance(progress, PlainProgress)
        progress(event(kind))
    assert stream.getvalue() == f"[1 min 33 s] explore system knobs: {SENTENCES[kind]}\n"


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_without_its_figures_is_still_told(kind: EventKind) -> None:
    told = sentence(event(kind, data={"ratio": float("nan"), "loss": None, "config": None, "reason": None}))
    assert "nan" not in told
    assert "None" not in told
    assert told == sentence(event(kind, data={}))


def test_outside_of_stages_no_stage_is_named() -> None:
    stream = io.StringIO()
    PlainProgress(stream)(event(EventKind.SITTING_FINISHED, stage=""))
    assert stream.getvalue() == "[1 min 33 s] finished: keep baseline\n"


def test_a_closed_pipe_ends_the_output_and_not_the_search() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    stream.close()
    for kind in EventKind:
        progress(event(kind))


def test_a_full_pipe_error_ends_the_output_and_not_the_search() -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            raise BrokenPipeError(32, "Broken pipe")

    stream = Gone()
    progress = PlainProgress(stream)
    progress(event(EventKind.DECISION))
    progress(event(EventKind.DECISION))
    assert stream.writes == 1


def test_a_terminal_gets_live_progress(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, reader = terminal
    with progress_for(stream) as progress:
        assert isinstance(progress, LiveProgress)
        progress(event(EventKind.SITTING_STARTED, stage=""))
        progress(event(EventKind.STAGE_STARTED))
    assert "explore system knobs" in os.read(reader, 100_000).decode()


def test_a_dumb_terminal_gets_lines(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(terminal[0]), PlainProgress)


def live(width: int = 80) -> tuple[Console, LiveProgress]:
    console = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, color_system=None)
    return console, LiveProgress(console)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("data", [None, {}])
def test_every_event_can_be_shown_live(kind: EventKind, data: dict[str, object] | None) -> None:
    console, progress = live()
    with progress:
        progress(event(kind, data))
    assert "explore learning knobs" in shown(console)


def test_live_progress_shows_stage_time_trial_best_and_last() -> None:
    console, progress = live()
    with progress:
        for kind in (
            EventKind.SITTING_STARTED,
            EventKind.STAGE_STARTED,
            EventKind.INCUMBENT,
            EventKind.TRIAL_FINISHED,
            EventKind.TRIAL_STARTED,
        ):
            progress(event(kind))
        frame = shown(console)
    assert "1 min 33 s of 30 min, at most 28 min 27 s left" in frame
    assert "0 s of 9 min" in frame
    assert "1.42x trial 7, bf16, dtype=bf16_autocast" in frame
    assert "trial 7, bf16, dtype=bf16_autocast, tied_head=true" in frame
    assert "as it would not fit in memory" in frame


def test_live_progress_never_shows_what_a_worker_wrote_as_control_codes() -> None:
    console, progress = live()
    with progress:
        progress(event(EventKind.TRIAL_FINISHED))
        progress(event(EventKind.INCUMBENT, {"number": 1, "label": "[bold]x[/nonsense]\x1b]0;t\x07", "ratio": 1.0}))
    assert "\x1b]0;" not in shown(console)
    assert "[bold]x[/nonsense]" in shown(console)


def test_a_terminal_that_goes_away_ends_the_output_and_not_the_search() -> None:
    console, progress = live()
    with progress:
        progress(event(EventKind.SITTING_STARTED))
        console.file.close()
        for kind in EventKind:
            progress(event(kind))


def conclusion(name: str, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    view = build_view(EXAMPLES[name](), study="s [red]", created_at=CREATED_AT, folder="reports/s [red]")
    print_recommendation(view, console)
    return shown(console)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_conclusion_fits_the_terminal(name: str, width: int) -> None:
    text = conclusion(name, width)
    *lines, path = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in text
    assert path == "Report: reports/s [red]/report.html (and report.md, report.json)"  # whole, for copying


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_conclusion_says_the_words_of_the_report(name: str) -> None:
    view = build_view(EXAMPLES[name](), study="s", created_at=CREATED_AT)
    text = " ".join(conclusion(name).split())
    assert view.headline in text
    for sentence_ in (*view.why, *(c.text for c in view.caveats)):
        assert sentence_ in text
    for change in view.changes:
        assert change.knob in text
    for technique in view.techniques:
        assert technique.verdict in text
        assert technique.speed.value in text


def test_every_key_figure_stands_in_the_conclusion() -> None:
    view = build_view(adopt(), study="s", created_at=CREATED_AT)
    text = " ".join(conclusion("adopt", 200).split())
    for figure in (*view.carried, *(f for group in view.groups for f in group.figures)):
        assert f"{figure.label} {figure.shown.text}" in text


def test_colour_is_used_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    view = build_view(adopt(), study="s", created_at=CREATED_AT)
    coloured = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    print_recommendation(view, coloured)
    assert "\x1b[1;32m" in shown(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    grey = Console(file=io.StringIO(), width=80, force_terminal=True)
    print_recommendation(view, grey)
    assert "32m" not in shown(grey)


def test_the_table_of_knobs_names_every_knob_with_its_values() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_knobs(console)
    text = " ".join(shown(console).split())
    for knob in KNOBS.values():
        assert knob.name in text
        assert knob.technique in text
        for value in knob.values:
            assert str(value) in text
    assert "int from 1 to 1,048,576" in text
    assert "false | true" in text
    assert all(len(line) <= 80 for line in shown(console).splitlines())
