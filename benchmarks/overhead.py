"""Where the wall time of a search goes: stepping the model, and everything else by name.

    python benchmarks/overhead.py                # a 5-minute search of gpt_cpu.toml without torch.compile
    python benchmarks/overhead.py --space search_spaces/quickstart.toml --budget 180s

Prints shares of the total, from driver start to report. At least 75 % must be steps of a candidate
or of the reference; exits with 1 if it is less.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune import api
from autotune.analysis import ladder
from autotune.cli.live import progress_for
from autotune.executors import local
from autotune.search import database, explore, propose
from autotune.space.document import parse_duration
from autotune.study import folder
from autotune.study.reading import read_records

SPACE = Path(__file__).parent.parent / "search_spaces" / "gpt_cpu.toml"
LEAST_STEPPING = 0.75

_spent: defaultdict[str, float] = defaultdict(float)


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its wall time added to `name`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            _spent[name] += time.perf_counter() - started

    return wrapper


def main() -> int:
    """Run the search, print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="5m", help="of the search")
    parser.add_argument("--space", type=Path, default=SPACE, help="what is searched, without its torch.compile")
    options = parser.parse_args()

    local.examine_here = timed("corpus and machine", local.examine_here)  # type: ignore[attr-defined]
    propose.Proposer.ask = timed("database", propose.Proposer.ask)  # type: ignore[method-assign]
    propose.Proposer.tell = timed("database", propose.Proposer.tell)  # type: ignore[method-assign]
    propose.Proposer.__init__ = timed("database", propose.Proposer.__init__)  # type: ignore[method-assign]
    database.Dashboard.__call__ = timed("database", database.Dashboard.__call__)  # type: ignore[method-assign]
    folder.Folder.write = timed("study files", folder.Folder.write)  # type: ignore[method-assign]
    explore._pays = timed("deciding", explore._pays)
    ladder.Ladder.options = timed("deciding", ladder.Ladder.options)  # type: ignore[method-assign]

    with tempfile.TemporaryDirectory() as root:
        space = Path(root) / "overhead.toml"
        # torch.compile always spends its half minute outside Python steps, so this benchmark leaves it out.
        text = re.sub(r"(?m)^compile = .*\n", "", options.space.read_text(encoding="utf-8"))
        space.write_text(text, encoding="utf-8")
        started = time.perf_counter()
        with progress_for(sys.stderr) as progress:
            finished = api.search(
                space, root=root, budget_seconds=parse_duration(options.budget), listeners=(progress,)
            )
        wall = time.perf_counter() - started
        records = read_records(finished.folder)

    costs = [r.costs for r in records]
    setting_up = sum(ready.setup_seconds for r in records for ready in r.ready)
    opening = sum(c.open_seconds for c in costs)
    shares = {
        "stepping candidates": sum(c.step_seconds for c in costs),
        "stepping the reference": sum(c.reference_step_seconds for c in costs),
        "imports and first passes": opening - setting_up,
        "models and data": setting_up,
        "compilation": sum(c.compile_seconds for c in costs),
        "evaluation": sum(c.evaluate_seconds for c in costs),
        **_spent,
    }
    shares["the rest"] = wall - sum(shares.values())
    print(f"{len(records)} trials, verdict {finished.recommendation.verdict}; share of the wall time")
    for name, seconds in shares.items():
        print(f"  {name:26}{seconds / wall:8.1%}")
    stepping = (shares["stepping candidates"] + shares["stepping the reference"]) / wall
    print(f"stepping the model: {stepping:.1%} (at least {LEAST_STEPPING:.0%} asked)")
    return 0 if stepping >= LEAST_STEPPING else 1


if __name__ == "__main__":
    sys.exit(main())
