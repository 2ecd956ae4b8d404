"""How much memory sessions may use, and whether given sessions fit."""

from __future__ import annotations

from collections.abc import Mapping

_MARGIN = 1.25  # for allocator slack and workspaces; `benchmarks/memory.py` prints how far predictions are off


def available_bytes(environment: Mapping[str, str]) -> int:
    """Memory that all sessions may use together: the accelerator's total, or this machine's free memory."""
    import psutil

    if environment.get("device", "cpu") != "cpu":
        return int(environment["device_memory_bytes"])
    return int(psutil.virtual_memory().available)


def fits(predicted: int, available: int) -> bool:
    """Whether sessions of `predicted` bytes can run in `available` bytes, with a margin of 25 %."""
    return predicted * _MARGIN <= available
