"""What every executor promises. Inherit `ExecutorContract` and give it an executor:

    class TestMyExecutor(ExecutorContract):
        @pytest.fixture
        def executor(self) -> Iterator[Executor]:
            with MyExecutor() as mine:
                yield mine

The sessions are those of `stand_in.py`, a worker that speaks the protocol and trains nothing, and the machine is what
it says of itself. An executor that starts no processes gives its own `request` and `examination`, too.
"""

from pathlib import Path
from typing import Any

import pytest

from autotune.executors.base import Executor, Patience, SessionEnded, SessionRequest
from autotune.trial.types import FailedKind, InfeasibleKind
from autotune.workload.base import WorkerOrder

from .examples import request, stand_in


class ExecutorContract:
    """The promises, one a test. Every executor is a fresh one, and what it left open is closed with it."""

    @pytest.fixture
    def executor(self) -> Executor:
        """The executor under test."""
        raise NotImplementedError

    def request(self, folder: Path, **changes: Any) -> SessionRequest:
        """A session of 1024 tokens a step and 10 steps, with `patience`, `seed` or knobs of the built-in GPT changed.

        Whatever else they are, a micro-batch of 512 is out of memory, and fp16 is too slow for a pass in 0.3 s.
        """
        return request(folder, **changes)

    def examination(self) -> WorkerOrder:
        """What has the machine examined."""
        return WorkerOrder(program=stand_in(), payload={})

    def test_a_session_trains_and_evaluates(self, executor: Executor, tmp_path: Path) -> None:
        session = executor.open(self.request(tmp_path))
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

    def test_a_session_shows_what_it_computes_before_it_trains(self, executor: Executor, tmp_path: Path) -> None:
        one, other = executor.open(self.request(tmp_path)), executor.open(self.request(tmp_path))
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

    def test_a_session_measures_its_gradient_noise_at_any_time(self, executor: Executor, tmp_path: Path) -> None:
        session = executor.open(self.request(tmp_path, micro_batch=4))
        session.gradient_noise(1)
        session.advance(2)
        noise = session.gradient_noise(3)
        assert (noise.tokens_seen, noise.micro_batch, noise.batch) == (2_048, 4, 24)
        assert noise.micro_square_norm > noise.square_norm > 0.0
        assert session.evaluate().tokens_seen == 2_048  # nothing was consumed
        session.close()

    def test_sessions_live_side_by_side(self, executor: Executor, tmp_path: Path) -> None:
        one, other = executor.open(self.request(tmp_path)), executor.open(self.request(tmp_path, global_batch=16))
        assert [s.advance(1).tokens for s in (one, other, one, other)] == [1_024, 2_048, 1_024, 2_048]
        one.close()
        assert other.advance(1).tokens == 2_048
        other.close()

    def test_renewing_leaves_open_sessions_alone(self, executor: Executor, tmp_path: Path) -> None:
        old = executor.open(self.request(tmp_path))
        executor.renew()
        new = executor.open(self.request(tmp_path))
        assert old.advance(1).tokens == new.advance(1).tokens == 1_024
        old.close()
        executor.renew()
        assert new.advance(1).tokens == 1_024
        new.close()

    def test_a_closed_session_takes_no_orders(self, executor: Executor, tmp_path: Path) -> None:
        session = executor.open(self.request(tmp_path))
        session.close()
        session.close()
        with pytest.raises(SessionEnded, match="open another") as ended:
            session.advance(1)
        assert ended.value.kind is FailedKind.CRASH
        for order in (session.evaluate, session.fingerprint, lambda: session.gradient_noise(1)):
            with pytest.raises(SessionEnded, match="open another"):
                order()

    def test_an_infeasible_session_does_not_open_and_harms_no_other(self, executor: Executor, tmp_path: Path) -> None:
        sound = executor.open(self.request(tmp_path))
        with pytest.raises(SessionEnded) as ended:
            executor.open(self.request(tmp_path, micro_batch=512, global_batch=512))
        assert ended.value.kind is InfeasibleKind.OUT_OF_MEMORY
        assert ended.value.message
        assert sound.advance(1).tokens == 1_024
        sound.close()

    def test_a_hopelessly_slow_pass_is_not_waited_for(self, executor: Executor, tmp_path: Path) -> None:
        patience = Patience(setup_seconds=30.0, pass_seconds=0.3, step_seconds=30.0)
        with pytest.raises(SessionEnded, match="pass") as ended:
            executor.open(self.request(tmp_path, dtype="fp16_autocast", patience=patience))
        assert ended.value.kind is InfeasibleKind.TOO_SLOW

    def test_at_least_one_session_may_step(self, executor: Executor) -> None:
        assert executor.slots >= 1

    def test_it_describes_text_and_machine_with_the_memory_that_is_free(self, executor: Executor) -> None:
        machine = executor.examine(self.examination())
        assert machine.environment["device"]
        assert machine.corpus.train_tokens > machine.corpus.holdout_tokens > 0
        assert machine.peak_flops["fp32"] > 0.0
        assert machine.available_bytes > 0

    def test_an_examination_leaves_open_sessions_alone(self, executor: Executor, tmp_path: Path) -> None:
        session = executor.open(self.request(tmp_path))
        executor.examine(self.examination())
        assert session.advance(1).tokens == 1_024
        session.close()

    def test_closing_the_executor_closes_its_sessions(self, executor: Executor, tmp_path: Path) -> None:
        session = executor.open(self.request(tmp_path))
        executor.close()
        executor.close()
        with pytest.raises(SessionEnded):
            session.advance(1)
