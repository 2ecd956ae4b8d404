"""What a running search shows on a terminal (stderr): a panel redrawn in place, or one line per event.

Texts from users and workers are printed as plain text, never as markup and never with control characters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Protocol, Self, TextIO, assert_never

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotune.report.quantities import duration, money, percent, significant
from autotune.report.text_words import text_lines
from autotune.report.words import conclusion_word, label_word, outcome_word, plain, stage_word, value_text
from autotune.space.knobs import KnobValue
from autotune.study.events import (
    Event,
    Happening,
    IncumbentFound,
    Listener,
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
from autotune.study.fold import EndedTrial, Progress, fold
from autotune.trial.types import Stage, StageEnd


class Display(Listener, Protocol):
    """A listener that shows events until the end of its `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_for(stream: TextIO) -> Display:
    """A live panel if `stream` is a terminal that can be redrawn, else one line per event."""
    if stream.isatty():
        console = Console(file=stream)
        if not console.is_dumb_terminal:
            return LivePanel(console)
    return PlainLines(stream)


class PlainLines:
    """One line for each event: for pipes, logs and terminals that cannot be redrawn.

    A stream that is gone (a closed pipe) ends the output, not the search.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        if not self._is_open:
            return
        try:
            self._stream.write(f"[{_span(event.elapsed_seconds)}] {sentence(event.what)}\n")
            self._stream.flush()
        except (OSError, ValueError):  # the pipe or the file is closed, or cannot encode the text
            self._is_open = False


class LivePanel:
    """A panel that is redrawn in place, twice a second and after each event.

    A terminal that goes away ends the output, not the search.
    """

    def __init__(self, console: Console) -> None:
        self._is_open = True
        self._seen = (Progress(), time.monotonic())  # one tuple: the redraw thread reads both atomically
        self._live = Live(
            console=console, refresh_per_second=2, transient=True, redirect_stdout=False, get_renderable=self._panel
        )

    def __enter__(self) -> Self:
        self._guarded(self._live.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guarded(self._live.stop)

    def __call__(self, event: Event) -> None:
        progress, _ = self._seen
        self._seen = (fold(progress, event), time.monotonic())
        if not (self._is_open and self._live.is_started):
            return
        if isinstance(event.what, StudyMended):  # stays on the terminal, above the panel
            said = Text(sentence(event.what))
            self._guarded(lambda: self._live.console.print(said))
        self._guarded(self._live.refresh)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):  # the terminal is gone, or cannot encode the text
            self._is_open = False

    def _panel(self) -> RenderableType:
        progress, seen_at = self._seen
        return panel(progress, progress.elapsed_seconds + time.monotonic() - seen_at)


# -- sentences ---------------------------------------------------------------------------------------


def sentence(what: Happening) -> str:
    """What happened, in one line."""
    match what:
        case SittingStarted(study=study, budget_seconds=budget, spent_seconds=spent, resumed=resumed):
            began = f"resumed after {_span(spent)}" if resumed else "started"
            return f"study {plain(study)}: {began}, budget {_span(budget)}"
        case StudyMended(text=text):
            return f"mended: {plain(text)}"
        case MachineBusy(others_share=share):
            return (
                f"warning: other programs use {percent(share)} of this machine's cores; what is measured now is slower "
                "and less certain"
            )
        case TextRead(corpus=corpus, horizon_tokens=horizon):
            return "; ".join(text_lines(corpus, horizon_tokens=horizon))
        case StageStarted(stage=stage, allotted_seconds=allotted):
            return f"stage {stage_word(stage)}: up to {_span(allotted)}"
        case StageFinished(stage=stage, spent_seconds=spent, reason=reason):
            why = "" if reason is StageEnd.DONE else reason.value
            return f"stage {stage_word(stage)}: finished after {_joined(_span(spent), why)}"
        case TrialStarted(number=number, label=label, changes=changes):
            return f"trial {number}: {label_word(label)} ({_changes(changes)})"
        case TrialFinished(number=number, outcome=outcome, reason=reason, throughput_ratio=ratio, loss=loss):
            figures = _joined(_times(ratio), _loss(loss), plain(reason))
            return f"trial {number} {outcome_word(outcome)}" + (f": {figures}" if figures else "")
        case IncumbentFound(number=number, speedup=speedup, changes=changes):
            return f"best so far: {_joined(_times(speedup), f'trial {number}')} ({_changes(changes)})"
        case TrialRepeated(number=number, reason=reason):
            cause = plain(reason) or "the baseline was slow at that moment, too"
            return f"trial {number}: measured again, because {cause}"
        case NextTrialNotWorthIt(expected_saving=saving, trial_cost=cost, currency=currency):
            return (
                f"no more trials: the next one would cost {_amount(cost, currency)} "
                f"and is expected to save {_amount(saving, currency)}"
            )
        case StageNotWorthIt(hoped_seconds=hoped, cost_seconds=cost):
            return (
                f"no more trials: a gain would save about {_span(hoped)} of your plan, "
                f"and {_span(cost)} to find and confirm it is too much for that"
            )
        case RaceWon(label=label, changes=changes):
            return f"race: {label_word(label)} wins as the simplest of the fastest ({_changes(changes)})"
        case SittingFinished(verdict=verdict):
            return f"search finished: {conclusion_word(verdict)}"
        case _:
            assert_never(what)


def _changes(changes: Mapping[str, KnobValue]) -> str:
    return ", ".join(f"{plain(name)}={value_text(value)}" for name, value in changes.items()) or "no changes"


def _joined(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}x" if ratio is not None and math.isfinite(ratio) else ""


def _loss(loss: float | None) -> str:
    return f"loss {significant(loss, 4)}" if loss is not None and math.isfinite(loss) else ""


def _span(seconds: float) -> str:
    return duration(round(seconds)) if math.isfinite(seconds) else "an unknown time"


def _amount(amount: float, currency: str) -> str:
    return money(amount, plain(currency)) if math.isfinite(amount) else "an unknown amount"


# -- the panel ---------------------------------------------------------------------------------------


def panel(progress: Progress, elapsed_seconds: float) -> RenderableType:
    """Stages, time, running trials, the best one and the last results, after `elapsed_seconds`."""
    return Group(
        Text(),
        _heading(progress, elapsed_seconds),
        *(Text(line, style="dim") for line in _text(progress)),
        *_bar(progress.budget_seconds, elapsed_seconds),
        _stages(progress, elapsed_seconds),
        _trials(progress),
        Text(),
    )


def _text(progress: Progress) -> list[str]:
    return text_lines(progress.text.corpus, horizon_tokens=progress.text.horizon_tokens) if progress.text else []


def _heading(progress: Progress, elapsed: float) -> RenderableType:
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    spent = _span(elapsed)
    if progress.budget_seconds > 0:
        left = max(0.0, progress.budget_seconds - elapsed)
        spent = f"{spent} of {_span(progress.budget_seconds)}, at most {_span(left)} left"
    head.add_row(Text.assemble(("autotune ", "bold"), plain(progress.study)), Text(spent, style="dim"))
    return head


def _bar(budget: float, elapsed: float) -> Iterator[RenderableType]:
    if budget > 0:
        yield ProgressBar(total=budget, completed=min(elapsed, budget), finished_style="cyan")


def _stages(progress: Progress, elapsed: float) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for stage in Stage:
        name = stage_word(stage)
        if stage is progress.stage:
            time_ = f"{_span(elapsed - progress.stage_started_seconds)} of {_span(progress.allotted_seconds)}"
            table.add_row(Text(" >", style="bold cyan"), Text(name, style="bold"), Text(time_))
        elif stage in progress.spent_seconds:
            spent = _span(progress.spent_seconds[stage])
            table.add_row(Text(" +", style="green"), Text(name), Text(spent, style="dim"))
        else:
            table.add_row(Text(" .", style="dim"), Text(name, style="dim"), Text())
    return Padding(table, (1, 0))


def _trials(progress: Progress) -> RenderableType:
    rows = Table.grid(padding=(0, 1), expand=True)
    rows.add_column(style="dim", no_wrap=True, width=5)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for i, trial in enumerate(progress.running):
        rows.add_row(" now" if i == 0 else "", Text(sentence(trial)))
    if best := progress.best:
        about = f" trial {best.number} ({_changes(best.changes)})"
        rows.add_row(" best", Text.assemble((_times(best.speedup), "bold green"), about))
    if progress.decision:
        rows.add_row(" why", Text(sentence(progress.decision)))
    for i, ended in enumerate(reversed(progress.last)):
        rows.add_row(" last" if i == 0 else "", Text(_ended(ended), style="" if i == 0 else "dim"))
    return rows


def _ended(ended: EndedTrial) -> str:
    told = sentence(ended.trial)
    return told if ended.changes is None else f"{told} ({_changes(ended.changes)})"
