"""Meters: counters in a folder of ours, and a stand-in for NVML; neither is a measurement of anything."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autotune_model import energy
from autotune_model.energy import NoMeter, joules_between, nvml_meter, open_meter, rapl_meter

SPAN = 262_143_328_850


def zone(root: Path, folder: str, name: str, microjoules: int, span: int = SPAN) -> Path:
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{span}\n")
    return path


def spend(path: Path, microjoules: int) -> None:
    """Let a zone count on, and start again where its range ends."""
    counter = path / "energy_uj"
    span = int((path / "max_energy_range_uj").read_text())
    counter.write_text(f"{(int(counter.read_text()) + microjoules) % span}\n")


def test_packages_are_added_up_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1-die-0", 7_000_000)
    others = [
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
        zone(tmp_path, "intel-rapl", "no zone but the driver", 0),
    ]
    meter = rapl_meter(tmp_path)
    assert meter.name == "RAPL package zones"
    assert meter.read_joules() == 0.0
    spend(first, 1_500_000)
    spend(second, 250_000)
    for other in others:
        spend(other, 9_000_000)
    assert meter.read_joules() == 1.75
    assert meter.read_joules() == 1.75, "nothing was spent since"


def test_a_counter_that_starts_again_goes_on_counting(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, span=1_000_000)
    meter = rapl_meter(tmp_path)
    for expected in (0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8):  # two turns and more
        spend(path, 400_000)
        assert meter.read_joules() == pytest.approx(expected)


def test_without_package_zones_it_is_said_why(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        meter = rapl_meter(root)
        assert isinstance(meter, NoMeter)
        assert meter.name == f"there is no RAPL package zone in {root}, as in most virtual machines and containers"
        assert meter.read_joules() is None
    zone(tmp_path, "intel-rapl:0", "psys", 5)
    assert isinstance(rapl_meter(tmp_path), NoMeter)


def test_a_counter_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 5)

    def refuse(file: Path) -> int:
        raise PermissionError(13, "Permission denied", str(file))  # what anyone but root meets

    with monkeypatch.context() as patch:
        patch.setattr(energy, "_number", refuse)
        meter = rapl_meter(tmp_path)
    assert meter.name.startswith(f"{path / 'max_energy_range_uj'} can only be read by root")
    (path / "energy_uj").write_text("many\n")
    assert "is not a number: invalid literal" in rapl_meter(tmp_path).name
    (path / "energy_uj").unlink()
    assert rapl_meter(tmp_path).name == f"{path / 'energy_uj'} cannot be read: No such file or directory"


def test_a_counter_that_goes_away_gives_no_figure(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = rapl_meter(tmp_path)
    before = meter.read_joules()
    (path / "energy_uj").unlink()
    assert joules_between(before, meter.read_joules()) is None
    assert joules_between(None, 1.0) is None
    assert joules_between(1.0, 3.5) == 2.5


class NvmlError(Exception):
    """In the place of `pynvml.NVMLError`."""


class FakeNvml:
    """In the place of the module `pynvml`: millijoules by UUID; None where a GPU has no counter."""

    NVMLError = NvmlError

    def __init__(self, counters: dict[str, int | None], *, mig: int | None = None) -> None:
        self.counters = counters
        self.mig = mig
        self.is_initialised = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        self.is_initialised = True

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if not self.is_initialised or uuid not in self.counters:
            raise NvmlError("Not Found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if (counter := self.counters[handle]) is None:
            raise NvmlError("Not Supported")
        return counter

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:  # noqa: N802
        if self.mig is None:
            raise NvmlError("Not Supported")
        return self.mig, self.mig


def test_gpus_are_added_up() -> None:
    nvml = FakeNvml({"GPU-a": 1_000, "GPU-b": 500, "GPU-c": 7}, mig=0)
    meter = nvml_meter(nvml, ["GPU-b", "GPU-a"])
    assert meter.name == "NVML total energy"
    before = meter.read_joules()
    nvml.counters |= {"GPU-a": 3_000, "GPU-b": 750, "GPU-c": 9_999}
    assert joules_between(before, meter.read_joules()) == 2.25
    nvml.counters["GPU-a"] = None
    assert meter.read_joules() is None


@pytest.mark.parametrize(
    ("nvml", "why"),
    [
        (FakeNvml({"GPU-a": 1, "GPU-b": None}), "NVML does not report the energy of this GPU: Not Supported"),
        (FakeNvml({"GPU-a": 1}), "NVML does not report the energy of this GPU: Not Found"),
        (FakeNvml({"GPU-a": 1, "GPU-b": 1}, mig=1), "a GPU in MIG mode counts the energy of all its instances"),
    ],
)
def test_where_one_gpu_has_no_counter_of_its_own_none_is_read(nvml: FakeNvml, why: str) -> None:
    meter = nvml_meter(nvml, ["GPU-a", "GPU-b"])
    assert isinstance(meter, NoMeter)
    assert meter.name.startswith(why)


def test_cuda_devices_are_found_by_their_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first visible device need not be the first that NVML knows."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml({"GPU-0": 1_000, "GPU-7": 2_000, "GPU-8": 4_000}))
    visible = [SimpleNamespace(uuid="7"), SimpleNamespace(uuid="8")]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: visible[number])
    assert open_meter(torch.device("cuda")).read_joules() == 2.0
    assert open_meter(torch.device("cuda", 0), 2).read_joules() == 6.0


def test_without_the_optional_package_or_on_another_device_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'autotune[energy]'" in open_meter(torch.device("cuda")).name
    assert open_meter(torch.device("mps")).name == "there is no energy meter for mps"


def test_a_cpu_is_metered_where_linux_has_its_zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert open_meter(torch.device("cpu")).name == "RAPL package zones"
