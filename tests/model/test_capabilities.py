"""What this machine lacks is found by trying, and told with a reason."""

from __future__ import annotations

import shutil

import pytest
import torch

from model import capabilities
from model.knobs import KNOBS

CPU = torch.device("cpu")
EVEN = {"fp32": 1e11, "bf16": 1e11, "fp16": 1e11}


def test_a_cpu_lacks_what_torch_has_for_gpus_only() -> None:
    found = capabilities.limits(CPU, EVEN)
    assert {"efficient", "cudnn", "flex"} <= set(found["attention"])
    assert not {"math", "sdpa", "flash"} & set(found["attention"])
    assert set(found["pinned_memory"]) == {"True"}
    assert "optimizer_kernel" not in found, "torch has fused AdamW for CPUs"
    for name, values in found.items():
        legal = {str(v) for v in KNOBS[name].values or (False, True)}
        assert set(values) <= legal
        assert all(reason and "\n" not in reason for reason in values.values())
    assert torch.get_float32_matmul_precision() == "highest", "put back"


def test_half_precision_that_is_emulated_is_of_no_use() -> None:
    found = capabilities.limits(CPU, {"fp32": 1e11, "bf16": 1.5e11, "fp16": 3e9})
    assert set(found["dtype"]) == {"fp16_autocast"}
    assert "0.03 of fp32's rate" in found["dtype"]["fp16_autocast"]
    slow = capabilities.limits(CPU, {"fp32": 1e11, "bf16": 1e10, "fp16": 1e11})
    assert set(slow["dtype"]) == {"bf16_autocast", "bf16_master", "bf16_pure"}


def test_without_a_compiler_nothing_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = capabilities.limits(CPU, EVEN)["compile"]
    assert set(found) == {str(v) for v in KNOBS["compile"].values} - {"off"}
    assert found["default"] == "torch.compile needs a C++ compiler; no g++ or clang++"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "compile" not in capabilities.limits(CPU, EVEN)


def test_the_description_names_backends_and_devices() -> None:
    found = capabilities.describe(CPU)
    assert found["devices"] == "1"
    assert "gloo" in found["distributed_backends"]
    assert found["numa_nodes"]
    assert found["energy_meter"], "what it is, or why there is none"


def test_an_error_without_words_is_told_by_its_kind() -> None:
    def fail() -> None:
        raise AssertionError

    assert capabilities._refused({"flash": fail, "math": lambda: None}) == {"flash": "AssertionError"}
