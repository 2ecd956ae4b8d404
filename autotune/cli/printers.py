"""What a command prints on stdout: the conclusion of a search, what the doctor found, the table of knobs.

Texts from users and workers are printed as plain text, never as markup and never with control characters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from autotune.analysis.recommendation import Verdict
from autotune.quantity import Interval, Unknown
from autotune.report.quantities import Printer, Shown, percent, significant
from autotune.report.text_words import text_rows
from autotune.report.view import KeyFigure, Part, View
from autotune.report.words import class_word, complexity_word, plain, value_text
from autotune.space.knobs import Choice, Domain, FloatRange, IntRange, Knob
from autotune.space.limits import Pruned

if TYPE_CHECKING:  # it imports the statistics, which `autotune knobs` should not wait for
    from autotune.analysis.look import Looked
    from autotune.measure.alignment import Alignment
    from autotune.workload.machine import Machine

_ACCENT = {
    Verdict.CLAIMED: "green",
    Verdict.EXPECTED: "magenta",
    Verdict.RACE: "magenta",
    Verdict.KEEP: "cyan",
    Verdict.NOT_INFORMATIVE: "yellow",
}
_PART_STYLE = {"shown": "green", "expected": "magenta"}
_TECHNIQUE_STYLE = {"adopt": "green", "harmful": "red", "expected": "magenta"}
_LEVEL = 0.9
_NORMAL_QUANTILE = NormalDist().inv_cdf(0.5 + _LEVEL / 2)


def print_recommendation(view: View, console: Console) -> None:
    """The conclusion of a search: headline, what is shown and expected, key figures, changes, techniques, caveats."""
    accent = Style(color=_ACCENT[Verdict(view.verdict)], bold=True)
    blocks: list[RenderableType] = [Text(view.headline, style=accent)]
    blocks += [Text(line) for line in view.why]
    blocks.append(Text(f"Your plan: {view.plan}.", style="dim"))
    blocks += [block for part in view.parts for block in _part(part)]
    blocks += [_title("Key figures", f"for {view.subject}; ranges are {view.level} intervals"), _key_figures(view)]
    if view.changes:
        blocks += [_title(view.changes_title), _changes(view, accent)]
    if view.techniques:
        blocks += [
            _title("Techniques", "measured by ablation; explored ones are not confirmed"),
            _techniques(view),
        ]
    blocks += [block for part in view.unused for block in _part(part)]
    if view.noise_text:
        blocks += [_title("Batch size and gradient noise"), Text(view.noise_text)]
    if view.caveats:
        blocks.append(_title("Caveats"))
        blocks += [Text.assemble((f"{c.title}. ", "bold"), c.text) for c in view.caveats]
    for block in blocks:
        console.print(block)
    if view.folder:
        # never wrapped, so that the path can be copied
        console.print(Text(f"\nReport: {view.folder}/report.html (and report.md, report.json)"), soft_wrap=True)


def print_examination(machine: Machine, pruned: Sequence[Pruned], storage: str, console: Console) -> None:
    """What the doctor found: the machine, its rates, the text, what it cannot use of the space, the folder of studies.

    `storage` says what is wrong with the folder.
    """
    table = _table("Machine", "")
    for name, value in machine.environment.items():
        table.add_row(Text(plain(name.replace("_", " "))), Text(plain(value)))
    for dtype, rate in machine.peak_flops.items():
        table.add_row(f"{dtype} matmul", _rate(dtype, machine.peak_flops, f"{significant(rate / 1e9)} GFLOP/s"))
    for name, value in text_rows(machine.corpus):
        table.add_row(name, Text(value))
    table.add_row("studies folder", Text(plain(storage) or "writable"))
    console.print(table)
    if not pruned:
        console.print("This machine can run every value in the space.")
        return
    table = _table("Skipped here", "Why")
    for gone in pruned:
        table.add_row(Text(f"{gone.knob} = {plain(gone.value)}"), Text(plain(gone.reason)))
    console.print(table)


def print_alignment(alignment: Alignment, console: Console) -> None:
    """The findings about powers of two, one line per claim."""
    p = Printer(_LEVEL)
    table = _table("Claim", "Throughput", "On this machine")
    for finding in alignment.findings:
        table.add_row(Text(plain(finding.claim)), _stacked(p.ratio(finding.ratio)), finding.answer.value)
    console.print(table)
    floor = alignment.floor
    known = f"not known: {floor.reason}" if isinstance(floor, Unknown) else percent(floor)
    about = "Throughput is a ratio of tokens per second, with its 90 % interval over process restarts."
    console.print(Text(f"{about} Noise floor: {known}."))


def print_look(looked: Looked, console: Console) -> None:
    """What run 1 showed, and what the other runs should use."""
    p = Printer(_LEVEL)
    tried = ", ".join(f"{name} = {value_text(value)}" for name, value in looked.changes.items())
    verdict = "Keep it for the other runs" if looked.is_kept else "Go back for the other runs"
    console.print(Text(f"{verdict}: {plain(tried)}", style=Style(color="green" if looked.is_kept else "yellow")))
    table = _table("", "Speed-up", "Probability of being worse")
    for words, belief in (("expected before", looked.before), ("expected now", looked.after)):
        speedup = Interval.around(belief.mean, _NORMAL_QUANTILE * belief.sd, level=_LEVEL).map(math.exp)
        table.add_row(words, _stacked(p.ratio(speedup)), percent(belief.probability_worse))
    table.add_row("shown by run 1", _stacked(p.ratio(looked.shown)), "")
    console.print(table)
    console.print(Text("Speed-ups are over the claimed part, with 90 % intervals; one run on one seed shows them."))


def print_knobs(knobs: Mapping[str, Knob], console: Console) -> None:
    """The table of knobs: everything that a space can search."""
    table = _table("Knob", "What it does")
    table.columns[0].no_wrap = True
    for knob in knobs.values():
        about = f"{knob.title}; {class_word(knob.knob_class)}; {complexity_word(knob.complexity)}"
        technique = f"technique {knob.technique}, " if knob.technique else ""
        table.add_row(
            Text(knob.name, style="bold"),
            Text.assemble(plain(knob.help), "\n", _domain(knob.domain), "\n", (technique + about, "dim")),
        )
    console.print(table)


def _title(title: str, remark: str = "") -> RenderableType:
    return Padding(Text.assemble((title, "bold"), (f"  {remark}" if remark else "", "dim")), (1, 0, 0, 0))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _part(part: Part) -> Iterator[RenderableType]:
    style = Style(color=_PART_STYLE[part.kind], bold=True)
    yield Padding(Text(part.title, style=style), (1, 0, 0, 0))
    yield from (Text(sentence) for sentence in part.text)
    for turn in part.turns:
        yield Text.assemble(f"  {turn.knob}  ", (turn.old, "dim"), " -> ", (turn.new, style))
    if part.figures:
        yield _figures(part.figures)
    if part.guard:
        yield Text.assemble(("How it is guarded. ", "bold"), part.guard)


def _key_figures(view: View) -> RenderableType:
    speed, *others = view.groups
    return _figures((*speed.figures, *view.carried, *(f for group in others for f in group.figures)))


def _figures(figures: Sequence[KeyFigure]) -> RenderableType:
    """Known figures, one row each; unknown ones, one row per reason."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    unknown: dict[str, list[str]] = {}
    for f in figures:
        if f.shown.is_known:
            note = f", {f.note}" if f.note else ""
            table.add_row(Text(f.label), Text.assemble((f.shown.text, "bold"), (note, "dim")))
        else:
            unknown.setdefault(f.shown.reason, []).append(f.label)
    for reason, labels in unknown.items():
        table.add_row(Text("Not known"), Text.assemble(", ".join(labels), (f": {reason}", "dim")))
    return table


def _changes(view: View, accent: Style) -> RenderableType:
    table = _table("Knob", "Your baseline", view.value_title, "Hand-tuned default")
    for c in view.changes:
        table.add_row(Text(c.knob), Text(c.baseline, style="dim"), Text(c.value, style=accent), Text(c.expert))
    return table


def _techniques(view: View) -> RenderableType:
    """A table of the measured techniques; the others below it, one line per reason."""
    table = _table("Technique", "Throughput", "Token efficiency", "Saving", "Verdict")
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


def _rate(dtype: str, peak_flops: Mapping[str, float], rate: str) -> str:
    """A rate and, for low precision, how it compares with fp32's."""
    if dtype == "fp32" or not peak_flops.get("fp32"):
        return rate
    return f"{rate}, {significant(peak_flops[dtype] / peak_flops['fp32'])}x fp32"


def _domain(domain: Domain) -> str:
    match domain:
        case Choice(values=values):
            return " | ".join(map(value_text, values))
        case IntRange(low=low, high=high):
            return f"int from {low:,} to {high:,}"
        case FloatRange(low=low, high=high):
            start, end = (f"{bound:,.0f}" if bound >= 1 else f"{bound:g}" for bound in (low, high))
            return f"float from {start} to {end}"
