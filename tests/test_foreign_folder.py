"""autotune works in a folder that holds the user's own modules of any name, also where that folder is importable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

THEIRS = ("model", "data", "train", "tokenizer", "config", "worker", "search_spaces", "protocol", "device")
SPACE = """
[workload]
corpus = "text.txt"
tokenizer = "bytes"
layers = 1
heads = 1
width = 8
sequence_length = 16
horizon_tokens = 1_024
evaluation_tokens = 256
device = "cpu"

[plan]
tokens = 1_000_000

[baseline]
micro_batch = 4
global_batch = 8

[knobs]
micro_batch = [2, 4, 8]
optimizer_kernel = ["for_loop", "fused"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in THEIRS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the user was imported')\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "space.toml").write_text(SPACE)
    (tmp_path / "text.txt").write_text("\n\n".join(f"document {i} says {i * i} and no more" for i in range(400)))
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": "."}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_package_its_command_and_its_trial_side_can_be_imported(folder: Path) -> None:
    code = (
        "import autotune, autotune.api, autotune.cli, autotune_model.worker; print(autotune.search, autotune.studies())"
    )
    done = run(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    for arguments in (["--version"], ["--help"], ["knobs"], ["studies"]):
        done = run(folder, "-m", "autotune", *arguments)
        assert done.returncode == 0, done.stderr


def test_a_real_search_runs_there(folder: Path) -> None:
    done = run(folder, "-m", "autotune", "search", "space.toml", "--budget", "20s", "--root", "studies")
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "studies" / "space" / "report.json").read_text())
    assert report["trials"][0]["outcome"] == "completed"
    assert "of the user was imported" not in done.stdout + done.stderr
