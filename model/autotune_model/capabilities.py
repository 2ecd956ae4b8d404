"""Probes which values of knobs this machine cannot run, or cannot gain from, with a reason for each.

Every probe is tiny, forward and backward. A value without a reason has worked, or needs a real trial to tell.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Collection, Mapping

import torch

from autotune_model.attempts import NAMES, attempt
from autotune_model.config import GPTConfig, TrainingConfig
from autotune_model.energy import open_meter
from autotune_model.gpt import SDPA_BACKENDS, Attention
from autotune_model.knobs import KNOBS

Limits = dict[str, dict[str, str]]
"""By knob and value (as text): why the value is of no use here."""

_NATIVE = 1 / 3  # of fp32's rate: half precision that is slower than that is computed in software
_HALF = {"fp16": ("fp16_autocast",), "bf16": ("bf16_autocast", "bf16_master", "bf16_pure")}


def limits(device: torch.device, peak_flops: Mapping[str, float], attempts: Collection[str] = ()) -> Limits:
    """The values that serve nothing on `device`; `peak_flops` are its rates by dtype, in FLOP/s.

    What needs a compiler takes seconds, so it is tried only where `attempts` names it (one of `attempts.NAMES`). The
    time is not lost: torch keeps what it compiled, and the first sessions that compile start faster.
    """
    broken = _broken(device, attempts)
    found: Limits = {
        "attention": _attention(device) | {name: reason for name, reason in broken.items() if name == "flex"},
        "optimizer_kernel": _refused({"fused": lambda: _fused_update(device)}),
        "compile": _of_knob("compile", "off", broken.get("compile", "")),
        "dtype": _dtypes(peak_flops),
        "parallelism": _parallelism(device),
        "matmul_precision": _matmul_precision(device),
        "pinned_memory": {} if device.type == "cuda" else {"True": f"there is no GPU to copy to, only {device.type}"},
    }
    return {knob: values for knob, values in found.items() if values}


def _of_knob(name: str, spared: str, reason: str) -> dict[str, str]:
    """One reason, if there is any, against all values of a knob but `spared`."""
    return {str(value): reason for value in KNOBS[name].values if value != spared} if reason else {}


def _refused(trials: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """The trials that end in an error, with its first words."""
    reasons = {}
    for name, trial in trials.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch explains there which kernels it passed over
                trial()
        except Exception as error:  # whatever it is, a search can do without what was tried
            reasons[name] = _words(error)
    return reasons


def _words(error: Exception) -> str:
    """The first sentence of an error, and the first error of a C++ compiler where it quotes one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    words = first.split(". ")[0].rstrip(".")
    if "Output:" not in lines:
        return words
    output = lines[lines.index("Output:") + 1 :]
    return f"{words}: {next((line for line in output if 'error' in line), 'without a message')[:200]}"


def _broken(device: torch.device, attempts: Collection[str]) -> dict[str, str]:
    """Which of `attempts` fail, each in a process of its own, and why; nothing is compiled where compiling fails."""
    reasons: dict[str, str] = {}
    for name in NAMES:  # "compile" is the first
        if name in attempts:
            reasons[name] = reasons.get("compile") or attempt(name, device.type)
    return {name: reason for name, reason in reasons.items() if reason}


def why_not(name: str, device: torch.device) -> str:
    """Why one of `attempts.NAMES` does not work here. It may crash this process, or never return."""
    trials = {"compile": lambda: _compile(device), "flex": lambda: _attend("flex", device)}
    return _refused({name: trials[name]}).get(name, "")


def _compile(device: torch.device) -> None:
    """Inductor writes C++ for a CPU and Triton for a GPU; only compiling tells whether the compilers are there.

    The factor becomes part of the code, so that torch's cache cannot answer with code it compiled earlier.
    """
    factor = random.random()
    x = torch.linspace(0.0, 1.0, 64, device=device, requires_grad=True)
    torch.compile(lambda x: (factor * x).sin())(x).sum().backward()


def _attention(device: torch.device) -> dict[str, str]:
    return _refused({name: lambda name=name: _attend(name, device) for name in SDPA_BACKENDS})  # type: ignore[misc]


def _attend(kernel: str, device: torch.device) -> None:
    """Attention as the model has it; on a GPU in bf16, because a kernel that takes one dtype is of use.

    Flash and cudnn take no fp32 there. A session that asks for it fails as invalid, like any impossible combination
    (`autotune_model.failures`).
    """
    shape = GPTConfig(layers=1, heads=2, width=64, sequence_length=128)  # FlexAttention's blocks are of 128
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    attention = Attention(shape, TrainingConfig(attention=kernel)).to(device, dtype)
    attention(torch.ones(1, shape.sequence_length, shape.width, device=device, dtype=dtype)).sum().backward()


def _fused_update(device: torch.device) -> None:
    weight = torch.nn.Parameter(torch.ones(4, device=device))
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], fused=True).step()


def _dtypes(peak_flops: Mapping[str, float]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for half, values in _HALF.items():
        share = peak_flops[half] / peak_flops["fp32"]
        if share < _NATIVE:
            reason = f"{half} is emulated here: its matrix products run at {share:.2g} of fp32's rate"
            reasons |= dict.fromkeys(values, reason)
    return reasons


def _parallelism(device: torch.device) -> dict[str, str]:
    """Processes need a backend to communicate, and one device to share or one each."""
    missing = ""
    if device.type == "mps":
        missing = "mps has no distributed backend"
    elif not _backends():
        missing = "this torch was built without a distributed backend"
    return _of_knob("parallelism", "none", missing)


def _backends() -> list[str]:
    available = torch.distributed.is_available()
    there = {
        "gloo": available and torch.distributed.is_gloo_available(),
        "nccl": available and torch.distributed.is_nccl_available(),
    }
    return [name for name, is_there in there.items() if is_there]


def _matmul_precision(device: torch.device) -> dict[str, str]:
    """The settings that leave products of fp32 bit for bit the same."""
    before = torch.get_float32_matmul_precision()
    a = torch.linspace(-1.0, 1.0, 256 * 256, device=device).view(256, 256)
    try:
        products = {}
        for setting in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(setting)
            products[setting] = a @ a
    finally:
        torch.set_float32_matmul_precision(before)
    same = [s for s in ("high", "medium") if torch.equal(products[s], products["highest"])]
    return dict.fromkeys(same, "fp32 products are the same to the bit on this device")


def describe(device: torch.device) -> dict[str, str]:
    """Also on the machine: distributed backends, devices, NUMA nodes, an energy meter."""
    nodes = [name for name in _listed("/sys/devices/system/node") if name.startswith("node") and name[4:].isdecimal()]
    return {
        "devices": str(torch.cuda.device_count() if device.type == "cuda" else 1),
        "distributed_backends": ", ".join(_backends()) or "none",
        "numa_nodes": str(len(nodes)) if nodes else f"not told by {sys.platform}",
        "energy_meter": open_meter(device).name,
    }


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
