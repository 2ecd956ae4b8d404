"""How busy the machine is: what the kernel says, whose work it is, and what is left out where nothing is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autotune.executors import load
from autotune.executors.load import Load, LoadMeter


def sample(at: float, busy: dict[int, float], own: dict[tuple[int, float], float]) -> load._Sample:
    return load._Sample(at=at, busy=busy, own=own)


@pytest.mark.parametrize(
    ("busy", "own", "others_share", "own_share"),
    [
        ({0: 0.0, 1: 0.0}, 0.0, 0.0, 0.0),
        ({0: 10.0, 1: 10.0}, 10.0, 0.5, 0.5),
        ({0: 10.0, 1: 10.0}, 0.0, 1.0, 0.0),
        ({0: 10.0, 1: 0.0}, 10.0, 0.0, 0.5),
        ({0: 9.9, 1: 0.0}, 10.5, 0.0, 0.525),  # the two clocks of the kernel do not agree to the tick
    ],
)
def test_what_is_busy_and_not_our_own_is_the_work_of_others(
    tmp_path: Path, busy: dict[int, float], own: float, others_share: float, own_share: float
) -> None:
    before = sample(100.0, {0: 5.0, 1: 7.0}, {(1, 0.0): 3.0})
    after = sample(110.0, {0: 5.0 + busy[0], 1: 7.0 + busy[1]}, {(1, 0.0): 3.0 + own})
    found = load._between(before, after, tmp_path)
    assert (found.seconds, found.cores) == (10.0, 2)
    assert found.others_share == pytest.approx(others_share)
    assert found.own_share == pytest.approx(own_share)
    assert found.is_busy == (others_share >= 0.25)
    assert (found.runnable, found.stalled_share) == (None, None), "nothing is known without /proc"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process has the time of its children")
def test_a_process_counts_from_its_start_and_one_that_has_ended_only_once(tmp_path: Path) -> None:
    before = sample(0.0, {0: 0.0}, {(1, 0.0): 3.0, (2, 0.0): 9.0})
    after = sample(10.0, {0: 10.0}, {(1, 0.0): 3.0 + 9.0 + 1.0, (2, 5.0): 5.0})  # 2 ended; another has its number
    found = load._between(before, after, tmp_path)
    assert (found.own_share, found.others_share) == (pytest.approx(0.6), pytest.approx(0.4))


def test_the_work_of_a_child_is_ours_once_however_long_it_lived() -> None:
    burn = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE) as child:
        while sum(psutil.Process(child.pid).cpu_times()[:2]) < 0.4:
            pass
        meter = LoadMeter()
        child.communicate(b"\n")
    found = meter.read()
    assert found.own_share * found.seconds * found.cores < 0.3, "it worked before"


def test_what_the_kernel_says_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/loadavg").write_text("0.52 0.58 0.59 5/467 12345\n")
    (tmp_path / "proc/pressure/cpu").write_text("some avg10=12.50 avg60=3.00 avg300=1.00 total=99\nfull avg10=0.00\n")
    found = LoadMeter(tmp_path).read()
    assert (found.runnable, found.stalled_share) == (4, 0.125)


@pytest.mark.parametrize("text", ["", "some", "0.1 0.1 0.1", "a b c d/e f", "some avg10=much"])
def test_what_cannot_be_read_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    for name in ("proc/loadavg", "proc/pressure/cpu"):
        (tmp_path / name).write_text(text)
    found = LoadMeter(tmp_path).read()
    assert (found.runnable, found.stalled_share) == (None, None)


def test_the_work_of_this_process_is_its_own() -> None:
    def used() -> float:
        return sum(psutil.Process().cpu_times()[:2])

    meter, until = LoadMeter(), used() + 0.2
    while used() < until:
        pass
    found = meter.read()
    assert isinstance(found, Load)
    assert found.own_share * found.seconds * found.cores >= 0.1
    assert 0.0 <= found.others_share <= 1.0
