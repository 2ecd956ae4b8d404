"""Several processes train as one does, and end as one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.testing._internal.distributed.fake_pg import FakeStore
from worker_client import Client, DirectWorkers, ForkedWorkers

from autotune.analysis.gates import equivalence
from autotune.space.configuration import Configuration
from autotune.workload.gpt_gate import tolerances_of
from autotune_model.config import GPTConfig, SessionConfig, TrainingConfig, default_knobs
from autotune_model.parallel import Parallelism
from autotune_model.processes import share_threads
from autotune_model.protocol import (
    Advance,
    Close,
    Evaluate,
    Evaluation,
    Failure,
    Fingerprint,
    GradientNoise,
    MeasureFingerprint,
    MeasureGradientNoise,
    Ready,
    Slice,
)
from autotune_model.trainer import Trainer

MakeSession = Callable[..., SessionConfig]
GPT = GPTConfig(layers=3, heads=2, width=16, sequence_length=16)
KNOBS = {"gpt": GPT, "clip_norm": 0.5, "weight_decay": 0.1, "threads": 1, "global_batch": 8}


@pytest.fixture(scope="module")
def workers() -> Iterator[DirectWorkers]:
    workers = DirectWorkers()
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def single(workers: DirectWorkers, make_session: MakeSession, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    session = make_session(micro_batch=4, **KNOBS)
    return everything(Client(tmp_path_factory.mktemp("single"), session, workers.start))


class Answers(NamedTuple):
    ready: Ready
    fingerprint: Fingerprint
    gradient_noise: GradientNoise
    trained: Slice
    evaluation: Evaluation


def everything(client: Client) -> Answers:
    """What a session answers when it is asked for everything, and closed."""
    ready = client.receive(Ready)
    client.send(MeasureFingerprint())
    fingerprint = client.receive(Fingerprint)
    client.send(MeasureGradientNoise(batches=2))
    noise = client.receive(GradientNoise)
    client.send(Advance(steps=5, round=0))
    trained = client.receive(Slice)
    client.send(Evaluate())
    evaluation = client.receive(Evaluation)
    client.send(Close())
    client.wait_until_gone()
    client.hang_up()
    return Answers(ready, fingerprint, noise, trained, evaluation)


@pytest.mark.parametrize(
    ("parallelism", "world_size", "micro_batch"),
    [("ddp", 2, 2), ("ddp", 4, 1), ("fsdp", 2, 2), ("tensor", 2, 4), ("pipeline", 2, 4)],
)
def test_processes_compute_what_one_does(
    workers: DirectWorkers,
    make_session: MakeSession,
    tmp_path: Path,
    single: Answers,
    parallelism: str,
    world_size: int,
    micro_batch: int,
) -> None:
    session = make_session(parallelism=parallelism, world_size=world_size, micro_batch=micro_batch, **KNOBS)
    client = Client(tmp_path, session, workers.start)
    answers = everything(client)
    assert workers.exit_status(client.pid) == 0
    assert_same(answers, single, dtype="fp32", rel=1e-5)
    for unchanged in ("parameters", "flops_per_token", "tokens_per_step"):
        assert getattr(answers.ready, unchanged) == getattr(single.ready, unchanged)
    assert answers.trained.tokens == single.trained.tokens
    assert answers.trained.peak_memory_bytes > 1.5 * single.trained.peak_memory_bytes
    assert client.log.read_text() == ""


def assert_same(answers: Answers, single: Answers, *, dtype: str, rel: float) -> None:
    gate = tolerances_of(Configuration(TrainingConfig(dtype=dtype).to_mapping()), Configuration(default_knobs()))
    assert equivalence(answers.fingerprint, single.fingerprint, gate) is None
    assert answers.trained.losses == pytest.approx(single.trained.losses, rel=rel)
    assert asdict(answers.evaluation) == pytest.approx(asdict(single.evaluation), rel=rel)
    assert asdict(answers.gradient_noise) == pytest.approx(asdict(single.gradient_noise), rel=10 * rel)


@pytest.mark.parametrize(
    ("parallelism", "micro_batch", "knobs"),
    [
        ("ddp", 2, {"loss_kernel": "chunked", "prefetch": True, "index_dtype": "int32", "set_to_none": False}),
        ("fsdp", 2, {"dtype": "fp16_autocast", "checkpointing": True, "gradient_normalization": "per_parameter"}),
        ("tensor", 4, {"vocab_multiple": 64, "tied_head": True, "gradient_normalization": "per_parameter"}),
        ("pipeline", 4, {"dtype": "bf16_pure", "vocab_multiple": 64, "gradient_normalization": "global"}),
    ],
)
def test_processes_go_with_other_knobs(
    workers: DirectWorkers,
    make_session: MakeSession,
    tmp_path_factory: pytest.TempPathFactory,
    parallelism: str,
    micro_batch: int,
    knobs: dict[str, Any],
) -> None:
    session = make_session(micro_batch=4, **KNOBS, **knobs)
    single = everything(Client(tmp_path_factory.mktemp("single"), session, workers.start))
    session = make_session(parallelism=parallelism, world_size=2, micro_batch=micro_batch, **KNOBS, **knobs)
    answers = everything(Client(tmp_path_factory.mktemp("shared"), session, workers.start))
    dtype = knobs.get("dtype", "fp32")
    assert_same(answers, single, dtype=dtype, rel=1e-5 if dtype == "fp32" else 5e-3)


@given(ranks=st.integers(1, 8), micro_batch=st.integers(1, 6), passes=st.integers(1, 6), step=st.integers(0, 3))
def test_every_sequence_of_a_batch_weighs_the_same(ranks: int, micro_batch: int, passes: int, step: int) -> None:
    """However a batch is cut into micro-batches, passes and ranks."""
    batch = ranks * micro_batch * passes
    training = TrainingConfig(
        micro_batch=micro_batch, global_batch=batch, world_size=ranks, parallelism="ddp" if ranks > 1 else "none"
    )
    weights = torch.zeros(batch, requires_grad=True)  # the gradient of each is what its sequence weighs

    for rank in range(ranks):
        parallel = object.__new__(Parallelism)  # one of several processes that do not exist
        parallel.training, parallel.device, parallel.rank = training, torch.device("cpu"), rank
        parallel.autocast = contextlib.nullcontext
        parallel.loss = lambda sequences, _: weights[sequences].mean()

        def take(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.arange(first, first + count) - step * batch, torch.empty(0)

        parallel.add_gradient(take, lambda loss: (loss / ranks).backward(), step * batch, batch)
    assert weights.grad is not None
    assert torch.allclose(weights.grad, torch.full((batch,), 1 / batch))


@pytest.mark.parametrize(("threads", "world_size", "expected"), [(0, 1, []), (0, 2, [3]), (0, 8, [1]), (5, 2, [5])])
def test_processes_share_out_the_threads(
    threads: int, world_size: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    parallelism = "none" if world_size == 1 else "tensor"
    share_threads(TrainingConfig(threads=threads, world_size=world_size, parallelism=parallelism))
    assert told == expected


@pytest.mark.parametrize(("device", "devices"), [("cpu", 1), ("cuda", 4)])
def test_processes_share_a_cpu_and_have_a_gpu_each(device: str, devices: int) -> None:
    parallel = object.__new__(Parallelism)
    parallel.device, parallel.world_size = torch.device(device), 4
    assert parallel.devices == devices


def test_gradients_are_averaged_once_a_step(make_trainer: Callable[..., Trainer]) -> None:
    """Two ranks, of which the other is made up: whatever is communicated is taken as it was."""
    averaged = []

    def watch(_: object, bucket: Any) -> Any:
        averaged.append(bucket.buffer().numel())
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    # Looked at by torch, which does not expect them as strings.
    watch.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        trainer = make_trainer(parallelism="ddp", world_size=2, micro_batch=1, global_batch=8)
        trainer.parallel._replica.register_comm_hook(None, watch)
        for _ in range(3):
            trainer.step()
        assert trainer.session.training.accumulation_steps == 4
        assert averaged == [trainer.parameter_count] * 3
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("ending", "kind", "words"),
    [(signal.SIGKILL, "killed", "rank 1 was killed"), (signal.SIGTERM, "crash", "rank 1 died of signal 15")],
)
def test_a_rank_that_dies_ends_the_session(
    workers: DirectWorkers, make_session: MakeSession, tmp_path: Path, ending: int, kind: str, words: str
) -> None:
    session = make_session(parallelism="ddp", world_size=2, micro_batch=1, **KNOBS)
    client = Client(tmp_path, session, workers.start)
    client.receive(Ready)
    (rank,) = psutil.Process(client.pid).children()
    client.send(Advance(steps=1_000_000, round=0))
    rank.send_signal(ending)
    failure = client.receive(Failure)
    client.wait_until_gone()
    client.hang_up()
    assert failure.kind == kind
    assert words in failure.message
    assert workers.exit_status(client.pid) == -signal.SIGKILL
    assert group_ends(client.pid)


def test_ranks_die_with_rank_0(workers: DirectWorkers, make_session: MakeSession, tmp_path: Path) -> None:
    session = make_session(parallelism="tensor", world_size=2, micro_batch=1, **KNOBS)
    client = Client(tmp_path, session, workers.start)
    client.receive(Ready)
    os.kill(client.pid, signal.SIGKILL)
    client.wait_until_gone()
    client.hang_up()
    assert workers.exit_status(client.pid) == -signal.SIGKILL
    assert group_ends(client.pid)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the launcher forks, which is for Linux only")
def test_a_failure_of_all_ranks_is_told_once(make_session: MakeSession, tmp_path: Path) -> None:
    forked = ForkedWorkers()
    knobs = {"learning_rate": 10.0, "clip_norm": 0.0, "warmup_fraction": 0.0, "schedule": "constant", "threads": 1}
    client = Client(tmp_path, make_session(parallelism="ddp", world_size=2, micro_batch=4, **knobs), forked.start)
    client.receive(Ready)
    client.send(Advance(steps=20, round=0))
    failure = client.receive(Failure)
    assert client.events.read() == ""
    client.events.close()
    client.hang_up()
    forked.exit_status(client.pid)
    forked.close()
    assert failure.kind == "diverged"
    assert group_ends(client.pid)


def group_ends(leader: int) -> bool:
    """Whether no process of the group is left, within some seconds; the dead may wait to be reaped by others."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        if not any(is_member(process, leader) for process in psutil.process_iter()):
            return True
        time.sleep(0.05)
    return False


def is_member(process: psutil.Process, leader: int) -> bool:
    try:
        return os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
