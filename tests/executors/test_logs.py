"""The log of a worker stays small, whatever it writes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from autotune.executors.logs import cap
from autotune.simulation.study import MEMORY


def test_the_start_and_the_end_of_a_large_log_stay(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("ab") as writer:
        writer.write(b"the start" + b"x" * 1_000)
        writer.flush()
        cap(log, largest=100, start=20, end=10)
        writer.write(b"the end")  # a worker goes on writing
        writer.flush()
        kept = log.read_bytes()
        assert kept.startswith(b"the start" + b"x" * 11)
        assert b"979 bytes left out: a log may have 100" in kept
        assert kept.endswith(b"x" * 10 + b"the end")


def test_a_small_log_and_none_at_all_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    cap(log)
    assert not log.exists()
    log.write_bytes(b"few words")
    cap(log, largest=9)
    assert log.read_bytes() == b"few words"


@given(st.binary(max_size=400), st.integers(1, 40), st.integers(1, 40))
def test_it_is_as_small_as_it_says_and_says_what_is_missing(text: bytes, start: int, end: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        log = Path(folder) / "log.txt"
        log.write_bytes(text)
        cap(log, largest=100, start=start, end=end)
        kept = log.read_bytes()
    if len(text) <= 100:
        assert kept == text
    else:
        assert kept.startswith(text[:start])
        assert kept.endswith(text[-end:])
        assert f"{len(text) - start - end} bytes left out".encode() in kept
