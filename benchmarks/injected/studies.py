"""Faults of studies on disk: their database, their files, where they lie, and what strangers put into them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from autotune.errors import StoreDamaged
from autotune.study.reading import read_records
from injected.bench import SPACE, Bench, Done, Fault, Outcome, error

_SPACE = SPACE.replace('cache_dir = "cache"\n', "")
_FLIPS = 400
_MOUNT, _UMOUNT = shutil.which("mount") or "", shutil.which("umount") or ""
_WRITTEN = (
    "lock",
    "events.jsonl",
    "elapsed.json",
    "stages.json",
    "report.md",
    "reference.log",
    "study.db",
    "machine.json",
)


@functools.cache
def _made(kind: str) -> Path:
    """A folder with a study that is kept for the faults of this run: finished, or interrupted after a trial."""
    folder = Path(tempfile.mkdtemp(prefix="autotune-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bench = Bench(folder)
    bench.prepare(_SPACE)
    if kind == "finished":
        done = bench.search("30s")
        if done.code:
            raise TimeoutError(f"no study to spoil: {done.last_line}")
    else:
        _interrupted(bench)
    return folder


def _interrupted(bench: Bench) -> None:
    """A search in the bench's prepared folder that is interrupted after its first trial."""
    process = bench.start("search", "tiny.toml", "--study", "tiny", "--budget", "30s")
    bench.await_trials(1)
    process.send_signal(signal.SIGINT)
    process.wait()


def _started(bench: Bench, *arguments: str) -> subprocess.Popen[bytes]:
    """The command, when the study's log shows that it searches."""
    log = bench.study() / "events.jsonl"
    before = log.stat().st_size
    process = bench.start(*arguments)
    until = time.monotonic() + 60.0
    while log.stat().st_size == before and time.monotonic() < until:
        time.sleep(0.02)
    return process


def _copied(bench: Bench, kind: str) -> Path:
    """The study of that kind in the bench's folder, with its text."""
    shutil.copytree(_made(kind), bench.folder, dirs_exist_ok=True)
    return bench.study()


def _answer(study: Path) -> object:
    """What the study's report recommends."""
    report = json.loads((study / "report.json").read_text())
    return report["verdict"], report["recommended"]


def _same_answer(done: Done, study: Path, before: object, *, words: str = "") -> Outcome:
    """The outcome of a command that must end well, with the answer of before, and say `words`."""
    said = next((line for line in done.err.splitlines() if words and words in line), done.last_line)
    is_well = done.code == 0 and not done.is_traceback and words in done.err and _answer(study) == before
    return Outcome(f"exit {done.code}: {said}", is_well)


# -- the database ------------------------------------------------------------------------------------


def _spoiled_database(spoil: Callable[[Path], None], words: str) -> Callable[[Bench], Outcome]:
    def run(bench: Bench) -> Outcome:
        study = _copied(bench, "finished")
        before = _answer(study)
        spoil(study / "study.db")
        return _same_answer(bench.run("resume", "tiny"), study, before, words=words)

    return run


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(100_000))


def _torn(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _zero(path: Path) -> None:
    path.write_bytes(b"")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield


def _held_database(bench: Bench) -> Outcome:
    study = _copied(bench, "interrupted")
    acknowledged = bench.acknowledged()
    with _held(study / "study.db"):
        done = bench.run("resume", "tiny")
    lost = set(acknowledged.items()) - set(bench.acknowledged().items())
    is_well = done.code == 0 and "study.db is held by another program" in done.err
    return Outcome(f"exit {done.code}: {done.last_line}", is_well, lost=f"{len(lost)} trials" if lost else "")


# -- the disk ----------------------------------------------------------------------------------------


def _mount(folder: Path) -> bool:
    """Mount a disk of 8 MB there, if that is allowed."""
    command = [_MOUNT, "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    return bool(_MOUNT and _UMOUNT) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _no_mounts() -> str:
    with tempfile.TemporaryDirectory() as folder:
        if not _mount(Path(folder)):
            return "it needs the right to mount a small disk"
        subprocess.run([_UMOUNT, folder], check=True)
    return ""


def _full_disk(bench: Bench) -> Outcome:
    """A disk that a file of ours fills while the search runs, and that has room again for the next sitting."""
    _copied(bench, "interrupted")
    disk = bench.folder / "disk"
    disk.mkdir()
    _mount(disk)
    try:
        shutil.copytree(bench.folder / "reports", disk, dirs_exist_ok=True)
        before = {r.spec.number: r.finished_at for r in read_records(disk / "tiny")}
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * 4096)
        full = bench.run("--root", disk, "resume", "tiny")
        filler.unlink()
        again = bench.run("--root", disk, "resume", "tiny")
        after = {r.spec.number: r.finished_at for r in read_records(disk / "tiny")}
    finally:
        subprocess.run([_UMOUNT, str(disk)], check=True)
    lost = len(before.items() - after.items())
    first = error(full, code=6, words=("free some space", "resume"))
    return Outcome(
        f"{first.happened}; with room again exit {again.code}",
        first.survived and again.code == 0,
        lost=f"{lost} trials" if lost else "",
    )


# -- where it lies -----------------------------------------------------------------------------------


def _elsewhere(bench: Bench) -> Outcome:
    study = _copied(bench, "interrupted")
    acknowledged = bench.acknowledged()
    (bench.folder / "work").mkdir()
    elsewhere = Bench(bench.folder / "work")
    done = elsewhere.run("--root", bench.folder / "reports", "resume", "tiny")
    kept = acknowledged.items() <= bench.acknowledged().items()
    return Outcome(f"exit {done.code}, {len(bench.acknowledged())} trials", done.code == 0 and kept and study.exists())


def _moved(bench: Bench) -> Outcome:
    """The whole tree in another place; the first is gone."""
    bench.prepare(_SPACE)
    _interrupted(bench)
    moved = Bench(bench.folder / "moved")
    moved.folder.mkdir()
    for name in ("reports", "text", "tiny.toml", "cache"):
        if (bench.folder / name).exists():
            (bench.folder / name).rename(moved.folder / name)
    study = moved.study() / "study.json"
    plain = json.loads(study.read_text())
    done = moved.run("resume", "tiny")
    return Outcome(f"exit {done.code}: {done.last_line} (was at {plain['corpus']})", done.code == 0)


def _without_its_text(bench: Bench) -> Outcome:
    bench.prepare(_SPACE)
    _interrupted(bench)
    study = bench.study()
    (bench.folder / "text").rename(bench.folder / "moved")
    first = error(bench.run("resume", "tiny"), code=2, words=("a study needs its text", "--data PATH"))
    again = bench.run("search", study / "space.toml", "--study", "tiny", "--data", "moved")
    return Outcome(f"{first.happened}; with --data exit {again.code}", first.survived and again.code == 0)


def _renamed(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    before = _answer(study)
    shutil.copytree(study, study.with_name("copy"))
    done = bench.run("report", "copy")
    title_is_right = "tiny" not in done.out.splitlines()[0] and "copy" in done.out
    return Outcome(
        f"exit {done.code}: {done.out.splitlines()[0] if done.out else done.last_line}",
        done.code == 0 and title_is_right and _answer(study.with_name("copy")) == before,
    )


def _other_threads(bench: Bench) -> Outcome:
    _copied(bench, "interrupted")
    bench.environment = {"OMP_NUM_THREADS": "1"}
    return error(bench.run("resume", "tiny"), code=2, words=("process.OMP_NUM_THREADS was not set, is 1",))


# -- strangers ---------------------------------------------------------------------------------------


def _linked(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    mine = {name: bench.folder / f"mine-{name}" for name in _WRITTEN}
    for name, path in mine.items():
        path.write_text("mine")
        (study / name).unlink(missing_ok=True)
        (study / name).symlink_to(path)
    done = bench.run("resume", "tiny")
    written = [name for name, path in mine.items() if path.read_text() != "mine"]
    return Outcome(f"exit {done.code}; overwritten: {', '.join(written) or 'nothing'}", done.code == 0 and not written)


def _no_study(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    (study / "study.json").write_text("{}")
    (study / "lock").unlink(missing_ok=True)
    before = sorted((p, p.stat().st_mtime_ns) for p in study.rglob("*"))
    outcome = error(bench.run("resume", "tiny"), code=5, words=("study.json", "restore it"))
    untouched = sorted((p, p.stat().st_mtime_ns) for p in study.rglob("*")) == before
    return Outcome(
        f"{outcome.happened}; {'nothing' if untouched else 'something'} written", outcome.survived and untouched
    )


def _lock_deleted(bench: Bench) -> Outcome:
    _copied(bench, "interrupted")
    first = _started(bench, "resume", "tiny")
    first.send_signal(signal.SIGSTOP)  # it may have little left to do
    (bench.study() / "lock").unlink()
    second = error(bench.run("resume", "tiny"), code=4, words=("only one process may own a study",))
    first.send_signal(signal.SIGCONT)
    first.wait()
    return Outcome(
        f"{second.happened}; the first ended with {first.returncode}", second.survived and not first.returncode
    )


def _escapes(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    (study / "report_sums.json").unlink()
    (study / "report.md").write_text("\x1b]0;title\x07 \x9b2J \u202e\n")
    shutil.copytree(study, study.with_name("na\x1b[2Jme"))
    printed = "".join(
        done.out + done.err
        for done in (
            bench.run("studies"),
            bench.run("report", "tiny"),
            bench.run("report", "no\x1b[2Jne"),
            bench.run("knobs", "\x9b2J"),
            bench.run("search", "\x1b[2J.toml"),
        )
    )
    left = sorted({f"U+{ord(c):04X}" for c in printed if not (c.isprintable() or c == "\n")})
    return Outcome(f"control characters printed: {', '.join(left) or 'none'}", not left)


# -- damage ------------------------------------------------------------------------------------------


def _flipped(bench: Bench) -> Outcome:
    study = _copied(bench, "interrupted")
    rng, unnoticed = random.Random(0), 0
    path = study / "trials" / "0000" / "result.json"
    whole, records = path.read_bytes(), read_records(study)
    for _ in range(_FLIPS):
        at = rng.randrange(8 * len(whole))
        path.write_bytes(whole[: at // 8] + bytes([whole[at // 8] ^ 1 << at % 8]) + whole[at // 8 + 1 :])
        try:
            unnoticed += read_records(study) != records
        except StoreDamaged:
            continue
    at = whole.index(b'"seconds": ') + len(b'"seconds": ')
    path.write_bytes(whole[:at] + b"9" + whole[at + 1 :])
    done = bench.run("resume", "tiny", "--budget", "60s")  # its time is spent, and the trial runs again
    again = 0 in bench.acknowledged()
    said = next((line for line in done.err.splitlines() if "trial 0 was damaged" in line), "nothing said")
    return Outcome(
        f"{unnoticed} of {_FLIPS} flips unnoticed; exit {done.code}: {said}",
        not unnoticed and done.code == 0 and again and "nothing said" not in said,
    )


def _derived(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    before = _answer(study)
    names = ("elapsed.json", "next_trial.json", "stages.json", "events.jsonl", "report.json", "report.md")
    happened, is_well = [], True
    for name in names:
        whole = (study / name).read_bytes()
        (study / name).write_bytes(whole[: len(whole) // 2])
        done = bench.run("resume", "tiny")
        is_well = is_well and done.code == 0 and not done.is_traceback and _answer(study) == before
        happened.append(f"{name} exit {done.code}")
    return Outcome(", ".join(happened), is_well)


def _stages_of_another(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    before = _answer(study)
    shutil.copy(_made("interrupted") / "reports" / "tiny" / "stages.json", study / "stages.json")
    done = bench.run("resume", "tiny")
    return _same_answer(done, study, before, words="it belongs to another study")


def _bad_record(bench: Bench) -> Outcome:
    study = _copied(bench, "finished")
    bad = study.with_name("bad")
    shutil.copytree(study, bad)
    (bad / "study.json").write_bytes(b"[" * 100_000)
    (study / "trials" / "0000" / "result.json").write_text("{")
    done = bench.run("studies")
    rows = [line for line in done.out.splitlines() if line]
    return Outcome(
        f"exit {done.code}: {'; '.join(row[:70] for row in rows)}",
        done.code == 0 and len(rows) == 2 and "damaged" in rows[0] and rows[1].startswith("tiny "),
    )


# -- beginnings and ends -----------------------------------------------------------------------------


def _without_a_trial(bench: Bench) -> Outcome:
    space = bench.prepare(_SPACE)
    process = bench.start("search", "tiny.toml", "--study", "tiny", "--budget", "60s")
    until = time.monotonic() + 60.0
    while not (bench.study() / "study.json").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    trials = len(list((bench.study() / "trials").glob("*/result.json")))
    space.write_text(space.read_text().replace("micro_batch = [2, 4, 8]", "micro_batch = [4, 8]"))
    done = bench.search("10s")
    return Outcome(f"{trials} trials, then another space: exit {done.code}: {done.last_line}", done.code == 0)


def _three_interrupts(bench: Bench) -> Outcome:
    _copied(bench, "interrupted")
    process = _started(bench, "resume", "tiny")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    code = process.wait(60)
    last = (bench.folder / "output").read_text().splitlines()[-1]
    return Outcome(f"exit {code}: {last}", code == 75 and "`autotune resume tiny` continues it" in last)


FAULTS: tuple[Fault, ...] = (
    *(
        Fault(
            name=f"study.db {name}",
            how=f"a finished study's database is {name}, then `resume`",
            run=_spoiled_database(spoil, words),
        )
        for name, spoil, words in (
            ("full of garbage", _garbage, "study.db could not be used"),
            ("torn in half", _torn, "study.db could not be used"),
            ("empty", _zero, ""),
            ("of a newer schema", _newer, "study.db could not be used"),
            ("a folder", _folder, "study.db could not be used"),
        )
    ),
    Fault(
        name="study.db held by another program",
        how="an exclusive transaction of another process while the search goes on",
        run=_held_database,
    ),
    Fault(name="full disk", how="a disk of 8 MB, filled before `resume`", run=_full_disk, needs=_no_mounts),
    Fault(name="another working directory", how="`resume` with --root from elsewhere", run=_elsewhere),
    Fault(name="moved tree", how="space, text and reports moved to another folder, then `resume`", run=_moved),
    Fault(name="text renamed", how="the text has another name, then `resume`, then --data", run=_without_its_text),
    Fault(name="copied study", how="`cp -r` of a finished study, then `report` of the copy", run=_renamed),
    Fault(name="other threads", how="OMP_NUM_THREADS=1 before `resume`", run=_other_threads),
    Fault(name="links in a study", how="a link to another file in the place of each written file", run=_linked),
    Fault(name="no study at all", how="study.json is {}, then `resume`", run=_no_study),
    Fault(name="lock file deleted", how="`rm lock` while it is searched, then a second driver", run=_lock_deleted),
    Fault(name="terminal escapes", how="ESC, C1 and bidi controls in names, report, keys and paths", run=_escapes),
    Fault(name="flipped bits of a result", how=f"{_FLIPS} flips read; a digit changed, then `resume`", run=_flipped),
    Fault(name="derived files cut", how="each cut in half, then `resume`", run=_derived),
    Fault(name="stages of another study", how="another study's stages.json, then `resume`", run=_stages_of_another),
    Fault(
        name="one bad study", how="study.json of 100,000 brackets beside a damaged result; `studies`", run=_bad_record
    ),
    Fault(
        name="a study without a trial", how="SIGKILL before the first trial, then another space", run=_without_a_trial
    ),
    Fault(name="three interrupts", how="SIGINT three times within 20 ms", run=_three_interrupts),
)
