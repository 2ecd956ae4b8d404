"""How much memory there is for sessions, and whether some of them fit."""

from __future__ import annotations

from collections.abc import Mapping

_MARGIN = 1.25  # for allocator slack and workspaces; `benchmarks/memory.py` prints how far predictions are off


def available_bytes(environment: Mapping[str, str]) -> int:
    """Memory that all sessions may use together: the accelerator's own, else what this machine has free."""
    import psutil

    if environment.get("device", "cpu") != "cpu":
        return int(environment["device_memory_bytes"])
    return int(psutil.virtual_memory().available)


def fits(predicted: int, available: int) -> bool:
    """Whether sessions of `predicted` bytes can run in `available` bytes, with a margin of 25 %."""
    return predicted * _MARGIN <= available
