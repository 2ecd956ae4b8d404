from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from worker_client import MODEL

from autotune_model.config import DataConfig
from autotune_model.protocol import InfeasibleKind, decode_failure


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MODEL, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def prepare(folder: Path, order: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
    (folder / "order.json").write_text(json.dumps(order))
    return run("prepare", "--order", "order.json", cwd=folder)


def test_prepare_describes_corpus_and_machine_in_one_line(data: DataConfig, tmp_path: Path) -> None:
    done = prepare(tmp_path, {"data": data.to_mapping(), "device": "cpu", "attempts": ["flex"]})
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert set(answer) == {"corpus", "environment", "limits", "peak_flops"}
    assert answer["corpus"]["vocab_size"] == 257
    assert answer["corpus"]["documents"] == 24
    assert answer["corpus"]["text_bytes"] > 10_000
    assert answer["corpus"]["vocab_wanted"] == 257
    assert answer["corpus"]["left_out"] == []
    assert answer["environment"]["device"] == "cpu"
    assert int(answer["environment"]["memory_bytes"]) > 1e8
    assert {type(value) for value in answer["environment"].values()} == {str}
    assert set(answer["peak_flops"]) == {"fp32", "bf16", "fp16"}
    assert min(answer["peak_flops"].values()) > 1e6
    assert answer["limits"]["pinned_memory"] == {"True": "there is no GPU to copy to, only cpu"}
    assert answer["limits"]["attention"]["flex"] == "FlexAttention does not support backward on CPU"


def test_prepare_says_what_is_wrong(tmp_path: Path) -> None:
    done = prepare(tmp_path, {"data": {"corpus": "nowhere"}, "device": "auto", "attempts": []})
    assert done.returncode == 2
    failure = decode_failure(done.stdout)
    assert failure.kind is InfeasibleKind.INVALID
    assert "'nowhere'" in failure.message


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ({"sequences_per_step": 100_000}, "must hold one global batch of 100000 sequences"),
        ({"evaluation_tokens": 100_000}, "must hold 6250 sequences of 16 tokens for an evaluation"),
    ],
)
def test_prepare_refuses_text_that_no_trial_can_use(
    data: DataConfig, tmp_path: Path, trial: dict[str, int], words: str
) -> None:
    trial = {"sequence_length": 16, "sequences_per_step": 8, "evaluation_tokens": 128} | trial
    done = prepare(tmp_path, {"data": data.to_mapping(), "device": "cpu", "attempts": [], "trial": trial})
    assert done.returncode == 2
    failure = decode_failure(done.stdout)
    assert failure.kind is InfeasibleKind.INVALID
    assert words in failure.message


def test_prepare_tries_nothing_that_it_does_not_know(data: DataConfig, tmp_path: Path) -> None:
    done = prepare(tmp_path, {"data": data.to_mapping(), "device": "cpu", "attempts": ["luck"]})
    assert done.returncode == 2
    assert decode_failure(done.stdout).message == "ValueError: attempts must be of compile, flex; got luck"


def test_model_of_the_users_own_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("raise SystemExit('the wrong model')")
    assert run("--help", cwd=tmp_path).returncode == 0
