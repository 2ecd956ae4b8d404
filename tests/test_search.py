"""The whole pipeline on simulated machines whose truth is known."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
from scripted_study import ScriptedStudy

from autotune.analysis.caveat import (
    AlternatedSessions,
    LearningIsExpected,
    NotEquivalent,
    SearchStoppedEarly,
    ShortHorizon,
)
from autotune.analysis.recommendation import Expectation, Recommendation, TechniqueVerdict, Verdict
from autotune.errors import NothingFeasible
from autotune.quantity import Interval, Unknown
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration
from autotune.space.document import SpaceDocument, parse_document
from autotune.study.events import Event, StageFinished, TrialStarted
from autotune.study.reading import read_records
from autotune.trial.types import FailedKind, Infeasible, InfeasibleKind, Stage

Scripted = Callable[..., ScriptedStudy]
QUIET = LognormalNoise(moment=0.05, own=0.01, process=0.005)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatWorld(ExampleWorld):
    """Nothing makes any difference, but for the noise."""

    def tokens_per_second(self, config: Configuration) -> float:
        return self.base_tokens_per_second

    def efficiency(self, config: Configuration) -> float:
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenWorld(ExampleWorld):
    """No session gets through its first pass."""

    def obstacle(self, config: Configuration) -> Infeasible | None:
        return Infeasible(kind=InfeasibleKind.OUT_OF_MEMORY, message="no memory at all")


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPrecisionWorld(ExampleWorld):
    """The attention kernel takes half precision only, as flash and cudnn on a GPU."""

    def obstacle(self, config: Configuration) -> Infeasible | None:
        if config["attention"] == "sdpa" and config["dtype"] == "fp32":
            return Infeasible(kind=InfeasibleKind.INVALID, message="RuntimeError: No available kernel")
        return None


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """Makes scripted studies, each in a folder of its own."""
    numbers = itertools.count()
    return lambda **changes: ScriptedStudy(folder=tmp_path / f"study-{next(numbers)}", **changes)


def truth(world: ExampleWorld, config: Configuration, baseline: Configuration) -> float:
    """The true ratio of throughput."""
    return world.tokens_per_second(config) / world.tokens_per_second(baseline)


def claims(result: Recommendation) -> bool:
    """Whether something is claimed, whatever else is expected."""
    return result.claimed == result.candidate != result.baseline


def test_a_better_configuration_is_found_proved_and_explained(scripted: Scripted) -> None:
    world = ExampleWorld(noise=QUIET)
    result = scripted(world=world).sit()
    assert claims(result)
    assert result.claimed == result.candidate
    assert result.claimed["dtype"] == "bf16_autocast"
    assert result.claimed["attention"] == "sdpa"
    throughput = result.over_baseline.throughput
    assert isinstance(throughput, Interval)
    true = truth(world, result.candidate, result.baseline)
    assert throughput.low * 0.98 < true < throughput.high * 1.02
    dtype = next(t for t in result.techniques if t.name == "dtype")
    assert dtype.verdict is TechniqueVerdict.ADOPT
    assert isinstance(dtype.speed_effect, Interval)
    assert dtype.speed_effect.estimate == pytest.approx(1.6, rel=0.05)


def test_nothing_better_is_a_legal_answer(scripted: Scripted) -> None:
    result = scripted(world=FlatWorld(own_luck=0.001)).sit()
    assert result.verdict is Verdict.KEEP
    assert result.recommended == result.baseline


def test_a_learning_gain_that_is_not_shown_is_expected_and_in_no_claim(scripted: Scripted) -> None:
    result = scripted(world=ExampleWorld(noise=QUIET)).sit()
    expected = result.expectation
    assert isinstance(expected, Expectation)
    assert LearningIsExpected in {type(c) for c in result.caveats}
    assert ShortHorizon in {type(c) for c in result.caveats}
    assert set(expected.knobs).isdisjoint(result.claimed.difference(result.baseline))
    assert isinstance(expected.over_claimed, Interval)
    claim = result.over_baseline.speedup
    assert isinstance(claim, Interval)
    assert claim.estimate == pytest.approx(truth(ExampleWorld(), result.candidate, result.baseline), rel=0.05)


def test_a_baseline_that_cannot_run_is_nothing_feasible(scripted: Scripted) -> None:
    with pytest.raises(NothingFeasible, match="no memory at all"):
        scripted(world=BrokenWorld()).sit()


@pytest.mark.parametrize("budget_seconds", [20.0, 300.0, 2_500.0])
def test_the_budget_is_a_hard_cap_and_every_budget_ends_in_an_answer(scripted: Scripted, budget_seconds: float) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET), budget_seconds=budget_seconds)
    result = study.sit()
    assert result.search_cost.total_seconds < 1.1 * budget_seconds
    assert result.verdict in Verdict
    if budget_seconds < 100:
        assert result.verdict is Verdict.NOT_INFORMATIVE


def test_a_small_plan_stops_the_search_because_it_does_not_pay(scripted: Scripted) -> None:
    small, large = scripted(), scripted()
    small.text = small.text.replace("tokens = 80_000_000\nruns = 10", "tokens = 200_000\nruns = 1")
    first, second = small.sit(), large.sit()
    assert not claims(first)
    assert SearchStoppedEarly in {type(c) for c in first.caveats}
    assert first.search_cost.total_seconds < second.search_cost.total_seconds


def test_infeasible_trials_are_named_and_never_best(scripted: Scripted) -> None:
    result = scripted(world=ExampleWorld(noise=QUIET)).sit()
    slow = [t for t in result.trials if t.outcome == InfeasibleKind.TOO_SLOW]
    assert slow, "fp16 is 30 times slower in this world"
    assert all(t.reason for t in slow)
    assert result.candidate["dtype"] != "fp16_autocast"
    cost = max(t.cost_seconds for t in slow)
    assert cost < 0.2 * max(t.cost_seconds for t in result.trials), "the hopeless must be cheap"


def test_a_kernel_that_one_dtype_is_refused_by_is_found_with_another(scripted: Scripted) -> None:
    result = scripted(world=HalfPrecisionWorld(noise=QUIET)).sit()
    refused = [t for t in result.trials if t.outcome == InfeasibleKind.INVALID]
    assert refused, "it is tried beside the baseline's fp32 as well"
    assert {t.reason for t in refused} == {"RuntimeError: No available kernel"}
    assert (result.claimed["attention"], result.claimed["dtype"]) == ("sdpa", "bf16_autocast")


def test_trial_zero_is_the_baseline_and_the_hand_tuned_default_is_run_beside_it(scripted: Scripted) -> None:
    study = scripted()
    study.text = study.text.replace("horizon_tokens = 800_000", "horizon_tokens = 100_000")
    result = study.sit()
    assert result.trials[0].label == "baseline"
    assert any(t.label == "expert default" for t in result.trials)
    expert = result.expert_default.difference(result.baseline)
    assert expert == {
        "dtype": "bf16_autocast",
        "attention": "sdpa",
        "optimizer_kernel": "fused",
        "tied_head": True,
    }
    assert isinstance(result.over_expert.throughput, Interval)


def test_every_second_is_accounted_for(scripted: Scripted) -> None:
    cost = scripted().sit().search_cost
    assert sum(cost.seconds_by_activity.values()) == pytest.approx(cost.total_seconds)
    assert sum(cost.seconds_by_stage.values()) <= cost.total_seconds
    assert cost.money == pytest.approx(cost.total_seconds / 3600 * 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleWorld(ExampleWorld):
    """SDPA, which every expert switches on, makes no difference here."""

    def tokens_per_second(self, config: Configuration) -> float:
        gain = 1.08 if config["attention"] == "sdpa" else 1.0
        return ExampleWorld.tokens_per_second(self, config) / gain


def test_an_idle_technique_is_left_out_and_the_rest_confirmed_beside_both(scripted: Scripted) -> None:
    quiet = LognormalNoise(moment=0.02, own=0.005, process=0.01)
    study = scripted(world=IdleWorld(noise=quiet), seed=2, budget_seconds=5_000.0)
    study.text = study.text.replace("runs = 10", "runs = 100")  # a plan that pays for finding out
    result = study.sit()
    assert claims(result)
    assert isinstance(result.over_expert.throughput, Interval), "the gain over the expert default is stated"
    assert result.candidate["attention"] == "math"


class Killed(BaseException):
    """Stands for SIGKILL: nothing between here and the test may handle it."""


def kill_after(events: int) -> Callable[[Event], None]:
    """A listener that dies at the `events`-th event."""
    left = iter(range(events))

    def listener(_: Event) -> None:
        if next(left, None) is None:
            raise Killed

    return listener


def test_a_study_killed_at_random_moments_ends_with_every_trial_once(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))
    moments = random.Random(1)
    acknowledged: dict[int, str] = {}
    for _ in range(10):
        with pytest.raises(Killed):
            study.sit([kill_after(moments.randint(1, 12))])
        now = {r.spec.number: r.finished_at + r.spec.label for r in read_records(study.folder)}
        assert acknowledged.items() <= now.items(), "an acknowledged trial was lost or changed"
        acknowledged = now
    result = study.sit()
    records = read_records(study.folder)
    assert [r.spec.number for r in records] == sorted({r.spec.number for r in records})
    keys = Counter((r.spec.stage, r.spec.block, r.spec.label, r.spec.seed, r.spec.horizon_tokens) for r in records)
    assert max(keys.values()) == 1, "a trial was counted twice"
    assert {t.number for t in result.trials} == {r.spec.number for r in records}
    told = in_database(study)
    assert told == Counter(r.spec.number for r in records), "the database has each acknowledged trial once"


def test_what_a_crash_left_no_time_for_does_not_run_for_ever(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))

    def die_while_exploring(event: Event) -> None:
        if isinstance(event.what, TrialStarted) and event.what.stage is Stage.EXPLORE_SYSTEM:
            raise Killed

    with pytest.raises(Killed):
        study.sit([die_while_exploring])
    with study.open() as opened:
        opened.note_elapsed(study.budget_seconds)
    study.sit()
    assert in_database(study) == Counter(r.spec.number for r in read_records(study.folder))


def in_database(study: ScriptedStudy) -> Counter[int]:
    """Our trial numbers in the Optuna database, of finished trials; none may still be running."""
    storage = f"sqlite:///{study.folder / 'study.db'}"
    found: Counter[int] = Counter()
    for summary in optuna.get_all_study_summaries(storage):
        for trial in optuna.load_study(study_name=summary.study_name, storage=storage).trials:
            assert trial.state is not optuna.trial.TrialState.RUNNING
            if "trial" in trial.user_attrs:
                found[trial.user_attrs["trial"]] += 1
    return found


def test_a_finished_study_gives_its_recommendation_again_without_measuring(scripted: Scripted) -> None:
    study = scripted(budget_seconds=1_500.0)
    first = study.sit()
    started = sum(isinstance(e.what, TrialStarted) for e in study.events)
    second = study.sit()
    assert sum(isinstance(e.what, TrialStarted) for e in study.events) == started
    assert second == first, "reading a study again changes nothing, its cost included"


def test_resuming_buys_no_time(scripted: Scripted) -> None:
    study = scripted(budget_seconds=2_000.0)
    for events in (12, 12, 12):
        with pytest.raises(Killed):
            study.sit([kill_after(events)])
    result = study.sit()
    assert result.search_cost.total_seconds < 1.1 * 2_000.0


def test_the_decision_log_is_whole_lines_in_order_of_time(scripted: Scripted) -> None:
    study = scripted(budget_seconds=2_000.0)
    with pytest.raises(Killed):
        study.sit([kill_after(15)])
    study.sit()
    lines = [json.loads(line) for line in (study.folder / "events.jsonl").read_text().splitlines()]
    times = [line["elapsed_seconds"] for line in lines]
    assert times == sorted(times)
    assert {"stage_started", "trial_finished", "stage_finished"} <= {next(iter(line["what"])) for line in lines}


def test_too_little_memory_is_foreseen_and_nothing_hopeless_is_launched(scripted: Scripted) -> None:
    with pytest.raises(NothingFeasible, match="GiB"):
        scripted(machine=replace(MACHINE, available_bytes=1 << 20)).sit()


def test_where_memory_holds_one_session_whole_runs_alternate_and_the_report_says_so(scripted: Scripted) -> None:
    roomy = scripted(world=ExampleWorld(noise=QUIET), budget_seconds=1_500.0)
    with roomy.open() as study:
        one = roomy.lab(study, optuna.storages.InMemoryStorage())._predict(study.space.baseline)
    tight = replace(MACHINE, available_bytes=int(one * 1.5))
    result = scripted(world=ExampleWorld(noise=QUIET), budget_seconds=2_500.0, machine=tight).sit()
    assert AlternatedSessions in {type(c) for c in result.caveats}
    assert claims(result)


def test_a_target_loss_plan_asks_the_curve_for_its_tokens(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))
    study.text = study.text.replace("tokens = 80_000_000\n", "target_loss = 4.0\n", 1)
    result = study.sit()
    assert isinstance(result.plan_tokens, Interval)
    world = ExampleWorld()
    reached = world.loss(result.baseline, round(result.plan_tokens.estimate), seed=0)
    assert math.isclose(reached, 4.0, abs_tol=0.2)


def test_a_target_loss_nobody_reaches_is_inconclusive_and_says_why(scripted: Scripted) -> None:
    study = scripted(budget_seconds=1_500.0)
    study.text = study.text.replace("tokens = 80_000_000\n", "target_loss = 0.01\n", 1)
    result = study.sit()
    assert result.verdict is Verdict.NOT_INFORMATIVE
    assert isinstance(result.plan_tokens, Unknown)
    assert result.plan_tokens.reason


def test_a_space_of_system_knobs_alone_is_searched(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))
    study.text = "\n".join(
        line for line in study.text.splitlines() if not line.startswith(("learning_rate", "schedule", "tied_head"))
    )
    result = study.sit()
    assert claims(result)
    assert isinstance(result.expectation, Unknown)


def test_a_space_of_learning_knobs_alone_is_searched(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))
    study.text = "\n".join(
        line for line in study.text.splitlines() if not line.startswith(("micro_batch = [", "dtype", "att", "opt"))
    )
    result = study.sit()
    assert {t.stage for t in result.trials} >= {Stage.CALIBRATE, Stage.EXPLORE_LEARNING, Stage.CONFIRM}
    assert result.verdict in Verdict


def test_another_plan_prices_a_finished_study_anew_without_measuring(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))
    first = study.sit()
    assert claims(first)
    trials = len(read_records(study.folder))
    revised = study.text.replace("device_hour_usd = 0.1", "device_hour_usd = 0.2")
    with study.open() as opened:
        opened.revise(document_of(revised), corpus="stdlib", budget_seconds=study.budget_seconds)
    second = study.sit()
    assert len(read_records(study.folder)) == trials
    assert second.search_cost.money == pytest.approx(2 * first.search_cost.money)
    assert second.over_baseline == first.over_baseline


def test_a_raised_budget_goes_on_where_the_old_one_ended(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET), budget_seconds=300.0)
    first = study.sit()
    assert first.verdict is Verdict.NOT_INFORMATIVE
    before = read_records(study.folder)
    with study.open() as opened:
        opened.revise(document_of(study.text), corpus="stdlib", budget_seconds=3_000.0)
    second = study.sit()
    after = read_records(study.folder)
    assert claims(second)
    assert after[: len(before)] == before, "what was measured stays"
    assert 300.0 < second.search_cost.total_seconds < 1.1 * 3_000.0
    assert sum(second.search_cost.seconds_by_stage.values()) <= second.search_cost.total_seconds + 0.01
    finished = [e.what for e in study.events if isinstance(e.what, StageFinished)]
    told = {what.stage.value: what.spent_seconds for what in finished}  # the last time counts
    assert told == pytest.approx(second.search_cost.seconds_by_stage, abs=1.0)


def document_of(text: str) -> SpaceDocument:
    return parse_document(text, name="simulated", source="simulated", folder=Path())


def test_what_computes_something_else_is_excluded_and_reported(scripted: Scripted) -> None:
    world = ExampleWorld(noise=QUIET, broken=frozenset({"attention=sdpa"}))
    result = scripted(world=world).sit()
    assert result.candidate["attention"] == "math"
    failed = [t for t in result.trials if t.outcome == InfeasibleKind.NOT_EQUIVALENT]
    assert failed
    assert all("results differ from the baseline" in t.reason for t in failed)
    caveats = [c for c in result.caveats if isinstance(c, NotEquivalent)]
    assert any("attention = sdpa" in c.knobs for c in caveats)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsurdWorld(ExampleWorld):
    """A clock that stands still under SDPA."""

    def tokens_per_second(self, config: Configuration) -> float:
        gain = 1e6 if config["attention"] == "sdpa" else 1.0
        return ExampleWorld.tokens_per_second(self, config) * gain


def test_a_rate_beyond_the_device_is_not_measurable_and_never_best(scripted: Scripted) -> None:
    result = scripted(world=AbsurdWorld(noise=QUIET)).sit()
    absurd = [t for t in result.trials if t.outcome == FailedKind.IMPLAUSIBLE]
    assert absurd
    assert all("MFU must be at most 1" in t.reason for t in absurd)
    assert result.candidate["attention"] == "math"


def test_a_baseline_that_cannot_be_measured_ends_with_the_reason(scripted: Scripted) -> None:
    with pytest.raises(NothingFeasible, match="MFU must be at most 1"):
        scripted(machine=replace(MACHINE, peak_flops={"fp32": 1e6})).sit()


def test_a_searched_batch_is_checked_against_the_gradients_noise_at_both_horizons(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET))
    assert not study.sit().noise_scales, "there is no batch to check"
    searched = scripted(world=ExampleWorld(noise=QUIET))
    searched.text = searched.text.replace("[knobs]", "[knobs]\nglobal_batch = [8, 16, 32]")
    half, whole = searched.sit().noise_scales
    assert half.horizon_tokens == pytest.approx(whole.horizon_tokens / 2, rel=0.01)
    assert isinstance(half.sequences, float)
    assert isinstance(whole.sequences, float)
    assert half.sequences < whole.sequences, "it grows with the run in this world"


def test_a_plan_that_nothing_can_pay_for_is_left_alone_after_one_trial(scripted: Scripted) -> None:
    study = scripted()
    study.text = study.text.replace("tokens = 80_000_000\nruns = 10", "tokens = 100_000\nruns = 1")
    result = study.sit()
    assert result.verdict is Verdict.KEEP
    assert [t.label for t in result.trials] == ["baseline"]


def test_a_schedule_of_a_few_steps_is_timed_past_its_end(scripted: Scripted) -> None:
    study = scripted(world=ExampleWorld(noise=QUIET, amplitude=10.0), budget_seconds=600.0)
    study.text = study.text.replace("horizon_tokens = 800_000", "horizon_tokens = 8_192")  # four steps
    result = study.sit()
    assert isinstance(result.over_baseline.throughput, Interval)
    with study.open() as opened:
        confirmed = opened.of_stage(Stage.CONFIRM)
    assert confirmed
    assert all(len(r.reference_slices) >= 12 for r in confirmed if r.reference_slices)
    for record in confirmed:
        step = record.ready[0].tokens_per_step
        assert abs(record.evaluations[-1].tokens_seen - record.spec.horizon_tokens) < step, "of the schedule's end"
