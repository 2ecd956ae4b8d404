"""The analysis of `benchmarks/horizons.py` on made-up results whose optimum and drift are known."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autotune.trial.codec import Malformed

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "horizons.py"
KAPPA_RATE, KAPPA_BATCH, CROSS = 0.3, 0.2, -0.1


@pytest.fixture(scope="module")
def horizons() -> Iterator[ModuleType]:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("horizons", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "horizons", module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        yield module


def loss_after(tokens: float) -> float:
    """The reference's loss."""
    return 2.0 + 300.0 * tokens**-0.4


def loss_of(horizons: Any, run: Any, *, drift: float, constant: float) -> float:
    """The loss of a run if the best ln rate at 1 M tokens is ln 0.003, and moves by `drift` per ln tokens."""

    def log_efficiency(run: Any) -> float:
        v = math.log(run.batch / 12)
        u = math.log(run.learning_rate / 0.003) - drift * math.log(run.tokens / horizons.THIRD)
        schedule = constant if run.schedule == "constant" else 0.0
        return schedule - KAPPA_RATE * u * u - KAPPA_BATCH * v * v - CROSS * u * v

    gain = log_efficiency(run) - log_efficiency(horizons.reference(run.tokens))
    return loss_after(run.tokens * math.exp(gain)) + 0.01 * run.seed


def trained(horizons: Any, *, drift: float = -0.1, constant: float = -0.5) -> dict[Any, float | None]:
    """Everything that is planned, pick included."""
    results: dict[Any, float | None] = {}
    while missing := [run for run in horizons.planned(results, longest=False) if run not in results]:
        results |= {run: loss_of(horizons, run, drift=drift, constant=constant) for run in missing}
    return results


@pytest.fixture(scope="module")
def results(horizons: Any) -> dict[Any, float | None]:
    return trained(horizons)


def verdicts(horizons: Any, results: dict[Any, float | None]) -> list[str]:
    return list(horizons.report(results))[-4:]


def test_optimum_and_curvature_are_recovered(horizons: Any, results: Any) -> None:
    found = horizons.fit(horizons.efficiencies(results, horizons.THIRD))
    v = math.log(16 / 12)
    log_rate, stderr = found.log_rate()
    assert log_rate == pytest.approx(math.log(0.003) - CROSS * v / (2 * KAPPA_RATE), abs=0.02)
    assert stderr < 0.02
    assert found.batch() == "12"
    assert [-c for c in found.coefficients[2:]] == pytest.approx([KAPPA_RATE, KAPPA_BATCH, CROSS], abs=0.02)


def test_a_rate_that_one_seed_does_not_survive_does_not_count(horizons: Any, results: Any) -> None:
    edge = horizons.RATES[-2]
    lucky, lost = (replace(horizons.reference(horizons.THIRD, seed), learning_rate=edge) for seed in (0, 1))
    survivor = results | {lucky: results[lucky] - 0.3, lost: None}
    without = {run: loss for run, loss in results.items() if (run.learning_rate, run.batch) != (edge, 16)}
    assert horizons.best_rate(survivor, horizons.THIRD) == horizons.best_rate(without, horizons.THIRD)


def test_drift_is_recovered_and_the_pick_follows_it(horizons: Any, results: Any) -> None:
    for shorter, longer in ((horizons.SECOND, horizons.THIRD), (horizons.THIRD, horizons.LONGEST)):
        drift, stderr = horizons.drift(results, shorter, longer)
        assert drift == pytest.approx(-0.1, abs=0.03)
        assert stderr < 0.03
    pick = horizons.pick(results)
    assert (pick.tokens, pick.batch, pick.schedule) == (horizons.LONGEST, 16, "linear")
    assert math.log(pick.learning_rate) == pytest.approx(horizons.best_rate(results, horizons.LONGEST)[0], abs=0.05)
    assert pick in results


@pytest.mark.parametrize("slope", [1.0, 0.3])
def test_the_slope_on_the_area_is_recovered(horizons: Any, slope: float) -> None:
    base = horizons.reference(horizons.SHORTEST)
    found = {replace(base, learning_rate=rate): slope * math.log(rate / base.learning_rate) for rate in horizons.RATES}
    found[replace(base, schedule="constant")] = slope * math.log(1.9)
    starvation = horizons.starvation(found | {replace(run, seed=1): 9.0 for run in found})
    assert starvation.slope == pytest.approx(slope, rel=0.02)
    assert starvation.r_squared > 0.99


def test_readings_agree_where_the_loss_is_a_power_of_tokens(horizons: Any, results: Any) -> None:
    difference = loss_after(1.4 * horizons.THIRD) - loss_after(horizons.THIRD)
    for read in horizons.READINGS.values():
        assert read(results, horizons.THIRD, difference) == pytest.approx(math.log(1.4), abs=0.03)


def test_predictions_that_the_results_bear_out_have_held(horizons: Any, results: Any) -> None:
    _, second, third, fourth = verdicts(horizons, results)
    assert ": held (" in second
    assert ": held (ln e of constant over linear -0." in third
    assert ": held (" in fourth


def test_predictions_that_the_results_contradict_did_not_hold(horizons: Any, results: Any) -> None:
    assert ": did not hold (slope" in verdicts(horizons, results)[0], "made with little effect of the area"
    assert ": did not hold (ln e of constant over linear +0." in verdicts(horizons, trained(horizons, constant=0.5))[2]
    turned = {
        run: loss_of(horizons, run, drift=0.35, constant=0.0) for run in results if run.tokens == horizons.LONGEST
    }
    pick = {replace(horizons.pick(results), seed=seed): None for seed in horizons.SEEDS}
    found = verdicts(horizons, results | turned | pick)
    assert ": did not hold (" in found[1]
    assert ": did not hold (" in found[3]


def test_what_has_not_been_run_is_not_known(horizons: Any, results: Any) -> None:
    assert all(": not known (" in line for line in verdicts(horizons, {}))
    short = {run: loss for run, loss in results.items() if run.tokens <= horizons.SECOND}
    assert all(": not known (" in line for line in verdicts(horizons, short))


def test_short_runs_come_first_and_the_pick_after_those_it_follows_from(horizons: Any, results: Any) -> None:
    runs = horizons.planned({}, longest=True)
    assert [run.tokens for run in runs] == sorted(run.tokens for run in runs)
    assert len(runs) == len(set(runs))
    known = {run: loss for run, loss in results.items() if run.tokens < horizons.LONGEST}
    assert horizons.pick(known) == horizons.pick(results)


def test_a_torn_last_line_is_dropped_and_its_run_repeated(horizons: Any, results: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first, second, third = horizons.planned({}, longest=False)[:3]
    for run, loss in ((first, 6.5), (second, None), (third, 6.1)):
        horizons.append_result(path, horizons.Finished(run=run, loss=loss))
    path.write_bytes(path.read_bytes()[:-5])
    assert horizons.read_results(path) == {first: 6.5, second: None}
    horizons.append_result(path, horizons.Finished(run=third, loss=6.2))
    assert horizons.read_results(path) == {first: 6.5, second: None, third: 6.2}


@pytest.mark.parametrize("line", ["", "{}", '{"run": 1, "loss": 2.0}', "1 + 1"])
def test_another_line_that_is_no_run_is_an_error(horizons: Any, tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(Malformed):
        horizons.read_results(path)
