"""Processes that die, hang or flood, and a machine that is smaller than it looks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from injected.bench import SPACE, Bench, Fault, Outcome, error

_BUDGET_SECONDS = 40.0
_CAP_BYTES = 8 << 20
_GROUP = Path("/sys/fs/cgroup/autotune-faults")


def _finished(bench: Bench, process: subprocess.Popen[bytes], *, seconds: float, words: str = "") -> Outcome:
    """The outcome of a search that must reach its end in `seconds`; `words` say what else is known."""
    started = time.monotonic()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return Outcome(f"it has not ended {seconds:.0f} s later", survived=False)
    took = f"exit {code} after {time.monotonic() - started:.0f} s more, {len(bench.acknowledged())} trials"
    output = (bench.folder / "output").read_text(errors="replace")
    return Outcome(f"{took}{words}", survived=code == 0 and "Traceback" not in output)


def _search(bench: Bench, space: str = SPACE, budget: float = _BUDGET_SECONDS) -> subprocess.Popen[bytes]:
    bench.prepare(space)
    return bench.start("search", "tiny.toml", "--study", "tiny", "--budget", f"{budget:.0f}s")


def _workers(bench: Bench) -> list[tuple[psutil.Process, Path]]:
    """The sessions that live, and their logs."""
    found = []
    for process in bench.processes():
        with contextlib.suppress(psutil.Error, OSError):
            log = Path(f"/proc/{process.pid}/fd/1").readlink()
            if log.name in ("log.txt", "reference.log"):
                found.append((process, log))
    return found


def _await_worker(bench: Bench, is_it: Callable[[Path], bool], *, seconds: float = 60.0) -> tuple[psutil.Process, Path]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for process, log in _workers(bench):
            if is_it(log):
                return process, log
        time.sleep(0.01)
    raise TimeoutError(f"no such session after {seconds:g} s")


def _is_reference(log: Path) -> bool:
    return log.name == "reference.log"


def _is_candidate(log: Path) -> bool:
    return log.name == "log.txt"


def _outcomes(bench: Bench) -> list[dict[str, object]]:
    paths = sorted((bench.study() / "trials").glob("*/result.json"))
    return [json.loads(path.read_text())["outcome"] for path in paths]


def _repeated(bench: Bench) -> int:
    return (bench.study() / "events.jsonl").read_text().count('"trial_repeated"')


def _reference_ends(number: signal.Signals, bench: Bench) -> Outcome:
    process = _search(bench)
    bench.await_trials(1)
    _await_worker(bench, _is_candidate)
    reference, _ = _await_worker(bench, _is_reference)
    reference.send_signal(number)
    found = _finished(bench, process, seconds=_BUDGET_SECONDS + 45.0, words=f", {_repeated(bench)} measured again")
    empty = [o for o in _records(bench) if "completed" in o["outcome"] and not o["slices"]]
    return Outcome(f"{found.happened}, {len(empty)} completed without a slice", found.survived and not empty)


def _records(bench: Bench) -> list[dict[str, dict[str, object]]]:
    return [json.loads(p.read_text()) for p in sorted((bench.study() / "trials").glob("*/result.json"))]


def _candidate_killed(bench: Bench) -> Outcome:
    process = _search(bench)
    bench.await_trials(1)
    candidate, log = _await_worker(bench, _is_candidate)
    candidate.kill()
    found = _finished(bench, process, seconds=_BUDGET_SECONDS + 45.0)
    trial = log.parent / "result.json"
    outcome = json.loads(trial.read_text())["outcome"] if trial.exists() else {}
    blamed = "infeasible" in outcome or "failed" in outcome
    return Outcome(f"{found.happened}; the trial: {', '.join(outcome)}", found.survived and not blamed)


def _calibration_killed(bench: Bench) -> Outcome:
    process = _search(bench)
    _await_worker(bench, lambda _: True)
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        for worker, _ in _workers(bench):
            with contextlib.suppress(psutil.Error):
                worker.kill()
        time.sleep(0.02)
    found = _finished(bench, process, seconds=_BUDGET_SECONDS + 45.0)
    if found.survived:
        return found
    again = bench.run("resume", "tiny", "--budget", "60s")
    return Outcome(f"{found.happened}; the next resume: exit {again.code}", again.code == 0)


def _launcher_killed(bench: Bench) -> Outcome:
    process = _search(bench)
    bench.await_trials(1)
    worker, _ = _await_worker(bench, _is_reference)
    psutil.Process(worker.ppid()).kill()
    return _finished(bench, process, seconds=_BUDGET_SECONDS + 45.0)


def _driver_killed_preparing(bench: Bench) -> Outcome:
    bench.prepare()
    (bench.folder / "text" / "large.txt").write_text("many words of a large text, again and again, \n" * 2_000_000)
    process = bench.start("search", "tiny.toml", "--study", "tiny", "--budget", "60s")
    _await_process(bench, "prepare")
    process.kill()
    return _nobody_left(bench, process)


def _driver_killed(state: signal.Signals | None, bench: Bench) -> Outcome:
    process = _search(bench)
    bench.await_trials(1)
    known = bench.acknowledged()
    for worker, _ in _workers(bench):
        if state:
            worker.send_signal(state)
    process.kill()
    found = _nobody_left(bench, process)
    lost = "" if known.items() <= bench.acknowledged().items() else "an acknowledged trial"
    return Outcome(found.happened, found.survived, lost)


def _nobody_left(bench: Bench, process: subprocess.Popen[bytes]) -> Outcome:
    process.wait()
    left = bench.left_after(3.0)
    return Outcome(f"{left} processes left after 3 s", survived=not left)


def _await_process(bench: Bench, duty: str, *, seconds: float = 30.0) -> psutil.Process:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for process in bench.processes():
            with contextlib.suppress(psutil.Error):
                if duty in process.cmdline():
                    return process
        time.sleep(0.01)
    raise TimeoutError(f"no {duty} after {seconds:g} s")


def _signalled(number: signal.Signals, bench: Bench) -> Outcome:
    process = _search(bench)
    bench.await_trials(1)
    _await_worker(bench, _is_candidate)
    process.send_signal(number)
    code = process.wait(30.0)
    lines = [line for line in (bench.folder / "output").read_text().splitlines() if line.startswith("autotune:")]
    left = bench.left_after(3.0)
    is_clear = code == 75 and len(lines) == 1 and "autotune resume tiny" in lines[0]
    return Outcome(f"exit {code}: {' '.join(lines)}; {left} processes left", is_clear and not left)


def _log_flooded(bench: Bench) -> Outcome:
    process = _search(bench)
    bench.await_trials(1)
    _, log = _await_worker(bench, _is_candidate)
    with contextlib.suppress(FileNotFoundError), log.open("ab") as writer:
        for _ in range(200):
            writer.write(b"x" * (1 << 20))
    found = _finished(bench, process, seconds=_BUDGET_SECONDS + 45.0)
    size = log.stat().st_size
    return Outcome(f"{found.happened}; the log has {size / 2**20:.1f} MiB", found.survived and size <= _CAP_BYTES)


def _listeners(bench: Bench) -> Outcome:
    space = SPACE.replace("[baseline]", '[baseline]\nworld_size = 2\nparallelism = "ddp"')
    process = _search(bench, space, 60.0)
    seen: set[str] = set()
    until = time.monotonic() + 60.0
    while time.monotonic() < until and not seen:
        time.sleep(0.05)
        seen |= _addresses(bench)
    with contextlib.suppress(TimeoutError):
        bench.await_trials(1, seconds=60.0)  # all listen by then
    seen |= _addresses(bench)
    process.send_signal(signal.SIGTERM)
    process.wait(30.0)
    return Outcome(f"listened on {', '.join(sorted(seen)) or 'nothing'}", bool(seen) and seen <= {"127.0.0.1", "::1"})


def _addresses(bench: Bench) -> set[str]:
    found = set()
    for process in bench.processes():
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


@contextlib.contextmanager
def _group(limit_bytes: int) -> Iterator[Path]:
    """A control group with that limit."""
    _GROUP.mkdir()
    try:
        (_GROUP / "memory.max").write_text(str(limit_bytes))
        yield _GROUP
    finally:
        with contextlib.suppress(OSError):
            _GROUP.rmdir()


def _no_group() -> str:
    try:
        with _group(1 << 30) as group:
            return "" if (group / "memory.events").exists() else "a control group that counts"
    except OSError as problem:
        return f"the right to make a control group ({problem.strerror})"


def _in_a_container(bench: Bench) -> Outcome:
    bench.prepare()
    limit = 3 << 30
    with _group(limit) as group:
        enter = f"import os, sys; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
        enter += "os.execv(sys.executable, [sys.executable, '-P', '-m', 'autotune', *sys.argv[1:]])"
        command = [sys.executable, "-c", enter, "search", "tiny.toml", "--study", "tiny", "--budget", "20s"]
        done = subprocess.run(
            command, cwd=bench.folder, env=os.environ | bench.environment, capture_output=True, check=False
        )
    believed = json.loads((bench.study() / "machine.json").read_text())["available_bytes"]
    happened = f"exit {done.returncode}, {believed / 2**30:.1f} GiB believed of {limit / 2**30:.0f} GiB allowed"
    return Outcome(happened, done.returncode == 0 and believed <= limit)


def _slow_text(bench: Bench) -> Outcome:
    bench.prepare()
    (bench.folder / "text" / "large.txt").write_text("many words of a large text, again and again, \n" * 4_000_000)
    done = bench.run("search", "tiny.toml", "--study", "tiny", "--budget", "3s")
    return error(done, code=2, words=("preparing the text", "3 s", "larger budget"))


FAULTS: tuple[Fault, ...] = (
    Fault(name="the reference hangs", how="SIGSTOP in a trial", run=partial(_reference_ends, signal.SIGSTOP)),
    Fault(name="the reference dies", how="SIGKILL in a trial", run=partial(_reference_ends, signal.SIGKILL)),
    Fault(name="a candidate is killed once", how="SIGKILL", run=_candidate_killed),
    Fault(name="calibration is killed for five seconds", how="SIGKILL, again and again", run=_calibration_killed),
    Fault(name="the launcher is killed", how="SIGKILL", run=_launcher_killed),
    Fault(name="the driver is killed while it prepares", how="SIGKILL", run=_driver_killed_preparing),
    Fault(name="the driver is killed in a trial", how="SIGKILL", run=partial(_driver_killed, None)),
    Fault(
        name="the driver is killed, and its workers are stopped",
        how="SIGSTOP, SIGKILL",
        run=partial(_driver_killed, signal.SIGSTOP),
    ),
    Fault(name="the terminal closes", how="SIGHUP", run=partial(_signalled, signal.SIGHUP)),
    Fault(name="Ctrl-\\", how="SIGQUIT", run=partial(_signalled, signal.SIGQUIT)),
    Fault(name="`kill`", how="SIGTERM", run=partial(_signalled, signal.SIGTERM)),
    Fault(name="a worker writes 200 MB to its log", how="appended while it runs", run=_log_flooded),
    Fault(name="several processes a session", how="who listens on what, by `psutil`", run=_listeners),
    Fault(
        name="a container with less memory than its host", how="a control group", run=_in_a_container, needs=_no_group
    ),
    Fault(name="a text that takes longer than the budget", how="180 MB, 3 s", run=_slow_text),
)
