"""Asks the torch side to tokenize the corpus and to describe the machine, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autotune_model.config import DataConfig

from autotune.errors import BadInput, EnvironmentProblem
from autotune.trial.codec import MODEL_COMMAND, Failure, Malformed, from_json, parse
from autotune.trial.types import InfeasibleKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The text as it is trained on: its size in tokens, split by whole documents."""

    train_tokens: int
    holdout_tokens: int
    documents: int
    bytes_per_token: float
    vocab_size: int
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a search stands on.

    `environment` names device, versions and memory; `peak_flops` is the measured rate of a matrix
    product in floating-point operations per second, by dtype ("fp32", "bf16", "fp16"); `limits` says by
    knob and value (as text) why the value is of no use here.
    """

    corpus: Corpus
    environment: Mapping[str, str]
    peak_flops: Mapping[str, float]
    limits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def prepare(
    data: DataConfig, *, device: str, attempts: Sequence[str] = (), command: Sequence[str] = MODEL_COMMAND
) -> Machine:
    """Tokenize the corpus (kept for all sessions of the study) and describe the machine.

    No time limit: it takes as long as the corpus is large, and it can be interrupted. `attempts` (of
    `autotune_model.attempts.NAMES`) are tried too; without them, limits say nothing of what needs a compiler.

    Raises:
        BadInput: the corpus cannot be trained on.
        EnvironmentProblem: the torch side does not work here.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(data.to_mapping(), file)
        file.flush()
        done = subprocess.run(
            [*command, "prepare", "--data", file.name, "--device", device, *(f"--attempt={name}" for name in attempts)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,  # Ctrl-C is ours to handle: run() then kills it
            check=False,
        )
    try:
        plain = parse(_last_line(done.stdout))
        if isinstance(plain, dict) and set(plain) == {"failure"}:
            _raise(from_json(Failure, plain["failure"]))
        return from_json(Machine, plain)
    except Malformed as problem:
        said = _last_line(done.stderr).decode(errors="replace") or str(problem)
        raise EnvironmentProblem(
            f"`{' '.join(command)} prepare` must describe corpus and machine; it left with exit code "
            f"{done.returncode} ({said}): check that torch and autotune are installed together"
        ) from None


def _raise(failure: Failure) -> None:
    if failure.kind is InfeasibleKind.INVALID:
        raise BadInput(failure.message)
    raise EnvironmentProblem(f"corpus and machine could not be prepared ({failure.kind}): {failure.message}")


def _last_line(output: bytes) -> bytes:
    return (output.strip().splitlines() or [b""])[-1]
