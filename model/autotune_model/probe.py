"""Describes this machine: its environment, and its peak FLOP rate from a sweep of matrix products."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

from autotune_model.device import synchronize

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SWEEP_SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)
_SWEEP_SECONDS = 0.4
_SIZE_SECONDS = 0.05
_TELLING_CPU_FLAGS = frozenset(
    {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16", "asimdhp", "bf16", "sve"}
)


def environment(device: torch.device) -> dict[str, str]:
    """Versions, processor, memory and device, shown in reports and compared when a study resumes."""
    cpu_model, cpu_flags = _processor()
    found: dict[str, str | int] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(terse=True),
        "device": device.type,
        "device_name": cpu_model,
        "device_memory_bytes": _memory_bytes(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_model": cpu_model,
        "cpu_flags": cpu_flags,
        "physical_cores": psutil.cpu_count(logical=False) or 0,
        "logical_cores": _usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device_name"] = properties.name
        found["device_memory_bytes"] = properties.total_memory
        found["capability"] = f"sm_{properties.major}{properties.minor}"
        found["devices"] = torch.cuda.device_count()
        found["cuda"] = str(torch.version.cuda)
    elif device.type == "mps":
        found["device_memory_bytes"] = torch.mps.recommended_max_memory()
        found["capability"] = "mps"
    return {name: str(value) for name, value in found.items()}


def peak_flops(device: torch.device) -> dict[str, float]:
    """The best rate of square matrix products by dtype, in FLOP/s: what MFU is measured against."""
    return {name: _best_rate(dtype, device) for name, dtype in _DTYPES.items()}


def _best_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The best rate of growing sizes within a fraction of a second: emulated fp16 stops early.

    Each size is repeated for some scheduler time slices, because other processes may hold the cores.
    """
    best = 0.0
    deadline = math.inf
    for size in _SWEEP_SIZES:
        flops = 2.0 * size**3
        if best and time.perf_counter() + 2 * flops / best > deadline:
            break
        a = torch.ones(size, size, dtype=dtype, device=device)
        a @ a  # makes libraries load and choose their kernels
        synchronize(device)
        deadline = min(deadline, time.perf_counter() + _SWEEP_SECONDS)  # loading is not counted
        size_deadline = time.perf_counter() + _SIZE_SECONDS
        while (started := time.perf_counter()) < size_deadline:
            a @ a
            synchronize(device)
            best = max(best, flops / (time.perf_counter() - started))
    return best


def _processor() -> tuple[str, str]:
    """The processor's name, and its instruction sets relevant to low precision."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip(), ""
    rows = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    fields = {name.strip(): value.strip() for name, value in reversed(rows)}  # the first core represents all
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", platform.machine()), " ".join(sorted(flags & _TELLING_CPU_FLAGS))


def _usable_cores() -> int:
    """Usable logical cores: those of the affinity, or fewer under a container's quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else psutil.cpu_count() or 0
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, period = limit.read_text().split() if limit.exists() else ("max", "")
    return cores if quota == "max" else min(cores, math.ceil(int(quota) / int(period)))


def _memory_bytes() -> int:
    """Memory of the machine, or of the container if that has less (cgroup v2)."""
    total = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return total if text == "max" else min(total, int(text))
