"""The wheel: what is in it and, just as much, what is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("autotune", "model", "search_spaces")
SHIPPED_AS = {
    "autotune/": "autotune/",
    "model/autotune_model/": "autotune_model/",
    "search_spaces/": "autotune/search_spaces/",
}
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that nothing is left in the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for package in FOLDERS:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("reports/mine/report.md", "reports/gallery/x/report.md", "tests/test_x.py", "benchmarks/x.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("# not for users\n")
    (tree / "model" / "autotune_model" / "__pycache__").mkdir()
    (tree / "model" / "autotune_model" / "__pycache__" / "config.cpython-311.pyc").write_bytes(b"stale")
    built = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (path,) = built.iterdir()
    return zipfile.ZipFile(path)


def test_the_wheel_puts_no_generic_name_at_the_top_level(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    (dist_info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops - {dist_info} == {"autotune", "autotune_model"}
    assert dist_info.startswith("autotune-")


def test_every_file_of_the_packages_is_shipped_and_no_other(wheel: zipfile.ZipFile) -> None:
    ours = {
        shipped + path.relative_to(ROOT / folder).as_posix()
        for folder, shipped in SHIPPED_AS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == ours
    for needed in (
        "autotune/py.typed",
        "autotune_model/py.typed",
        "autotune_model/__main__.py",
        "autotune/report/templates/report.html.j2",
        "autotune/report/templates/style.css",
        "autotune/search_spaces/quickstart.toml",
        "autotune/search_spaces/gpt_cpu.toml",
        "autotune/search_spaces/gpt2_small_gpu.toml",
    ):
        assert needed in shipped


def test_the_command_and_the_needs_are_in_the_metadata(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "autotune = autotune.cli:main" in wheel.read(entry_points).decode()
    (described,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    headers = message_from_string(wheel.read(described).decode())
    assert headers["Requires-Python"] == ">=3.11"
    assert headers["License-Expression"] == "MIT"
    needs = [need for need in headers.get_all("Requires-Dist") or [] if "extra ==" not in need]
    torch = next(need for need in needs if need.startswith("torch"))
    assert ">=2.10" in torch, "older ones load files unsafely"
    assert "<2.14" in torch, "an open end installs several GB"
    assert not any(need.startswith(("pytest", "hypothesis", "hatchling")) for need in needs)
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
