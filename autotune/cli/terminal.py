"""What a user sees at the terminal: progress while a search runs (stderr), its conclusion (stdout), the table of knobs.

Texts of users and workers are printed as plain text, never as markup and never with control characters.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO, assert_never

from autotune_model.knobs import KNOBS, Knob
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from autotune.analysis.recommendation import Verdict
from autotune.measure.alignment import Alignment
from autotune.quantity import Unknown
from autotune.report.quantities import Printer, Shown, duration, percent, significant
from autotune.report.view import View
from autotune.report.words import class_word, complexity_word, outcome_word, plain, stage_word, value_text
from autotune.space.limits import Pruned
from autotune.study.events import Event, EventKind, Listener
from autotune.trial.types import Stage

_ACCENT = {Verdict.ADOPT: "green", Verdict.KEEP_BASELINE: "cyan", Verdict.INCONCLUSIVE: "yellow"}
_TECHNIQUE_STYLE = {"adopt": "green", "harmful": "red", "hypothesis": "yellow"}


class Progress(Listener, Protocol):
    """A listener that shows what it is told from `with` to the end of the block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_for(stream: TextIO) -> Progress:
    """Live progress where `stream` is a terminal that can be redrawn, else a line for each event."""
    if stream.isatty():
        console = Console(file=stream)
        if not console.is_dumb_terminal:
            return LiveProgress(console)
    return PlainProgress(stream)


class PlainProgress:
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
        stage = f" {stage_word(event.stage)}:" if event.stage else ""
        try:
            self._stream.write(f"[{duration(round(event.elapsed_seconds))}]{stage} {sentence(event)}\n")
            self._stream.flush()
        except (OSError, ValueError):  # the pipe or the file is closed, or cannot encode the text
            self._is_open = False


def sentence(event: Event) -> str:
    """An event in one line, without its stage and time."""
    data = event.data
    match event.kind:
        case EventKind.SITTING_STARTED:
            verb = "resumed" if data.get("resumed") else "started"
            return _joined(f"study {_text(data, 'study')} {verb}", _clause("budget", _span(data, "budget_seconds")))
        case EventKind.STAGE_STARTED:
            return _joined("started", _clause("allotted", _span(data, "allotted_seconds")))
        case EventKind.STAGE_FINISHED:
            return _joined("finished", _clause("after", _span(data, "spent_seconds")), _text(data, "reason"))
        case EventKind.TRIAL_STARTED:
            return _joined(f"trial {_text(data, 'number')} started", _text(data, "label"), _config(data))
        case EventKind.TRIAL_FINISHED:
            return _joined(
                f"trial {_text(data, 'number')} {outcome_word(_text(data, 'outcome'))}",
                _text(data, "label"),
                _ratio(data),
                _clause("loss", _number(data, "loss")),
                _text(data, "reason"),
            )
        case EventKind.INCUMBENT:
            best = f"best so far is trial {_text(data, 'number')}"
            return _joined(best, _text(data, "label"), _ratio(data), _config(data))
        case EventKind.DECISION:
            return _joined(_text(data, "what"), _text(data, "why"))
        case EventKind.SITTING_FINISHED:
            return f"finished: {_text(data, 'verdict').replace('_', ' ')}"
        case _:
            assert_never(event.kind)


def _joined(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def _clause(word: str, value: str) -> str:
    return f"{word} {value}" if value else ""


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    return "" if value is None else plain(value)


def _figure(data: Mapping[str, object], key: str) -> float:
    """A figure by its key; NaN where it is not known."""
    value = data.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _span(data: Mapping[str, object], key: str) -> str:
    seconds = _figure(data, key)
    return duration(round(seconds)) if math.isfinite(seconds) else ""


def _number(data: Mapping[str, object], key: str) -> str:
    value = _figure(data, key)
    return significant(value, 4) if math.isfinite(value) else ""


def _ratio(data: Mapping[str, object]) -> str:
    value = _figure(data, "ratio")
    return f"{significant(value)}x" if math.isfinite(value) else ""


def _config(data: Mapping[str, object]) -> str:
    config = data.get("config")
    if not isinstance(config, Mapping):
        return ""
    return ", ".join(f"{plain(k)}={value_text(v)}" for k, v in config.items()) or "as the baseline"


class LiveProgress:
    """A panel that is redrawn in place: stages, time, the trial that runs, the best one, what came of the last ones.

    A terminal that goes away ends the output, not the search.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_open = True
        self._study = ""
        self._budget = math.nan
        self._elapsed, self._at = 0.0, time.monotonic()
        self._stage, self._stage_from, self._allotted = "", 0.0, math.nan
        self._spent: dict[str, str] = {}
        self._trial: Mapping[str, object] = {}
        self._best: Mapping[str, object] = {}
        self._decision = ""
        self._last: deque[str] = deque(maxlen=4)
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
        self._elapsed, self._at = event.elapsed_seconds, time.monotonic()
        self._take(event)
        if self._is_open and self._live.is_started:
            self._guarded(self._live.refresh)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):  # the terminal is gone, or cannot encode the text
            self._is_open = False

    def _take(self, event: Event) -> None:
        data = event.data
        match event.kind:
            case EventKind.SITTING_STARTED:
                self._study, self._budget = _text(data, "study"), _figure(data, "budget_seconds")
            case EventKind.STAGE_STARTED:
                self._stage, self._stage_from = event.stage, event.elapsed_seconds
                self._allotted = _figure(data, "allotted_seconds")
            case EventKind.STAGE_FINISHED:
                self._spent[event.stage] = _span(data, "spent_seconds")
                self._stage, self._trial = "", {}
            case EventKind.TRIAL_STARTED:
                self._trial = data
            case EventKind.TRIAL_FINISHED:
                self._last.append(sentence(event))
                self._trial = {}
            case EventKind.INCUMBENT:
                self._best = data
            case EventKind.DECISION:
                self._decision = sentence(event)
            case EventKind.SITTING_FINISHED:
                self._stage, self._trial = "", {}
            case _:
                assert_never(event.kind)

    def _panel(self) -> RenderableType:
        elapsed = self._elapsed + time.monotonic() - self._at
        return Group(Text(), self._heading(elapsed), *self._bar(elapsed), self._stages(elapsed), self._now(), Text())

    def _heading(self, elapsed: float) -> RenderableType:
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis")
        head.add_column(justify="right", no_wrap=True)
        spent = duration(round(elapsed))
        if math.isfinite(self._budget):
            left = max(0, round(self._budget - elapsed))
            spent = f"{spent} of {duration(round(self._budget))}, at most {duration(left)} left"
        head.add_row(Text.assemble(("autotune ", "bold"), self._study), Text(spent, style="dim"))
        return head

    def _bar(self, elapsed: float) -> tuple[RenderableType, ...]:
        if not (math.isfinite(self._budget) and self._budget > 0):
            return ()
        return (ProgressBar(total=self._budget, completed=min(elapsed, self._budget), finished_style="cyan"),)

    def _stages(self, elapsed: float) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for stage in Stage:
            name = stage_word(stage)
            if stage == self._stage:
                spent = duration(round(elapsed - self._stage_from))
                of = f" of {duration(round(self._allotted))}" if math.isfinite(self._allotted) else ""
                table.add_row(Text(" >", style="bold cyan"), Text(name, style="bold"), Text(spent + of))
            elif stage in self._spent:
                table.add_row(Text(" +", style="green"), Text(name), Text(self._spent[stage], style="dim"))
            else:
                table.add_row(Text(" .", style="dim"), Text(name, style="dim"), Text())
        return Padding(table, (1, 0))

    def _now(self) -> RenderableType:
        rows = Table.grid(padding=(0, 1))
        rows.add_column(style="dim", no_wrap=True, width=5)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        now, best = self._trial, self._best
        if now:
            rows.add_row(" now", Text(_joined(f"trial {_text(now, 'number')}", _text(now, "label"), _config(now))))
        if best:
            text = _joined(f"trial {_text(best, 'number')}", _text(best, "label"), _config(best))
            rows.add_row(" best", Text.assemble((_ratio(best), "bold green"), " " if _ratio(best) else "", text))
        if self._decision:
            rows.add_row(" why", Text(self._decision))
        for i, line in enumerate(reversed(self._last)):
            rows.add_row(" last" if i == 0 else "", Text(line, style="" if i == 0 else "dim"))
        return rows


def print_recommendation(view: View, console: Console) -> None:
    """The conclusion of a search: headline, key figures, what to change, techniques, caveats, where the report lies."""
    accent = Style(color=_ACCENT[Verdict(view.verdict)], bold=True)
    blocks: list[RenderableType] = [Text(view.headline, style=accent)]
    blocks += [Text(line) for line in view.why]
    blocks.append(Text(f"Your plan: {view.plan}.", style="dim"))
    blocks += [_title("Key figures", f"of {view.subject}; ranges are {view.level} intervals"), _key_figures(view)]
    if view.changes:
        blocks += [_title(view.changes_title), _changes(view, accent)]
    if view.techniques:
        blocks += [
            _title("Techniques", "judged by leaving each out; explored ones are not confirmed"),
            _techniques(view),
        ]
    if view.hypotheses:
        tries = ", ".join(f"{h.knob} = {h.value} (was {h.baseline})" for h in view.hypotheses)
        blocks += [_title("Worth trying, not claimed"), Text(tries), Text(view.hypotheses_text)]
    if view.noise_text:
        blocks += [_title("Batch and gradient noise"), Text(view.noise_text)]
    if view.caveats:
        blocks.append(_title("Caveats"))
        blocks += [Text.assemble((f"{c.title}. ", "bold"), c.text) for c in view.caveats]
    for block in blocks:
        console.print(block)
    if view.folder:
        # one line however long, so that the path can be copied
        console.print(Text(f"\nReport: {view.folder}/report.html (and report.md, report.json)"), soft_wrap=True)


def _title(title: str, remark: str = "") -> RenderableType:
    return Padding(Text.assemble((title, "bold"), (f"  {remark}" if remark else "", "dim")), (1, 0, 0, 0))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _key_figures(view: View) -> RenderableType:
    """What is known, a row each; what is not, a row for each reason."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    figures = [f for group in view.groups for f in group.figures]
    unknown: dict[str, list[str]] = {}
    for f in (*figures[:4], *view.carried, *figures[4:]):
        if f.shown.is_known:
            note = f", {f.note}" if f.note else ""
            table.add_row(Text(f.label), Text.assemble((f.shown.text, "bold"), (note, "dim")))
        else:
            unknown.setdefault(f.shown.reason, []).append(f.label.lower())
    for reason, labels in unknown.items():
        table.add_row(Text("Not known"), Text.assemble(", ".join(labels), (f": {reason}", "dim")))
    return table


def _changes(view: View, accent: Style) -> RenderableType:
    table = _table("Knob", "Your baseline", "Here", "Expert default")
    for c in view.changes:
        table.add_row(Text(c.knob), Text(c.baseline, style="dim"), Text(c.value, style=accent), Text(c.expert))
    return table


def _techniques(view: View) -> RenderableType:
    """The techniques that were measured as a table; the others below, a line for each reason."""
    table = _table("Technique", "Speed", "Quality", "Saving", "Verdict")
    others: dict[str, list[str]] = {}
    for t in view.techniques:
        if t.speed.is_known:
            name = Text.assemble((t.title, "bold"), "\n", (t.change, "dim"))
            verdict = Text(t.verdict, style=_TECHNIQUE_STYLE.get(t.verdict_key, ""))
            table.add_row(name, _stacked(t.speed), _stacked(t.quality), _stacked(t.saving), verdict)
        else:
            others.setdefault(t.reason, []).append(t.title)
    lines = [Text.assemble(", ".join(titles), (f": {reason}", "dim")) for reason, titles in others.items()]
    return Group(*([table] if table.row_count else []), *lines)


def _stacked(shown: Shown) -> Text:
    """A quantity over its interval, for a narrow column."""
    return Text.assemble(shown.value, "\n" if shown.interval else "", (shown.interval, "dim"))


def print_examination(
    environment: Mapping[str, str],
    peak_flops: Mapping[str, float],
    pruned: Sequence[Pruned],
    storage: str,
    console: Console,
) -> None:
    """What the doctor found: the machine, its rates, what of the space is of no use here, and the folder of studies."""
    machine = _table("Machine", "")
    for name, value in environment.items():
        machine.add_row(plain(name.replace("_", " ")), plain(value))
    for dtype, rate in peak_flops.items():
        share = significant(rate / peak_flops["fp32"])
        machine.add_row(f"{dtype} matrix products", f"{significant(rate / 1e9)} GFLOP/s, {share} of fp32's rate")
    machine.add_row("folder of studies", plain(storage) or "can be written")
    console.print(machine)
    if not pruned:
        console.print("Every value of the space can be tried here.")
        return
    table = _table("Not tried here", "Why")
    for gone in pruned:
        table.add_row(f"{gone.knob} = {plain(gone.value)}", plain(gone.reason))
    console.print(table)


def print_alignment(alignment: Alignment, console: Console) -> None:
    """What was found about powers of two, a line for each claim."""
    p = Printer(0.9)
    table = _table("Claim", "Throughput", "On this machine")
    for finding in alignment.findings:
        table.add_row(finding.claim, _stacked(p.ratio(finding.ratio)), finding.answer.value)
    console.print(table)
    floor = alignment.floor
    known = floor.reason if isinstance(floor, Unknown) else percent(floor)
    console.print(f"Tokens per second, as a ratio with its 90 % interval over restarts. Noise floor: {known}.")


def print_knobs(console: Console) -> None:
    """The table of knobs: everything that a study can turn."""
    table = _table("Knob", "What it does")
    table.columns[0].no_wrap = True
    for knob in KNOBS.values():
        about = f"{knob.technique} {knob.title}; {class_word(knob.knob_class)}; {complexity_word(knob.complexity)}"
        table.add_row(
            Text(knob.name, style="bold"), Text.assemble(knob.help, "\n", _domain(knob), "\n", (about, "dim"))
        )
    console.print(table)


def _domain(knob: Knob) -> str:
    if knob.values:
        return " | ".join(value_text(v) for v in knob.values)
    if knob.kind is bool:
        return "false | true"
    low, high = (f"{bound:,.0f}" if bound >= 1 else f"{bound:g}" for bound in (knob.low, knob.high))
    return f"{knob.kind.__name__} from {low} to {high}"
