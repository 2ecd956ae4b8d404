"""How much memory sessions may use, and whether given sessions fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotune.executors.cgroups import free_bytes

_MARGIN = 1.25  # for allocator slack and workspaces; `benchmarks/memory.py` prints how far predictions are off


def available_bytes(environment: Mapping[str, str], root: Path = Path("/")) -> int:
    """Memory that all sessions may use together: the accelerator's total, or what is free here.

    That is the machine's free memory, or less in a container with a limit. `root` holds the files about it.
    """
    import psutil

    if environment.get("device", "cpu") != "cpu":
        return int(environment["device_memory_bytes"])
    free, allowed = int(psutil.virtual_memory().available), free_bytes(root)
    return free if allowed is None else min(free, allowed)


def fits(predicted: int, available: int) -> bool:
    """Whether sessions of `predicted` bytes can run in `available` bytes, with a margin of 25 %."""
    return predicted * _MARGIN <= available
