from __future__ import annotations

import os
import sys

import pytest
import torch

from autotune_model import probe
from autotune_model.config import InvalidConfiguration
from autotune_model.device import resolve_device

CPU = torch.device("cpu")


def test_sweep_stops_where_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    ones = torch.ones

    def watch(rows: int, columns: int, **settings: object) -> torch.Tensor:
        sizes.append(rows)
        return ones(rows, columns, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "ones", watch)
    monkeypatch.setattr(probe, "_SWEEP_SECONDS", 0.0)
    assert set(probe.peak_flops(CPU)) == {"fp32", "bf16", "fp16"}
    assert sizes == [128, 128, 128]


def test_container_limit_counts_as_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert int(probe.environment(CPU)["memory_bytes"]) > 1_048_576
    monkeypatch.setattr(probe.Path, "exists", lambda path: True)
    monkeypatch.setattr(probe.Path, "read_text", lambda path: "1048576\n" if "cgroup" in str(path) else "")
    assert probe._memory_bytes() == 1_048_576


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell no affinity")
@pytest.mark.parametrize(
    ("quota", "cores"), [("", 6), ("max 100000\n", 6), ("250000 100000\n", 3), ("900000 100000\n", 6)]
)
def test_only_cores_that_may_be_used_count(monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(probe.psutil, "cpu_count", lambda logical=True: 64)
    monkeypatch.setattr(probe.Path, "exists", lambda path: bool(quota))
    monkeypatch.setattr(probe.Path, "read_text", lambda path: quota)
    assert probe._usable_cores() == cores


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_missing_device_is_an_error() -> None:
    with pytest.raises(InvalidConfiguration, match="device must be present; got 'cuda'"):
        resolve_device("cuda")
    assert resolve_device("auto").type in ("cpu", "mps")
