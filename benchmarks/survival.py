"""Kills a real search with SIGKILL at random moments and resumes it, then checks the study against its store.

    python benchmarks/survival.py [--kills 10] [--budget 90s] [--seed 0]

Checks that no acknowledged trial is lost, changed or counted twice, that the Optuna database has each
exactly once and none still running, and that no worker outlives its driver. Exits with 1 if one fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
import psutil

from autotune.errors import ExitCode
from autotune.study.reading import read_records

SPACE = """
[workload]
tokenizer = "bpe:512"
layers = 2
heads = 2
width = 64
sequence_length = 64
horizon_tokens = 8_000
evaluation_tokens = 4_096

[plan]
tokens = 50_000_000
runs = 3

[baseline]
micro_batch = 4
global_batch = 8

[knobs]
micro_batch = [2, 4, 8]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
"""


MARK = "AUTOTUNE_SURVIVAL"  # in the environment of our drivers and all they start: other searches may run here


def start(folder: Path, budget: str) -> subprocess.Popen[bytes]:
    """A driver in its own process; it creates or continues the study."""
    command = [sys.executable, "-P", "-m", "autotune", "--root", str(folder), "search", str(folder / "kill.toml")]
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--budget", budget], env=os.environ | {MARK: str(os.getpid())}, stdout=log, stderr=log
        )


def acknowledged(study: Path) -> dict[int, str]:
    """The trials acknowledged by the store: number and finish time."""
    return {r.spec.number: f"{r.spec.label} {r.finished_at}" for r in read_records(study)}


def workers() -> list[psutil.Process]:
    """Live worker processes of our drivers."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if words[1:4] == ["-P", "-m", "autotune_model"] and process.info["status"] != psutil.STATUS_ZOMBIE:
            with contextlib.suppress(psutil.Error):  # gone by now, or another user's
                if process.environ().get(MARK) == str(os.getpid()):
                    found.append(process)
    return found


def database_counts(study: Path) -> tuple[Counter[int], int]:
    """How often the database has each trial, and how many of its trials are unfinished."""
    storage, running = f"sqlite:///{study / 'study.db'}", 0
    found: Counter[int] = Counter()
    for summary in optuna.get_all_study_summaries(storage):
        for trial in optuna.load_study(study_name=summary.study_name, storage=storage).trials:
            running += trial.state is optuna.trial.TrialState.RUNNING
            if "trial" in trial.user_attrs:
                found[trial.user_attrs["trial"]] += 1
    return found, running


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, study = Path(name), Path(name) / "kill"
        (folder / "kill.toml").write_text(SPACE, encoding="utf-8")
        before: dict[int, str] = {}
        for kill in range(options.kills):
            driver = start(folder, options.budget)
            time.sleep(moments.uniform(3.0, 14.0))
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            gone_by = time.monotonic() + 10.0
            while workers() and time.monotonic() < gone_by:
                time.sleep(0.05)
            if workers():
                faults.append(f"kill {kill + 1} left {len(workers())} workers")
            now = acknowledged(study) if (study / "trials").exists() else {}
            if not before.items() <= now.items():
                faults.append(f"kill {kill + 1} lost or changed an acknowledged trial")
            print(f"kill {kill + 1}: {len(now)} trials acknowledged")
            before = now
        code = start(folder, options.budget).wait()
        if code != ExitCode.DONE:
            faults.append(f"the last sitting ended with exit code {code}: {(folder / 'driver.log').read_text()[-300:]}")
        after = acknowledged(study)
        if not before.items() <= after.items():
            faults.append("the last sitting lost or changed an acknowledged trial")
        counts, running = database_counts(study)
        if counts != Counter(list(after)):
            faults.append(f"store and database differ: {sorted(set(after) ^ set(counts))} {counts.most_common(1)}")
        if running:
            faults.append(f"{running} trials of the database are still running")
    print(f"{len(after)} trials acknowledged after the last sitting, {len(counts)} in the database")
    print("\n".join(faults) if faults else f"survived {options.kills} kills: nothing lost, nothing twice, no orphan")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
