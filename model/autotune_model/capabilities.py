"""Probes which knob values this machine cannot run or benefit from, with a reason for each.

Every probe is a tiny forward and backward pass. A value without a reason worked, or needs a real trial.
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
"""By knob and value (as text): why the value is useless here."""

_NATIVE = 1 / 3  # of fp32's rate: half precision slower than that is emulated in software
_HALF = {"fp16": ("fp16_autocast",), "bf16": ("bf16_autocast", "bf16_master", "bf16_pure")}


def limits(device: torch.device, peak_flops: Mapping[str, float], attempts: Collection[str] = ()) -> Limits:
    """The values that are useless on `device`; `peak_flops` are its rates by dtype, in FLOP/s.

    Probes that need a compiler take seconds, so they run only if named in `attempts` (from `attempts.NAMES`). The
    time is not wasted: torch caches what it compiles, so the first sessions that compile start faster.
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
    """The reason, if any, against all values of a knob except `spared`."""
    return {str(value): reason for value in KNOBS[name].values if value != spared} if reason else {}


def _refused(trials: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """The trials that raise an error, with its first words."""
    reasons = {}
    for name, trial in trials.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about each kernel it skips
                trial()
        except Exception as error:  # any error: a search can do without this value
            reasons[name] = _words(error)
    return reasons


def _words(error: Exception) -> str:
    """The first sentence of an error, and the first C++ compiler error if it quotes one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    words = first.split(". ")[0].rstrip(".")
    if "Output:" not in lines:
        return words
    output = lines[lines.index("Output:") + 1 :]
    return f"{words}: {next((line for line in output if 'error' in line), 'without a message')[:200]}"


def _broken(device: torch.device, attempts: Collection[str]) -> dict[str, str]:
    """Which of `attempts` fail, each in its own process, and why; if compiling fails, nothing else is compiled."""
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
    """Inductor generates C++ for a CPU and Triton for a GPU; only compiling shows if the compilers are there.

    The factor becomes part of the code, so torch cannot reuse code that it compiled and cached earlier.
    """
    factor = random.random()
    x = torch.linspace(0.0, 1.0, 64, device=device, requires_grad=True)
    torch.compile(lambda x: (factor * x).sin())(x).sum().backward()


def _attention(device: torch.device) -> dict[str, str]:
    return _refused({name: lambda name=name: _attend(name, device) for name in SDPA_BACKENDS})  # type: ignore[misc]


def _attend(kernel: str, device: torch.device) -> None:
    """Run the model's attention; on a GPU in bf16, because a kernel that supports one dtype is useful.

    Flash and cudnn do not support fp32 there. A session that asks for it fails as invalid, like any bad combination
    (`autotune_model.failures`).
    """
    shape = GPTConfig(layers=1, heads=2, width=64, sequence_length=128)  # FlexAttention uses blocks of 128
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
    """Processes need a communication backend, and one shared device or one each."""
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
    """The settings that leave fp32 products bitwise identical."""
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
    """More about the machine: distributed backends, devices, NUMA nodes, energy meter."""
    nodes = [name for name in _listed("/sys/devices/system/node") if name.startswith("node") and name[4:].isdecimal()]
    return {
        "devices": str(torch.cuda.device_count() if device.type == "cuda" else 1),
        "distributed_backends": ", ".join(_backends()) or "none",
        "numa_nodes": str(len(nodes)) if nodes else f"not told by {sys.platform}",
        "energy_meter": open_meter(device).name,
    }


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
