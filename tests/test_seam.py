"""The seam: the real executor and the real worker, for every command, as the built-in GPT orders them.

All other tests have a stand-in on one side. What one side renames and the other does not shows here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.executors import local
from autotune.executors.base import Patience, SessionEnded, SessionRequest
from autotune.executors.local import LocalExecutor, LocalSession
from autotune.executors.process import kill_group
from autotune.space.configuration import Configuration
from autotune.trial.types import Evaluation, FailedKind, Fingerprint, GradientNoise, Slice
from autotune.workload.gpt import GPTWorkload
from autotune_model.config import DataConfig, GPTConfig, TrainingConfig
from tests.model.tiny_corpus import made_up_documents

SEQUENCE_LENGTH, BATCH, STEPS = 16, 8, 20
TOKENS_PER_STEP = SEQUENCE_LENGTH * BATCH
PATIENT = Patience(setup_seconds=120.0, pass_seconds=60.0, step_seconds=60.0)

LAUNCHES = [pytest.param("fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only")), "spawn"]


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> GPTWorkload:
    folder = tmp_path_factory.mktemp("corpus")
    for number, document in enumerate(made_up_documents()):
        (folder / f"{number:02}.txt").write_text(document)
    cache = str(tmp_path_factory.mktemp("cache"))
    return GPTWorkload(
        gpt=GPTConfig(layers=1, heads=2, width=16, sequence_length=SEQUENCE_LENGTH),
        data=DataConfig(corpus=str(folder), tokenizer="bytes", holdout_fraction=0.2, cache_dir=cache),
        training=TrainingConfig(micro_batch=4, global_batch=BATCH, learning_rate=0.01, threads=1),
        horizon_tokens=STEPS * TOKENS_PER_STEP,
        evaluation_tokens=128,
        device="cpu",
    )


@pytest.fixture(scope="module", params=LAUNCHES)
def executor(request: pytest.FixtureRequest) -> Iterator[LocalExecutor]:
    with LocalExecutor(launch=request.param) as executor:
        yield executor


def open_session(
    executor: LocalExecutor, workload: GPTWorkload, configuration: Configuration, folder: Path
) -> LocalSession:
    order = workload.order(configuration, seed=3, horizon_tokens=workload.horizon_tokens)
    return executor.open(
        SessionRequest(
            configuration=configuration,
            seed=3,
            horizon_tokens=workload.horizon_tokens,
            evaluation_tokens=workload.evaluation_tokens,
            tokens_per_step=workload.cost(configuration).tokens,
            order=order,
            log_path=folder / "log.txt",
            patience=PATIENT,
        )
    )


@dataclasses.dataclass(frozen=True)
class Answers:
    fingerprint: Fingerprint
    noise: GradientNoise
    trained: Slice
    evaluation: Evaluation


def everything(session: LocalSession) -> Answers:
    """What a session answers to each command that has an answer."""
    assert session.ready.horizon_steps == STEPS
    assert session.ready.tokens_per_step == TOKENS_PER_STEP
    assert session.ready.parameters > 1_000
    assert session.ready.environment["device"] == "cpu"
    answers = Answers(session.fingerprint(), session.gradient_noise(2), session.advance(3, 7), session.evaluate())
    assert len(answers.fingerprint.logits) == len(answers.fingerprint.update) == 256
    assert answers.noise.batch == 2 * BATCH
    assert (answers.trained.round, answers.trained.tokens) == (7, 3 * TOKENS_PER_STEP)
    assert len(answers.trained.losses) == len(answers.trained.step_seconds) == 3
    assert (answers.evaluation.tokens_seen, answers.evaluation.tokens) == (3 * TOKENS_PER_STEP, 128)
    return answers


def exit_code_when_closed(session: LocalSession, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """How the worker left when it was told to close; None where it had to be ended."""
    seen: list[int | None] = []
    with monkeypatch.context() as patch:
        patch.setattr(local, "_CLOSE_SECONDS", 20.0)
        patch.setattr(local, "kill_group", lambda pid: (seen.append(session._process.exit_code(0.0)), kill_group(pid)))
        session.close()
    return seen[0]


def test_one_process_and_two_answer_every_command_and_say_why_they_fail(
    executor: LocalExecutor, workload: GPTWorkload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_session(executor, workload, workload.baseline, tmp_path / "one")
    of_one = everything(one)
    assert exit_code_when_closed(one, monkeypatch) == 0
    assert (tmp_path / "one" / "log.txt").read_text() == "", "nothing was odd to the worker"
    shared = workload.baseline.with_values({"parallelism": "ddp", "world_size": 2, "micro_batch": 2})
    two = open_session(executor, workload, shared, tmp_path / "two")
    of_two = everything(two)
    assert of_two.trained.losses == pytest.approx(of_one.trained.losses, rel=1e-4)
    assert of_two.evaluation.loss == pytest.approx(of_one.evaluation.loss, rel=1e-4)
    assert of_two.noise.square_norm == pytest.approx(of_one.noise.square_norm, rel=1e-3)
    with pytest.raises(SessionEnded, match="before the first step") as ended:
        two.fingerprint()
    assert ended.value.kind is FailedKind.CRASH


def test_text_and_machine_are_described(workload: GPTWorkload) -> None:
    machine = LocalExecutor().examine(workload.examination({}))
    assert machine.corpus.documents == 24
    assert machine.corpus.vocab_size == 257
    assert machine.environment["device"] == "cpu"
    assert machine.peak_flops["fp32"] > 1e6
    assert machine.limits["pinned_memory"] == {"True": "there is no GPU to copy to, only cpu"}
    assert machine.available_bytes > 0
    assert workload.peak_bytes(workload.baseline, machine)
