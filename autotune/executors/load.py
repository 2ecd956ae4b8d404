"""How busy this machine is with the work of others, now and over a while.

Others disturb every measurement: two programs that compute beside it on two cores slow a step ten to forty times. Read
from `psutil` and, on Linux, from `/proc`; what a system does not tell is left out. A reading takes a few milliseconds:
take it between measurements.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.trial.types import BUSY_SHARE

if TYPE_CHECKING:
    import psutil

_ROOT = Path("/")
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the cores were that this process may use, over `seconds`.

    `others_share` is the share of their time that others computed in, from 0 to 1; `own_share` that of this process
    and all it started. `runnable` is how many threads of the machine wanted to run at the end, one for this reading
    left out; `stalled_share` the share of the last ten seconds in which some thread waited for a core. None where the
    system does not tell.
    """

    seconds: float
    cores: int
    others_share: float
    own_share: float
    runnable: int | None = None
    stalled_share: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the work of others is large enough to disturb a measurement."""
        return self.others_share >= BUSY_SHARE


class LoadMeter:
    """Measures the load from its creation, or from the last `read`, until `read`."""

    def __init__(self, root: Path = _ROOT) -> None:
        """Begin; `root` holds `/proc`."""
        self._root = root
        self._last = _sample()

    def read(self) -> Load:
        """The load since the last time."""
        before, self._last = self._last, _sample()
        return _between(before, self._last, self._root)


def load_now(seconds: float = _LOOK_SECONDS, root: Path = _ROOT) -> Load:
    """The load of the next `seconds`."""
    meter = LoadMeter(root)
    time.sleep(seconds)
    return meter.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Seconds of CPU time until `at`: of each core that may be used, and of each process of our own by pid."""

    at: float
    busy: Mapping[int, float]
    own: Mapping[tuple[int, float], float]


def _sample() -> _Sample:
    import psutil

    cores = _usable_cores()
    times = psutil.cpu_times(percpu=True)
    busy = {n: _busy_seconds(each) for n, each in enumerate(times) if cores is None or n in cores}
    own: dict[tuple[int, float], float] = {}
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended
            used = process.cpu_times()
            own[process.pid, process.create_time()] = sum(used[:4])  # with the children it has waited for
    return _Sample(at=time.monotonic(), busy=busy, own=own)


def _between(before: _Sample, after: _Sample, root: Path) -> Load:
    seconds = max(after.at - before.at, 1e-9)
    common = before.busy.keys() & after.busy.keys()
    capacity = max(1, len(common)) * seconds
    busy = sum(after.busy[core] - before.busy[core] for core in common)
    own = sum(max(0.0, used - before.own.get(key, 0.0)) for key, used in after.own.items())
    if sys.platform == "linux":  # there the time of a child that has ended is in its parent's
        own = max(0.0, own - sum(used for key, used in before.own.items() if key not in after.own))
    return Load(
        seconds=seconds,
        cores=max(1, len(common)),
        others_share=min(1.0, max(0.0, (busy - own) / capacity)),
        own_share=min(1.0, own / capacity),
        runnable=_runnable(root),
        stalled_share=_stalled_share(root),
    )


def _usable_cores() -> set[int] | None:
    """The cores that this process may use; None if the system does not tell."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _busy_seconds(times: psutil._common.scputimes) -> float:  # type: ignore[name-defined]
    """All but idle time; time stolen by other machines of the same host counts as busy."""
    idle = times.idle + getattr(times, "iowait", 0.0)
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in `user` and `nice` already
    return float(sum(times) - idle - guest)


def _runnable(root: Path) -> int | None:
    """Threads that want to run, this one left out: `0.50 0.40 0.30 3/412 9999` says 3."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        running = (root / "proc/loadavg").read_text(encoding="ascii").split()[3]
        return max(0, int(running.split("/")[0]) - 1)
    return None


def _stalled_share(root: Path) -> float | None:
    """`some avg10=12.34 ...` says 0.1234."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = (root / "proc/pressure/cpu").read_text(encoding="ascii").split()
        if first[0] == "some" and first[1].startswith("avg10="):
            return float(first[1].removeprefix("avg10=")) / 100.0
    return None
