"""The table of techniques for this machine: what each knob of `techniques.toml` does to speed and quality, and whether
it pays. Writes it and the answer to the claim about powers of two into docs/techniques.md.

    python benchmarks/techniques.py                 # about 20 minutes: a search of 15, then the pairs
    python benchmarks/techniques.py --budget 2m --print-only
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from autotune import api
from autotune.analysis.recommendation import Recommendation, TechniqueEffect
from autotune.cli.live import progress_for
from autotune.measure.alignment import Alignment
from autotune.quantity import Quantity, Unknown
from autotune.report.quantities import Printer, percent
from autotune.report.words import technique_word
from autotune.space.document import parse_duration
from autotune.space.knobs import Complexity

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "techniques.md"
SPACES = ROOT / "search_spaces"
P = Printer(0.9)


def row(t: TechniqueEffect, currency: str) -> str:
    """One line of the table."""

    def text(quantity: Quantity, shown: Callable[[Quantity], object]) -> str:
        return "" if isinstance(quantity, Unknown) else str(getattr(shown(quantity), "text"))  # noqa: B009

    cells = [
        t.section,
        f"`{t.name}`",
        f"{t.baseline_value} to {t.value}" if t.value != t.baseline_value else t.baseline_value,
        text(t.speed_effect, P.ratio),
        text(t.quality_effect, P.ratio),
        Complexity(t.complexity).name.lower(),
        text(t.saving, lambda q: P.money(q, currency)),
        text(t.roi, P.plain),
        text(t.break_even_tokens, P.tokens),
        technique_word(t.verdict) if not isinstance(t.speed_effect, Unknown) else f"not measured: {t.reason}",
    ]
    return f"| {' | '.join(cells)} |"


def table(r: Recommendation) -> str:
    """The techniques of a study by section, in Markdown."""
    head = ["section", "knob", "change", "speed", "quality", "complexity", "saving", "ROI", "break-even", "verdict"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [row(t, r.plan.currency) for t in sorted(r.techniques, key=lambda t: t.section)]
    return "\n".join(lines)


def answers(found: Alignment) -> str:
    """The findings about powers of two, in Markdown."""
    floor = found.floor.reason if isinstance(found.floor, Unknown) else percent(found.floor)
    lines = ["| claim | throughput | on this machine |", "|---|---|---|"]
    lines += [f"| {f.claim} | {P.ratio(f.ratio).text} | {f.answer.value} |" for f in found.findings]
    return "\n".join([*lines, "", f"Copies of one configuration differ by up to {floor} (the noise floor)."])


def put(page: str, name: str, text: str) -> str:
    """`page` with the text between the marks of `name` replaced."""
    marked = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    return re.sub(marked, lambda m: f"{m[1]}{text}\n{m[2]}", page, count=1, flags=re.DOTALL)


def main() -> int:
    """Search, measure the pairs, print both tables and put them on the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="15m", help="of the search")
    parser.add_argument("--restarts", type=int, default=4, help="of every pair")
    parser.add_argument("--print-only", action="store_true", help="leave docs/techniques.md as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, progress_for(sys.stderr) as progress:
        finished = api.search(
            SPACES / "techniques.toml",
            budget_seconds=parse_duration(options.budget),
            root=Path(folder),
            listeners=(progress,),
        )
    found = api.alignment(
        SPACES / "power_of_two.toml", restarts=options.restarts, tell=lambda words: print(words, file=sys.stderr)
    )
    techniques, pairs = table(finished.recommendation), answers(found)
    machine = finished.recommendation.environment
    where = "{cpu_model}, {logical_cores} cores, torch {torch}.".format_map(machine)
    print(f"{where}\n\n{techniques}\n\n{pairs}")
    if not options.print_only:
        page = PAGE.read_text(encoding="utf-8")
        for name, text in (("machine", where), ("techniques", techniques), ("pairs", pairs)):
            page = put(page, name, text)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
