"""The report as Markdown that reads well both raw in a terminal and rendered on a forge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from autotune.report.view import KeyFigure, OutcomeGroup, Part, Share, TechniqueRow, View

_MARKUP = re.compile(r"[\\`*\[\]<&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escape(text: str) -> str:
    """`text` escaped: Markdown (and HTML inside it) shows it literally."""
    return _MARKUP.sub(r"\\\g<0>", text)


def code(text: str) -> str:
    """`text` as inline code, whatever it contains; safe in a table cell."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|") if text else ""


def render_markdown(view: View) -> str:
    """The text of `report.md`."""
    return "\n\n".join(_blocks(view)) + "\n"


def _blocks(v: View) -> Iterator[str]:
    yield f"# {escape(v.headline)}"
    yield from (escape(sentence) for sentence in v.why)
    yield "\n".join(
        f"- {name}: {escape(value)}"
        for name, value in (("Study", v.study), ("Search space", v.space), ("Plan", v.plan), ("Written", _written(v)))
        if value
    )

    for part in v.parts:
        yield from _part(part)

    yield "## Key figures"
    yield f"For {escape(v.subject)}. Ranges are {v.level} intervals."
    yield from (_figures(group.title, group.figures) for group in v.groups)

    yield "## Savings on your plan"
    if v.parts:
        yield f"With {escape(v.subject)}."
    yield _table(("", "Saved", "Note"), ((escape(f.label), escape(f.shown.text), escape(f.note)) for f in v.carried))

    yield f"## {escape(v.changes_title)}"
    if v.changes:
        yield _table(
            ("Knob", "", "Your baseline", v.value_title, "Hand-tuned default"),
            ((code(c.knob), escape(c.title), code(c.baseline), code(c.value), code(c.expert)) for c in v.changes),
        )
    else:
        yield "Nothing: it is your baseline."
    yield "The full configuration to run:"
    yield f"```toml\n{v.toml}```"

    yield "## How it compares"
    if v.parts:
        yield f"For {escape(v.subject)}."
    yield _table(
        ("", "Speed-up to the same loss", "Throughput", "Token efficiency"),
        (
            (escape(c.label), escape(c.speedup.text), escape(c.throughput.text), escape(c.token_efficiency.text))
            for c in v.comparisons
        ),
    )
    yield f"Noise floor of this machine: {escape(v.noise_floor.text)}."

    yield "## Techniques"
    yield from _techniques(v.techniques)

    for part in v.unused:
        yield from _part(part)

    if v.noise_text:
        yield "## Batch and gradient noise"
        yield escape(v.noise_text)

    yield "## Caveats"
    yield "\n".join(f"- **{escape(c.title)}.** {escape(c.text)}" for c in v.caveats) or "None."

    yield "## The baseline's loss curve"
    yield escape(v.curve.text) + ("." if v.curve.fit else "")
    if v.curve.points:
        yield _table(("Tokens", "Loss, nats per token"), ((f"{d:,}", f"{loss:.3f}") for d, loss in v.curve.points))

    yield "## Where the search time went"
    yield escape(v.search_text)
    yield from (_shares(title, shares) for title, shares in (("Stage", v.stages), ("Activity", v.activities)) if shares)

    if v.runners_up:
        yield "## Runners-up"
        yield _table(
            ("", "Speed-up to the same loss", "Changes from the baseline", "Trials"),
            ((escape(c.label), escape(c.speedup.text), code(c.changes), c.trials) for c in v.runners_up),
        )

    yield "## Trials by outcome"
    yield escape(v.trials_text) + "."
    for group in v.outcomes:
        yield from _outcome(group)

    yield "## Text"
    yield _table(("", ""), ((escape(k.capitalize()), escape(value)) for k, value in v.text))

    yield "## Environment"
    yield (
        _table(("", ""), ((escape(k), escape(value)) for k, value in v.environment))
        if v.environment
        else ("Not recorded.")
    )

    yield "## How to read this"
    yield "\n".join(f"- **{escape(term)}.** {escape(text)}" for term, text in v.reading)


def _written(v: View) -> str:
    return f"{v.created_at} by autotune {v.version}" if v.version else v.created_at


def _part(part: Part) -> Iterator[str]:
    yield f"## {escape(part.title)}"
    yield from (escape(sentence) for sentence in part.text)
    if part.turns:
        yield _table(
            ("Knob", "", "Change"),
            ((code(t.knob), escape(t.title), f"{code(t.old)} -> {code(t.new)}") for t in part.turns),
        )
    if part.figures:
        yield _figures(part.kind.capitalize(), part.figures)
    if part.guard:
        yield f"**How it is guarded.** {escape(part.guard)}"


def _figures(title: str, figures: Sequence[KeyFigure]) -> str:
    return _table((title, "", ""), ((escape(f.label), escape(f.shown.text), escape(f.note)) for f in figures))


def _techniques(techniques: Sequence[TechniqueRow]) -> Iterator[str]:
    if not techniques:
        yield "No technique was measured by itself."
        return
    yield _table(
        ("Technique", "Section", "Change", "Throughput", "Token efficiency", "Saving", "Verdict"),
        (
            (
                escape(t.title),
                escape(t.section),
                code(t.change),
                escape(t.speed.text if t.speed.is_known else t.speed.value),
                escape(t.quality.text if t.quality.is_known else t.quality.value),
                escape(t.saving.text if t.saving.is_known else t.saving.value),
                f"**{escape(t.verdict)}**",
            )
            for t in techniques
        ),
    )
    for t in techniques:
        about = f"{code(t.name)}; {escape(t.knob_class)}; {escape(t.complexity)}"
        head = f"- **{escape(t.title)}** ({about}): {escape(t.reason)}."
        if not t.speed.is_known:
            yield head
            continue
        known = {"ROI": t.roi, "break-even": t.break_even}
        gaps: dict[str, list[str]] = {}  # names by their shared text
        for name, shown in ({"token efficiency": t.quality, "saving": t.saving} | known).items():
            if not shown.is_known:
                gaps.setdefault(shown.text, []).append(name)
        told = [f"{name} {shown.text}" for name, shown in known.items() if shown.is_known]
        told += [f"{', '.join(names)} {text}" for text, names in gaps.items()]
        text = "; ".join(told)
        yield f"{head} {escape(text[:1].upper() + text[1:])}."


def _shares(title: str, shares: Sequence[Share]) -> str:
    return _table((title, "Time"), ((escape(s.label), escape(s.text)) for s in shares))


def _outcome(group: OutcomeGroup) -> Iterator[str]:
    yield f"### {escape(group.title.capitalize())} ({group.count}, {group.cost})"
    with_reason = any(t.reason for t in group.trials)
    yield _table(
        ("Trial", "Stage", "Label", "Throughput", "Loss", "Cost", *(("Reason",) if with_reason else ())),
        (
            (
                str(t.number),
                escape(t.stage),
                escape(t.label),
                escape(t.throughput),
                escape(t.loss),
                t.cost,
                *((escape(t.reason),) if with_reason else ()),
            )
            for t in group.trials
        ),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns line up in plain text."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def joined(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([joined(lines[0]), joined(["-" * w for w in widths]), *map(joined, lines[1:])])
