"""The limits of control groups, from files like those of a host, a container, a pod and an old kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.executors.cgroups import free_bytes, oom_kills
from autotune.executors.memory import available_bytes

GIB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    """A tree of those files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder: str, *, limit: str, used: int, cache: int = 0) -> dict[str, str]:
    """A group of version 2."""
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {cache}\nactive_file 5\n",
    }


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n"} | group("sys/fs/cgroup", limit=str(800 << 20), used=300 << 20)
    assert free_bytes(machine(tmp_path, files)) == 500 << 20


def test_what_the_kernel_would_give_back_is_free(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n"} | group("sys/fs/cgroup", limit=str(GIB), used=GIB, cache=GIB // 4)
    assert free_bytes(machine(tmp_path, files)) == GIB // 4


def test_the_tightest_group_on_the_path_counts(tmp_path: Path) -> None:
    path = "sys/fs/cgroup/kubepods/pod1/box"
    files = {"proc/self/cgroup": "0::/kubepods/pod1/box\n"}
    files |= group(path, limit="max", used=GIB)
    files |= group("sys/fs/cgroup/kubepods/pod1", limit=str(2 * GIB), used=GIB)
    files |= group("sys/fs/cgroup/kubepods", limit=str(64 * GIB), used=10 * GIB)
    assert free_bytes(machine(tmp_path, files)) == GIB


def test_a_limit_at_which_the_kernel_throttles_is_a_limit(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.high": f"{GIB}\n"}
    files |= group("sys/fs/cgroup/a", limit="max", used=GIB // 2)
    assert free_bytes(machine(tmp_path, files)) == GIB // 2


@pytest.mark.parametrize("path", ["/docker/0123", "/"])
def test_version_1_whether_or_not_the_container_sees_its_own_path(tmp_path: Path, path: str) -> None:
    files = {
        "proc/self/cgroup": f"5:cpu,cpuacct:{path}\n4:memory:{path}\n0::{path}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB // 2}\n",
        "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB // 4}\n",
        "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    }
    root = machine(tmp_path, files)
    assert free_bytes(root) == 3 * GIB // 4
    assert oom_kills(root) == 3


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/user.slice\n"},
        {"proc/self/cgroup": "0::/\n"} | group("sys/fs/cgroup", limit="max", used=GIB),
        {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
        {"proc/self/cgroup": "nonsense\n::\n0::/../..\n"},
    ],
)
def test_without_a_limit_there_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert free_bytes(machine(tmp_path, files)) is None


@given(st.text(max_size=200))
def test_no_file_of_the_kernel_can_be_so_strange_that_it_raises(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = machine(Path(folder), {"sys/fs/cgroup/memory.current": "0\n"})
        for name in ("proc/self/cgroup", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.events"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        free_bytes(root)
        oom_kills(root)
        (root / "proc/self/cgroup").write_text("0::/\n")
        assert (free_bytes(root) or 0) >= 0


def test_the_group_counts_the_kills_and_else_the_machine(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", "proc/vmstat": "pgfault 9\noom_kill 7\n"}
    root = machine(tmp_path, files | group("sys/fs/cgroup/a", limit="max", used=0))
    assert oom_kills(root) == 7
    (root / "sys/fs/cgroup/a/memory.events").write_text("low 0\noom 4\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(root) == 2
    assert oom_kills(tmp_path / "nowhere") is None


def test_sessions_may_use_the_less_of_host_and_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"proc/self/cgroup": "0::/\n"} | group("sys/fs/cgroup", limit=str(2 * GIB), used=GIB)
    root = machine(tmp_path, files)
    for host, expected in ((22 * GIB, GIB), (GIB // 2, GIB // 2)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda host=host: SimpleNamespace(available=host))
        assert available_bytes({"device": "cpu"}, root) == expected
    assert available_bytes({"device": "cuda", "device_memory_bytes": "80"}, root) == 80
