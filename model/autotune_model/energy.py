"""Energy meters: monotonic hardware counters, read before and after the work to be measured.

| meter              | measures                          | does not measure            | updated      |
|--------------------|-----------------------------------|-----------------------------|--------------|
| RAPL package zones | the machine's processor packages, | memory, disks, power supply | every ms     |
|                    | for all processes                 |                             |              |
| NVML total energy  | the boards of the session's GPUs  | the rest of the machine     | every 100 ms |

(RAPL: Linux, `Documentation/power/powercap`, and Khan et al. 2018, TOMPECS 3(2); NVML: at worst every 100 ms,
Yang et al. 2023, arXiv 2312.02741.) A slice lasts tenths of a second: only sums are meaningful.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")

# Parts of a package have subzones (`intel-rapl:0:0`), and `intel-rapl-mmio:0` repeats a package.
_TOP_LEVEL = re.compile(r"intel-rapl:\d+")


class Meter(Protocol):
    """An energy counter. `name` says what it reads, or why there is nothing to read."""

    @property
    def name(self) -> str: ...

    def read_joules(self) -> float | None:
        """Joules since some fixed time; None if they cannot be read. Only differences are meaningful."""
        ...


@dataclass(frozen=True, slots=True)
class NoMeter:
    """No counter can be read here; `reason` says why in one line."""

    reason: str

    @property
    def name(self) -> str:
        return self.reason

    def read_joules(self) -> None:
        return None


NOT_ASKED = NoMeter("no energy meter was asked for")


def open_meter(device: torch.device, devices: int = 1) -> Meter:
    """The energy meter for a session on `device`: of the whole CPU, or of the first `devices` GPUs."""
    if device.type == "cuda":
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return NoMeter("the energy counter of a GPU is read by nvidia-ml-py: pip install 'autotune[energy]'")
        # By UUID: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER change device numbers, but not NVML's.
        return nvml_meter(nvml, [f"GPU-{torch.cuda.get_device_properties(n).uuid}" for n in range(devices)])
    if device.type == "cpu":
        return rapl_meter(POWERCAP)
    return NoMeter(f"there is no energy meter for {device.type}")


def joules_between(before: float | None, after: float | None, *, devices: int = 1) -> float | None:
    """Each device's share of the difference between two readings; None if either is None."""
    return None if before is None or after is None else (after - before) / devices


# -- processors --------------------------------------------------------------------------------------


class RaplMeter:
    """All processor packages of a machine together, Intel or AMD.

    A counter wraps to zero after some minutes of full load. One wrap between two readings is corrected for, more
    cannot be detected: read before and after each slice.
    """

    name = "RAPL package zones"

    def __init__(self, zones: Sequence[Path]) -> None:
        """Raises OSError or ValueError: a counter cannot be read."""
        self._counters = [zone / "energy_uj" for zone in zones]
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        self._last = [_number(counter) for counter in self._counters]
        self._microjoules = 0

    def read_joules(self) -> float | None:
        """See `Meter.read_joules`: since the meter was opened."""
        try:
            readings = [_number(counter) for counter in self._counters]
        except (OSError, ValueError):
            return None
        for last, reading, span in zip(self._last, readings, self._ranges, strict=True):
            self._microjoules += reading - last + (span if reading < last else 0)
        self._last = readings
        return self._microjoules / 1e6


def rapl_meter(root: Path) -> Meter:
    """The RAPL package zones under `root`, without `psys` (the whole platform, if present), which includes them."""
    zones = sorted(path for path in root.glob("intel-rapl:*") if _TOP_LEVEL.fullmatch(path.name))
    try:
        packages = [zone for zone in zones if (zone / "name").read_text().startswith("package-")]
        if not packages:
            return NoMeter(f"there is no RAPL package zone in {root}, as in most virtual machines and containers")
        return RaplMeter(packages)
    except PermissionError as error:
        # Since CVE-2020-8694: power draw leaks information about what is computed.
        return NoMeter(
            f"{error.filename} can only be read by root: let this user read it, unless others share the machine"
        )
    except OSError as error:
        return NoMeter(f"{error.filename} cannot be read: {error.strerror}")
    except ValueError as error:
        return NoMeter(f"a RAPL counter in {root} is not a number: {error}")


def _number(path: Path) -> int:
    return int(path.read_text())


# -- GPUs --------------------------------------------------------------------------------------------


class NvmlMeter:
    """Some NVIDIA GPUs together. Their 64-bit counters run from the driver's start, in millijoules."""

    name = "NVML total energy"

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        """`nvml` is the module `pynvml`, initialised."""
        self._nvml = nvml
        self._handles = handles

    def read_joules(self) -> float | None:
        """See `Meter.read_joules`."""
        try:
            millijoules: int = sum(map(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handles))
        except self._nvml.NVMLError:
            return None
        return millijoules / 1e3


def nvml_meter(nvml: Any, uuids: Sequence[str]) -> Meter:
    """The GPUs with those UUIDs, through the module `pynvml` of nvidia-ml-py; all of them, or none."""
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
        for handle in handles:
            if _is_divided(nvml, handle):
                return NoMeter("a GPU in MIG mode counts the energy of all its instances together")
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # Volta and later support it
    except nvml.NVMLError as error:
        return NoMeter(f"NVML does not report the energy of this GPU: {error}")
    return NvmlMeter(nvml, handles)


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # the GPU does not support MIG
        return False
