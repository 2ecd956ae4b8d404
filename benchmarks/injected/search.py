"""Spaces that leave little to search, and terminals that are gone, narrow or of another encoding."""

from __future__ import annotations

import os
import subprocess

from autotune.errors import ExitCode
from injected.bench import SPACE, Bench, Done, Fault, Outcome, error

_KNOBS = SPACE[SPACE.index("[knobs]") :]


def _with_knobs(knobs: str) -> str:
    return SPACE.replace(_KNOBS, f"[knobs]\n{knobs}\n")


def _long_range(bench: Bench) -> Outcome:
    bench.prepare(_with_knobs("micro_batch = { low = 1, high = 4096 }"))
    preview = bench.run("search", "tiny.toml", "--dry-run")
    done = bench.search("40s")
    tried = "1, 2, 4, 8"
    is_exact = f"tried: {tried}" in preview.out and "combinations: 4 of system" in preview.out
    return Outcome(
        happened=f"the dry run counts {'4' if is_exact else 'another number'}; the search ends with exit {done.code}",
        survived=is_exact and done.code == ExitCode.DONE and not done.is_traceback,
    )


def _nothing_to_choose(bench: Bench) -> Outcome:
    bench.prepare(_with_knobs('attention = ["math"]\nmicro_batch = [4, 3]'))
    bench.run("search", "tiny.toml", "--dry-run")
    found = error(bench.search(), code=ExitCode.BAD_INPUT, words=["two values", "[knobs]"])
    return Outcome(found.happened, found.survived and not bench.study().exists())


def _narrow(bench: Bench) -> Outcome:
    bench.prepare()
    bench.environment = {"COLUMNS": "0"}
    return _report_is_shown(bench.search("60s"))


def _latin_1(bench: Bench) -> Outcome:
    bench.prepare()
    bench.environment = {"PYTHONIOENCODING": "latin-1"}
    (bench.folder / "tiny.toml").rename(bench.folder / "größe….toml")
    done = bench.run("search", "größe….toml", "--study", "tiny", "--budget", "20s")
    return _report_is_shown(done)


def _report_is_shown(done: Done) -> Outcome:
    is_shown = len(done.out.strip()) > 200
    return Outcome(
        happened=f"exit {done.code}, the report is {'' if is_shown else 'not '}shown",
        survived=done.code == ExitCode.DONE and is_shown and not done.is_traceback,
    )


def _closed_output(bench: Bench) -> Outcome:
    bench.prepare()
    reader, writer = os.pipe()
    os.close(reader)
    process = bench.start(
        "search", "tiny.toml", "--study", "tiny", "--budget", "20s", stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    _, said = process.communicate(timeout=120)
    done = Done(process.returncode, "", said.decode(errors="replace"))
    is_kept = (bench.study() / "report.json").exists()
    return Outcome(
        happened=f"exit {done.code}, the report is {'' if is_kept else 'not '}kept",
        survived=is_kept and done.code == ExitCode.DONE and not done.is_traceback,
    )


def _space_in(encoding: str) -> Fault:
    def run(bench: Bench) -> Outcome:
        path = bench.prepare()
        path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
        done = bench.run("search", "tiny.toml", "--dry-run")
        return Outcome(
            happened=f"exit {done.code}: read", survived=done.code == ExitCode.DONE and not done.is_traceback
        )

    return Fault(name=f"space file in {encoding}", how="written with a byte order mark", run=run)


FAULTS = (
    Fault(
        name="range that is mostly impossible",
        how="micro_batch from 1 to 4,096 with a global batch of 8",
        run=_long_range,
    ),
    Fault(name="nothing to choose", how="one possible value for each knob", run=_nothing_to_choose),
    _space_in("utf-8-sig"),
    _space_in("utf-16"),
    Fault(name="terminal without width", how="COLUMNS=0", run=_narrow),
    Fault(name="output in Latin-1", how="PYTHONIOENCODING=latin-1, a name beyond it", run=_latin_1),
    Fault(name="closed output", how="nobody reads standard output", run=_closed_output),
)
