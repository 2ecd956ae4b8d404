"""What this machine lacks is found by trying, and told with a reason."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from autotune_model import capabilities
from autotune_model.attempts import attempt
from autotune_model.knobs import KNOBS

CPU = torch.device("cpu")
EVEN = {"fp32": 1e11, "bf16": 1e11, "fp16": 1e11}


def test_a_cpu_lacks_what_torch_has_for_gpus_only() -> None:
    found = capabilities.limits(CPU, EVEN)
    assert set(found["attention"]) == {"efficient", "cudnn"}
    assert "compile" not in found, "not asked for"
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


@pytest.mark.parametrize(
    ("asked", "works", "tried", "found"),
    [
        (("compile", "flex"), (), ["compile"], {"compile", "flex"}),
        (("compile", "flex"), ("compile",), ["compile", "flex"], {"flex"}),
        (("flex",), (), ["flex"], {"flex"}),
        (("compile", "flex"), ("compile", "flex"), ["compile", "flex"], set()),
    ],
)
def test_what_needs_a_compiler_is_tried_only_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], works: tuple[str, ...], tried: list[str], found: set[str]
) -> None:
    seen: list[str] = []

    def pretend(name: str, device: str) -> str:
        seen.append(name)
        return "" if name in works else f"no {name} on {device}"

    monkeypatch.setattr(capabilities, "attempt", pretend)
    limits = capabilities.limits(CPU, EVEN, asked)
    assert seen == tried
    if "compile" in found:
        against = {str(v) for v in KNOBS["compile"].values} - {"off"}
        assert limits["compile"] == dict.fromkeys(against, "no compile on cpu")
    reason = f"no {tried[-1]} on cpu"  # FlexAttention is compiled: it cannot do better than a tiny function
    assert limits["attention"].get("flex") == (reason if "flex" in found else None)
    assert {"compile", "flex"} & (set(limits) | set(limits["attention"])) == found


def test_flex_attention_is_tried_as_the_model_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert capabilities.why_not("flex", CPU) == "FlexAttention does not support backward on CPU"

    def uncompilable() -> None:
        raise RuntimeError("Cannot find a working triton installation. Either install it\nor do not")

    monkeypatch.setattr("autotune_model.gpt._compiled_flex", uncompilable)
    assert capabilities.why_not("flex", CPU) == "Cannot find a working triton installation"


@pytest.mark.skipif(not shutil.which("clang++" if sys.platform == "darwin" else "g++"), reason="needs a compiler")
def test_a_compiler_that_works_is_left_in_peace() -> None:
    assert attempt("compile", "cpu") == ""


def test_a_compiler_that_is_there_but_broken_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(
        "#!/bin/sh\nfor word in $@; do [ $word = --version ] && echo 'c++ 1.0' && exit; done\n"
        "echo 'In file included from nowhere:' >&2\necho 'fatal error: omp.h: No such file' >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert attempt("compile", "cpu").endswith("C++ compile error: fatal error: omp.h: No such file")


def test_only_the_compiler_that_torch_looks_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one in the path is of no use."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "No working C++ compiler found" in attempt("compile", "cpu")


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


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("CppCompileError: C++ compile error\n\nOutput:\n", "CppCompileError: C++ compile error: without a message"),
        ("backend='inductor' raised:\nImportError: no", "backend='inductor' raised: ImportError: no"),
        ("Use another device. Or none.\nmore", "Use another device"),
    ],
)
def test_the_first_useful_words_of_an_error_are_told(message: str, words: str) -> None:
    assert capabilities._words(RuntimeError(message)) == words
