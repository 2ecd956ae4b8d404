"""What every executor promises. Over a cluster, where a session costs a second: test_ray.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.executors.base import Executor, Patience, SessionEnded
from autotune.executors.local import LocalExecutor
from autotune.simulation.executor import ExampleWorld, ScriptedExecutor, SimulatedClock
from autotune.trial.types import FailedKind, InfeasibleKind

from .examples import request, stand_in


@pytest.fixture(params=["fork", "spawn", "scripted"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "scripted":
        with ScriptedExecutor(ExampleWorld(), SimulatedClock()) as scripted:
            yield scripted
    else:
        with LocalExecutor(command=stand_in(), launch=request.param) as local:
            yield local


def test_a_session_trains_and_evaluates(executor: Executor, tmp_path: Path) -> None:
    session = executor.open(request(tmp_path))
    assert session.ready.tokens_per_step == 1_024
    assert session.ready.horizon_steps == 10
    assert session.ready.peak_memory_bytes > 0
    first, second = session.advance(3, 7), session.advance(2)
    assert (first.round, second.round) == (7, -1)
    assert (first.tokens, second.tokens) == (3_072, 2_048)
    assert len(first.step_seconds) == len(first.losses) == 3
    assert first.seconds == pytest.approx(sum(first.step_seconds))
    evaluation = session.evaluate()
    assert evaluation.tokens_seen == 5_120
    assert evaluation.tokens == 2_048
    session.close()


def test_a_session_shows_what_it_computes_before_it_trains(executor: Executor, tmp_path: Path) -> None:
    one, other = executor.open(request(tmp_path)), executor.open(request(tmp_path))
    fingerprint = one.fingerprint()
    assert {len(fingerprint.logits), len(fingerprint.gradient), len(fingerprint.update)} == {256}
    assert one.fingerprint() == other.fingerprint() == fingerprint
    assert one.advance(1).tokens == 1_024
    with pytest.raises(SessionEnded) as ended:
        one.fingerprint()
    assert ended.value.kind is FailedKind.CRASH
    assert ended.value.message
    assert other.advance(1).tokens == 1_024
    other.close()


def test_a_session_measures_its_gradient_noise_at_any_time(executor: Executor, tmp_path: Path) -> None:
    session = executor.open(request(tmp_path, micro_batch=4))
    session.gradient_noise(1)
    session.advance(2)
    noise = session.gradient_noise(3)
    assert (noise.tokens_seen, noise.micro_batch, noise.batch) == (2_048, 4, 24)
    assert noise.micro_square_norm > noise.square_norm > 0.0
    assert session.evaluate().tokens_seen == 2_048  # nothing was consumed
    session.close()


def test_sessions_live_side_by_side(executor: Executor, tmp_path: Path) -> None:
    one, other = executor.open(request(tmp_path)), executor.open(request(tmp_path, global_batch=16))
    assert [s.advance(1).tokens for s in (one, other, one, other)] == [1_024, 2_048, 1_024, 2_048]
    one.close()
    assert other.advance(1).tokens == 2_048
    other.close()


def test_renewing_leaves_open_sessions_alone(executor: Executor, tmp_path: Path) -> None:
    old = executor.open(request(tmp_path))
    executor.renew()
    new = executor.open(request(tmp_path))
    assert old.advance(1).tokens == new.advance(1).tokens == 1_024
    old.close()
    executor.renew()
    assert new.advance(1).tokens == 1_024
    new.close()


def test_a_closed_session_takes_no_orders(executor: Executor, tmp_path: Path) -> None:
    session = executor.open(request(tmp_path))
    session.close()
    session.close()
    with pytest.raises(SessionEnded, match="open another") as ended:
        session.advance(1)
    assert ended.value.kind is FailedKind.CRASH
    for order in (session.evaluate, session.fingerprint, lambda: session.gradient_noise(1)):
        with pytest.raises(SessionEnded, match="open another"):
            order()


def test_an_infeasible_session_does_not_open_and_harms_no_other(executor: Executor, tmp_path: Path) -> None:
    sound = executor.open(request(tmp_path))
    with pytest.raises(SessionEnded) as ended:
        executor.open(request(tmp_path, micro_batch=512, global_batch=512))
    assert ended.value.kind is InfeasibleKind.OUT_OF_MEMORY
    assert ended.value.message
    assert sound.advance(1).tokens == 1_024
    sound.close()


def test_a_hopelessly_slow_pass_is_not_waited_for(executor: Executor, tmp_path: Path) -> None:
    patience = Patience(setup_seconds=30.0, pass_seconds=0.3, step_seconds=30.0)
    with pytest.raises(SessionEnded, match="pass") as ended:
        executor.open(request(tmp_path, dtype="fp16_autocast", patience=patience))
    assert ended.value.kind is InfeasibleKind.TOO_SLOW


def test_at_least_one_session_may_step(executor: Executor) -> None:
    assert executor.slots >= 1


def test_closing_the_executor_closes_its_sessions(executor: Executor, tmp_path: Path) -> None:
    session = executor.open(request(tmp_path))
    executor.close()
    executor.close()
    with pytest.raises(SessionEnded):
        session.advance(1)
