"""Device-specific code: selection, data transfer, synchronisation, step timing, peak memory.

The CUDA and MPS branches follow the documented interfaces of torch.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from autotune_model.config import InvalidConfiguration


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        InvalidConfiguration: the named device is not available.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in present.items() if there)
    if not present[name]:
        raise InvalidConfiguration(
            f'device must be present; got {name!r}, which torch {torch.__version__} cannot use here: use "auto"'
        )
    return torch.device(name)


def to_device(rows: Tensor, device: torch.device, *, pinned: bool = False) -> Tensor:
    """Copy a batch to the device. From pinned memory, CUDA copies without first waiting for queued kernels."""
    return rows.pin_memory(device).to(device, non_blocking=True) if pinned else rows.to(device)


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on the device is done. On a CPU nothing is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class StepTimer:
    """Times consecutive steps, without synchronising a CUDA device between them.

    On CUDA the steps are timed by events in the stream, elsewhere by the monotonic clock; MPS
    synchronises at each mark, a fraction of a millisecond.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Mark the start of the first step, or the end of one."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._events.append(event)
        else:
            synchronize(self._device)
            self._times.append(time.perf_counter())

    def step_seconds(self) -> list[float]:
        """The seconds between the marks; the device must have been synchronised."""
        if self._device.type == "cuda":
            return [start.elapsed_time(end) / 1e3 for start, end in zip(self._events, self._events[1:], strict=False)]
        return [end - start for start, end in zip(self._times, self._times[1:], strict=False)]


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far.

    On CUDA: what torch's allocator gave to tensors. On MPS: what the driver holds now, which its
    caching keeps near the peak. On a CPU: the peak resident set of this process, interpreter and
    libraries (about 0.3 GB) included.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "linux":
        # Not ru_maxrss: it survives exec, so a worker would report the peak of the driver that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
