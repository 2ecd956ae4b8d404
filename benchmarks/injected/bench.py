"""What a fault needs: a folder of its own, the real command line in it, and the processes that are left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from autotune.study.reading import read_records

MARK = "AUTOTUNE_FAULTS"
"""In the environment of all that a bench starts: other searches may run on this machine."""
SPACE = """\
[workload]
corpus = "text"
tokenizer = "bpe:512"
layers = 1
heads = 2
width = 32
sequence_length = 32
horizon_tokens = 4_000
evaluation_tokens = 2_048

[plan]
tokens = 20_000_000
runs = 3

[baseline]
micro_batch = 4
global_batch = 8

[knobs]
micro_batch = [2, 4, 8]
attention = ["math", "sdpa"]
"""
_WORDS = ("the", "search", "measures", "a", "trial", "of", "many", "tokens", "and", "keeps", "what", "it", "found")
_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended. `code` is negative for a signal, as in `subprocess`."""

    code: int
    out: str
    err: str

    @property
    def is_traceback(self) -> bool:
        """Whether an error left the program that is none of its own."""
        return "Traceback (most recent call last)" in self.out + self.err

    @property
    def last_line(self) -> str:
        """The last line of what it said, which is its error if it has one."""
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


@dataclass(slots=True)
class Bench:
    """The folder of one fault; everything it starts is killed at the end."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def prepare(self, space: str = SPACE, *, documents: int = 60) -> Path:
        """A space file in the folder, and a text of that many documents beside it. Returns the space's path."""
        text = self.folder / "text"
        text.mkdir(exist_ok=True)
        for number in range(documents):
            words = (_WORDS[(number * 7 + n * n + n // 5) % len(_WORDS)] for n in range(400))
            (text / f"{number:03d}.txt").write_text(" ".join(words) + f" {number}\n", encoding="utf-8")
        path = self.folder / "tiny.toml"
        path.write_text(space, encoding="utf-8")
        return path

    def start(self, *arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
        """`autotune` with these arguments in the folder, not waited for; its output is in `output`."""
        command = [sys.executable, "-P", "-m", "autotune", *map(str, arguments)]
        own = {MARK: str(os.getpid()), "XDG_CACHE_HOME": str(self.folder / "cache")}
        environment = os.environ | own | self.environment
        with (self.folder / "output").open("wb") as output:
            merged: dict[str, object] = {"stdout": output, "stderr": output, "stdin": subprocess.DEVNULL} | options
            return subprocess.Popen(command, cwd=self.folder, env=environment, **merged)  # type: ignore[call-overload,no-any-return]

    def run(self, *arguments: str | Path, seconds: float = _PATIENCE_SECONDS) -> Done:
        """`autotune` with these arguments in the folder, to its end.

        Raises:
            TimeoutError: it did not end in time; it is killed.
        """
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"`autotune {' '.join(map(str, arguments))}` took longer than {seconds:g} s") from None
        return Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def search(self, budget: str = "20s", *, study: str = "tiny") -> Done:
        """A search of the prepared space."""
        return self.run("search", "tiny.toml", "--study", study, "--budget", budget)

    def study(self, name: str = "tiny") -> Path:
        """The folder of a study."""
        return self.folder / "reports" / name

    def acknowledged(self, name: str = "tiny") -> dict[int, str]:
        """The trials that the study has acknowledged: number and finish time."""
        return {r.spec.number: f"{r.spec.label} {r.finished_at}" for r in read_records(self.study(name))}

    def await_trials(self, count: int, name: str = "tiny", *, seconds: float = 120.0) -> None:
        """Wait until the study has acknowledged that many trials.

        Raises:
            TimeoutError: it did not in time.
        """
        until = time.monotonic() + seconds
        while len(list((self.study(name) / "trials").glob("*/result.json"))) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"no {count} trials after {seconds:g} s")
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """All live processes that this bench started, and those they started."""
        found = []
        for process in psutil.process_iter(["status"]):
            with contextlib.suppress(psutil.Error):  # gone by now, or another user's
                if process.info["status"] == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                if process.environ().get(MARK) == str(os.getpid()):
                    found.append(process)
        return found

    def left_after(self, seconds: float = 10.0) -> int:
        """How many processes are still there after so many seconds at most."""
        until = time.monotonic() + seconds
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        return len(self.processes())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault did: in words, whether the product survived it as it should, and what was lost ("" for nothing)."""

    happened: str
    survived: bool
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, how it is injected, and the function that does it and looks at what happened.

    `needs` says what the machine lacks for it, if it lacks something: then it is left out by name.
    """

    name: str
    how: str
    run: Callable[[Bench], Outcome]
    needs: Callable[[], str] = lambda: ""


def error(done: Done, *, code: int, words: Sequence[str]) -> Outcome:
    """The outcome of a command that must end with one clear line: this exit code, these words in it."""
    said = done.last_line
    is_clear = done.code == code and not done.is_traceback and all(word in said for word in words)
    return Outcome(happened=f"exit {done.code}: {said}", survived=is_clear)
