"""What this machine cannot do, or only pretends to, found out by trying: values of knobs with the reason against each.

Every trial is a tiny one, forward and backward. What is not named here was seen to work, or cannot be told from a
tiny trial and has to show itself in a real one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from model.energy import open_meter
from model.gpt import SDPA_BACKENDS
from model.knobs import KNOBS

Limits = dict[str, dict[str, str]]
"""By knob and value (as text): why the value is of no use here."""

_NATIVE = 1 / 3  # of fp32's rate: half precision that is slower than that is computed in software
_HALF = {"fp16": ("fp16_autocast",), "bf16": ("bf16_autocast", "bf16_master", "bf16_pure")}


def limits(device: torch.device, peak_flops: Mapping[str, float]) -> Limits:
    """What knobs cannot be turned to on `device`; `peak_flops` are its rates by dtype, in FLOP/s."""
    found: Limits = {
        "attention": _attention(device),
        "optimizer_kernel": _refused({"fused": lambda: _fused_update(device)}),
        "compile": _compile(device),
        "dtype": _dtypes(peak_flops),
        "parallelism": _parallelism(device),
        "matmul_precision": _matmul_precision(device),
        "pinned_memory": {} if device.type == "cuda" else {"True": f"there is no GPU to copy to, only {device.type}"},
    }
    return {knob: values for knob, values in found.items() if values}


def _refused(trials: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """The trials that end in an error, with its first words."""
    reasons = {}
    for name, trial in trials.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch explains there which kernels it passed over
                trial()
        except Exception as error:  # whatever it is, a search can do without what was tried
            first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            reasons[name] = first_line.split(". ")[0].rstrip(".")
    return reasons


def _attention(device: torch.device) -> dict[str, str]:
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16  # flash and cudnn want half precision on a GPU

    def attend(kernel: Callable[..., Tensor], **options: object) -> None:
        q, k, v = (torch.ones(1, 2, 16, 32, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        kernel(q, k, v, **options).sum().backward()  # type: ignore[no-untyped-call]

    def insist(backend: SDPBackend) -> None:
        with sdpa_kernel(backend):
            attend(scaled_dot_product_attention, is_causal=True)

    trials: dict[str, Callable[[], object]] = {
        name: lambda backend=backend: insist(backend)  # type: ignore[misc]
        for name, backend in SDPA_BACKENDS.items()
    }
    return _refused({**trials, "flex": lambda: attend(flex_attention)})


def _fused_update(device: torch.device) -> None:
    weight = torch.nn.Parameter(torch.ones(4, device=device))
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], fused=True).step()


def _compile(device: torch.device) -> dict[str, str]:
    """Inductor writes C++ for a CPU and Triton for a GPU; each needs its compiler."""
    if device.type == "cuda":
        missing = "" if importlib.util.find_spec("triton") else "torch.compile needs triton, which is not installed"
    else:
        names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
        missing = (
            "" if any(map(shutil.which, names)) else f"torch.compile needs a C++ compiler; no {' or '.join(names)}"
        )
    return {str(value): missing for value in KNOBS["compile"].values if value != "off"} if missing else {}


def _dtypes(peak_flops: Mapping[str, float]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for half, values in _HALF.items():
        share = peak_flops[half] / peak_flops["fp32"]
        if share < _NATIVE:
            reason = f"{half} is emulated here: its matrix products run at {share:.2g} of fp32's rate"
            reasons |= dict.fromkeys(values, reason)
    return reasons


def _parallelism(device: torch.device) -> dict[str, str]:
    """Processes need a backend to talk through, and a device that they can share or one each."""
    missing = ""
    if device.type == "mps":
        missing = "mps has no distributed backend"
    elif not _backends():
        missing = "this torch was built without a distributed backend"
    return {str(value): missing for value in KNOBS["parallelism"].values if value != "none"} if missing else {}


def _backends() -> list[str]:
    available = torch.distributed.is_available()
    there = {
        "gloo": available and torch.distributed.is_gloo_available(),
        "nccl": available and torch.distributed.is_nccl_available(),
    }
    return [name for name, is_there in there.items() if is_there]


def _matmul_precision(device: torch.device) -> dict[str, str]:
    """The settings under which products of fp32 stay what they are, to the bit."""
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
    """What is there besides: distributed backends, devices, the sockets that memory hangs on, an energy meter."""
    nodes = [name for name in _listed("/sys/devices/system/node") if name.startswith("node") and name[4:].isdecimal()]
    return {
        "devices": str(torch.cuda.device_count() if device.type == "cuda" else 1),
        "distributed_backends": ", ".join(_backends()) or "none",
        "numa_nodes": str(len(nodes)) if nodes else f"not told by {sys.platform}",
        "energy_meter": open_meter(device).name,
    }


def _listed(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
