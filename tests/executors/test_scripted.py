"""The scripted world: simulated time passes as it should, and what is measured is the truth plus known noise."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autotune.analysis.gates import equivalence, noise_scale
from autotune.executors.base import Patience, SessionEnded
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.simulation.executor import METER, NO_METER, ScriptedExecutor, SimulatedClock
from autotune.trial.types import FailedKind, Fingerprint, InfeasibleKind
from autotune.workload.base import CompareSketches

from .examples import configuration
from .examples import scripted_request as request

QUIET = LognormalNoise(moment=0.0, own=0.0, process=0.0)
STRICT = CompareSketches(logits=1e-3, gradient=1e-3, update=1e-3)
LENIENT = CompareSketches(logits=4e-2, gradient=4e-2, update=0.4)


@dataclass(frozen=True, kw_only=True)
class _Bench:
    world: ExampleWorld
    clock: SimulatedClock
    executor: ScriptedExecutor


def _bench(noise: LognormalNoise = QUIET, seed: int = 0, **changed: Any) -> _Bench:
    world, clock = ExampleWorld(noise=noise, **changed), SimulatedClock()
    return _Bench(world=world, clock=clock, executor=ScriptedExecutor(world, clock, seed))


def test_work_takes_simulated_time(tmp_path: Path) -> None:
    bench = _bench()
    session = bench.executor.open(request(tmp_path, compile="default"))
    step = 1_024 / bench.world.tokens_per_second(configuration(compile="default"))
    opened = 3.6 + 0.35 + 20.0 + step
    assert bench.clock() == pytest.approx(opened)
    taken = session.advance(5)
    assert taken.seconds == pytest.approx(5 * step)
    assert bench.clock() == pytest.approx(opened + 5 * step)
    session.evaluate()
    assert bench.clock() == pytest.approx(opened + 5 * step + 2 * step / 3)
    session.gradient_noise(4)
    assert bench.clock() == pytest.approx(opened + 9 * step + 2 * step / 3)


def test_a_world_with_a_meter_charges_every_slice(tmp_path: Path) -> None:
    metered = _bench(noise=LognormalNoise(), fp32_watts=50.0).executor.open(request(tmp_path, dtype="bf16_autocast"))
    taken = metered.advance(3)
    assert taken.energy_joules == pytest.approx(45.0 * taken.seconds)
    assert metered.ready.environment["energy_meter"] == METER
    dark = _bench().executor.open(request(tmp_path))
    assert dark.advance(3).energy_joules is None
    assert dark.ready.environment["energy_meter"] == NO_METER


def test_a_fingerprint_takes_two_steps(tmp_path: Path) -> None:
    bench = _bench()
    session = bench.executor.open(request(tmp_path))
    opened = bench.clock()
    session.fingerprint()
    assert bench.clock() == pytest.approx(opened + 2 * 1_024 / bench.world.tokens_per_second(configuration()))


def test_only_the_first_session_of_an_image_pays_for_the_launch(tmp_path: Path) -> None:
    bench = _bench()
    costs = []
    for renewed in (False, False, True):
        if renewed:
            bench.executor.renew()
        before = bench.clock()
        bench.executor.open(request(tmp_path))
        costs.append(bench.clock() - before)
    assert costs[0] == pytest.approx(costs[2]) == pytest.approx(costs[1] + 3.6)


def test_a_quiet_world_measures_the_truth(tmp_path: Path) -> None:
    bench = _bench()
    fast = bench.executor.open(request(tmp_path, dtype="bf16_autocast")).advance(3)
    slow = bench.executor.open(request(tmp_path)).advance(3)
    assert fast.tokens_per_second / slow.tokens_per_second == pytest.approx(1.6)


def test_pairing_cancels_what_is_common_to_the_moment(tmp_path: Path) -> None:
    bench = _bench(LognormalNoise(moment=0.3, moment_seconds=5.0, own=0.01, process=0.0))
    one, other = bench.executor.open(request(tmp_path)), bench.executor.open(request(tmp_path))
    pairs = [(one.advance(1).seconds, other.advance(1).seconds) for _ in range(600)]
    raw = statistics.stdev(math.log(a) for a, _ in pairs)
    paired = statistics.median(abs(math.log(a / b)) for a, b in pairs)
    assert 0.1 < raw < 0.5
    assert paired < 0.02


def test_only_restarts_average_the_offset_of_a_process(tmp_path: Path) -> None:
    bench = _bench(LognormalNoise(moment=0.0, own=0.001, process=0.02))
    true = math.log(1_024 / bench.world.tokens_per_second(configuration()))

    def centre() -> float:
        session = bench.executor.open(request(tmp_path))
        return statistics.fmean(math.log(session.advance(1).seconds) for _ in range(50)) - true

    offsets = [centre() for _ in range(60)]
    assert 0.014 < statistics.stdev(offsets) < 0.026
    assert abs(statistics.fmean(offsets)) < 0.008


def test_the_same_seed_repeats_everything(tmp_path: Path) -> None:
    def taken(seed: int) -> object:
        return _bench(LognormalNoise(), seed).executor.open(request(tmp_path)).advance(4)

    assert taken(1) == taken(1)
    assert taken(1) != taken(2)


def test_the_loss_is_the_true_one_at_the_end_of_the_schedule(tmp_path: Path) -> None:
    bench = _bench()
    session = bench.executor.open(request(tmp_path, seed=3))
    session.advance(5)
    halfway = session.evaluate()
    session.advance(5)
    final = session.evaluate()
    true = bench.world.loss(configuration(), 10_240, 3)
    assert final.loss == pytest.approx(true)
    assert halfway.loss == pytest.approx(1.015 * bench.world.loss(configuration(), 5_120, 3))
    session.advance(5)
    assert session.evaluate().loss == pytest.approx(bench.world.loss(configuration(), 15_360, 3))


def test_configurations_share_the_luck_of_a_seed() -> None:
    world = ExampleWorld()
    slow, good = configuration(learning_rate=1e-3), configuration(learning_rate=3e-3)
    losses = [(world.loss(slow, 100_000, seed), world.loss(good, 100_000, seed)) for seed in range(200)]
    apart = statistics.stdev(a for a, _ in losses)
    paired = statistics.stdev(a - b for a, b in losses)
    assert 0.02 < apart < 0.04
    assert paired < 0.01


def test_equal_loss_takes_tokens_in_the_ratio_of_efficiencies() -> None:
    world = ExampleWorld(seed_luck=0.0, own_luck=0.0)
    poor, good = configuration(learning_rate=1e-3), configuration(learning_rate=3e-3)
    ratio = world.efficiency(good) / world.efficiency(poor)
    assert ratio > 1.2
    assert world.loss(poor, round(100_000 * ratio), 0) == pytest.approx(world.loss(good, 100_000, 0), rel=1e-5)


def test_the_example_has_the_responses_it_promises() -> None:
    speed = ExampleWorld().tokens_per_second
    assert speed(configuration(dtype="bf16_autocast")) > speed(configuration())
    by_batch = [speed(configuration(micro_batch=2**i, global_batch=256)) for i in range(9)]
    assert by_batch.index(max(by_batch)) == 4
    worth = ExampleWorld().efficiency
    by_rate = [worth(configuration(learning_rate=r)) for r in (3e-4, 1e-3, 3e-3, 1e-2)]
    assert by_rate.index(max(by_rate)) == 2


@pytest.mark.parametrize(("order", "limit"), [("fingerprint", 10 * (9.0 + 1.0)), ("gradient_noise", 10 * 1.0)])
def test_what_is_measured_besides_has_its_own_patience(tmp_path: Path, order: str, limit: float) -> None:
    bench = _bench(base_tokens_per_second=17.0, best_micro_batch=1)  # a pass of 7.5 s, a step of 60 s
    patience = Patience(setup_seconds=9.0, pass_seconds=9.0, step_seconds=0.2)
    session = bench.executor.open(request(tmp_path, micro_batch=1, patience=patience))
    opened = bench.clock()
    with pytest.raises(SessionEnded, match="timed out") as ended:
        session.fingerprint() if order == "fingerprint" else session.gradient_noise(3)
    assert ended.value.kind is InfeasibleKind.TOO_SLOW
    assert bench.clock() - opened == pytest.approx(limit)


def test_only_broken_settings_compute_something_else(tmp_path: Path) -> None:
    bench = _bench(broken=frozenset({"attention=sdpa", "micro_batch=4"}))

    def fingerprint(**knobs: Any) -> Fingerprint:
        return bench.executor.open(request(tmp_path, **knobs)).fingerprint()

    sound = fingerprint()
    assert equivalence(fingerprint(dtype="bf16_autocast", optimizer_kernel="fused"), sound, STRICT) is None
    for knobs in ({"attention": "sdpa"}, {"micro_batch": 4}):
        found = equivalence(fingerprint(**knobs), sound, LENIENT)
        assert found is not None
        assert found.distance > 1.0


def test_the_noise_scale_is_the_worlds(tmp_path: Path) -> None:
    bench = _bench()
    session = bench.executor.open(request(tmp_path, micro_batch=2))
    early = noise_scale(session.gradient_noise(2))
    session.advance(10)
    late = noise_scale(session.gradient_noise(2))
    assert late == pytest.approx(bench.world.noise_scale(configuration(), 10_240))
    assert early < late


def test_divergence_is_an_end_of_its_own_kind(tmp_path: Path) -> None:
    session = _bench().executor.open(request(tmp_path, learning_rate=0.5))
    with pytest.raises(SessionEnded, match="finite") as ended:
        session.advance(1)
    assert ended.value.kind is InfeasibleKind.DIVERGED
    with pytest.raises(SessionEnded, match="open another"):
        session.evaluate()


@pytest.mark.parametrize(
    ("patience", "kind", "spent"),
    [
        (Patience(setup_seconds=0.1, pass_seconds=9.0, step_seconds=9.0), FailedKind.HUNG, 0.1),
        (Patience(setup_seconds=9.0, pass_seconds=0.01, step_seconds=9.0), InfeasibleKind.TOO_SLOW, 0.36),
        (Patience(setup_seconds=9.0, pass_seconds=9.0, step_seconds=0.01), InfeasibleKind.TOO_SLOW, None),
    ],
)
def test_patience_ends_and_no_more_time_passes(
    tmp_path: Path, patience: Patience, kind: object, spent: float | None
) -> None:
    bench = _bench(base_tokens_per_second=500.0)
    with pytest.raises(SessionEnded, match="timed out") as ended:  # noqa: PT012 - either may end it
        session = bench.executor.open(request(tmp_path, patience=patience))
        opened = bench.clock()
        session.advance(3)
    assert ended.value.kind is kind
    if spent is None:
        assert bench.clock() - opened == pytest.approx(1.0)
    else:
        assert bench.clock() == pytest.approx(3.6 + spent)
