"""Injects faults into the real product, and writes what happened to docs/reliability.md.

    python benchmarks/faults.py                     # all faults
    python benchmarks/faults.py --only text studies # some kinds, or faults whose name contains the word; prints alone

Every fault has a folder of its own. It survives if the product does what its page of rules says: it goes on, or ends
with one clear line and the documented exit code; no acknowledged trial is lost, and no process is left. Exits with 1
if one does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from injected import processes, search, studies, text
from injected.bench import Bench, Fault, Outcome

KINDS: Mapping[str, Sequence[Fault]] = {
    "text": text.FAULTS,
    "search and terminal": search.FAULTS,
    "studies": studies.FAULTS,
    "processes": processes.FAULTS,
}
PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
HEAD = """\
# What it survives

Written by `python benchmarks/faults.py`, which injects each fault into the real command line. Survived means: it went
on, or ended with one clear line and the documented exit code; no acknowledged trial was lost, and no process was left.

"""


def main() -> int:
    """Inject, look, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD")
    only = parser.parse_args().only
    found: dict[str, list[tuple[Fault, Outcome]]] = {}
    left_out: list[str] = []
    for kind, faults in KINDS.items():
        for fault in faults:
            if only and not any(word == kind or word in fault.name for word in only):
                continue
            if lacking := fault.needs():
                print(f"not tried {kind}: {fault.name}: {lacking}")
                left_out.append(f"- {fault.name}: {lacking}")
                continue
            outcome = outcome_of(fault)
            found.setdefault(kind, []).append((fault, outcome))
            print(f"{'survived' if outcome.survived else 'FAILED':9} {kind}: {fault.name}: {outcome.happened}")
    all_outcomes = [outcome for rows in found.values() for _, outcome in rows]
    print(f"{sum(o.survived for o in all_outcomes)} of {len(all_outcomes)} survived")
    if not only:
        pages = [HEAD, *(table(kind, rows) for kind, rows in found.items())]
        pages += ["## Not tried on this machine\n", *left_out] if left_out else []
        PAGE.write_text("\n".join(pages).rstrip() + "\n", encoding="utf-8")
    return 0 if all(outcome.survived for outcome in all_outcomes) else 1


def outcome_of(fault: Fault) -> Outcome:
    """Inject one fault in a folder of its own; what is still running afterwards counts against it."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        try:
            outcome = fault.run(bench)
            left = bench.left_after()
        except TimeoutError as late:
            outcome, left = Outcome(happened=str(late), survived=False), 0
        finally:
            for process in bench.processes():
                process.kill()
    if left:
        return Outcome(happened=f"{outcome.happened}; {left} processes left", survived=False, lost=outcome.lost)
    happened = outcome.happened.replace(name, "FOLDER")
    return Outcome(happened, outcome.survived and not outcome.lost, outcome.lost)


def table(kind: str, rows: Sequence[tuple[Fault, Outcome]]) -> str:
    """The rows of one kind."""
    lines = [
        f"## {kind.capitalize()}\n",
        "| fault | injected by | what happened | survived | lost |",
        "|---|---|---|---|---|",
    ]
    for fault, outcome in rows:
        cells = (
            fault.name,
            fault.how,
            outcome.happened,
            "yes" if outcome.survived else "**no**",
            outcome.lost or "nothing",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
