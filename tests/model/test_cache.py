"""Files that several processes share: private, complete or absent, never waited for."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from autotune_model import cache, seals


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def old(path: Path) -> Path:
    os.utime(path, (1, 1))
    return path


def test_what_is_cached_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with cache.appearing(tmp_path / "kept" / "folder") as unfinished, cache.private_file(unfinished / "a") as file:
            os.write(file, b"secret")
        cache.write(tmp_path / "kept" / "file", "secret")
    finally:
        os.umask(before)
    assert mode(tmp_path / "kept") == mode(tmp_path / "kept" / "folder") == 0o700
    assert mode(tmp_path / "kept" / "file") == mode(tmp_path / "kept" / "folder" / "a") == 0o600


def test_a_folder_that_an_earlier_version_left_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o755)
    (tmp_path / "kept").chmod(0o755)
    cache.write(tmp_path / "kept" / "file", "x")
    assert mode(tmp_path / "kept") == 0o700


def test_the_first_of_two_builders_wins_and_neither_waits(tmp_path: Path) -> None:
    with cache.appearing(tmp_path / "it") as one:
        (one / "by").write_text("one")
        with cache.appearing(tmp_path / "it") as other:
            (other / "by").write_text("other")
    assert (tmp_path / "it" / "by").read_text() == "other"
    assert names(tmp_path) == {"it"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_builder_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with cache.appearing(tmp_path / "it") as unfinished:
            (unfinished / "a").write_text("half")
            raise error

    with pytest.raises((KeyboardInterrupt, OSError)):
        fail()
    assert not names(tmp_path)


def test_what_a_killed_builder_left_is_swept_and_what_a_live_one_builds_is_not(tmp_path: Path) -> None:
    killed, live, new = (tmp_path / f".{name}.unfinished" for name in ("killed", "live", "new"))
    for folder in (killed, live, new):
        folder.mkdir()
        (folder / "train.bin").write_bytes(b"half")
    (tmp_path / ".it.json.unfinished").write_text("half")
    for path in (killed, live, tmp_path / ".it.json.unfinished"):
        old(path)
    descriptor = os.open(live, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        cache.private_folder(tmp_path)
    finally:
        os.close(descriptor)
    assert names(tmp_path) == {live.name, new.name}


def test_a_link_among_leftovers_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".it.unfinished").symlink_to(tmp_path / "precious")
    old(tmp_path / "precious")
    cache.private_folder(tmp_path / "kept")
    assert (tmp_path / "precious").exists()


def test_a_sealed_value_comes_back_or_not_at_all() -> None:
    value = {"a": [1, 2.5, "ü"], "b": None}
    text = seals.sealed(value)
    assert seals.unsealed(text) == value
    for damaged in (text.replace("2.5", "2.6"), text[:-3], "[]", "3", "{}", ""):
        with pytest.raises((ValueError, KeyError, TypeError)):
            seals.unsealed(damaged)


@pytest.mark.parametrize("size", [0, 10, 4 * 100, 4 * 100 + 1, 10_000])
def test_a_sample_sees_size_both_ends_and_all_of_a_small_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"

    def sample(content: bytes) -> str:
        path.write_bytes(content)
        return seals.sampled(path, blocks=4, block_bytes=100)

    whole = sample(b"a" * size)
    assert sample(b"a" * (size + 1)) != whole
    for at in {0, size - 1} if size > 4 * 100 else range(size):
        assert sample(b"a" * at + b"b" + b"a" * (size - at - 1)) != whole
