"""A small fixed part of `benchmarks/truth.py`: the method's promises on a handful of simulated machines.

Everything is seeded; the bounds are such that other draws of as honest a method would keep them, too.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotune.analysis.caveat import SearchStoppedEarly
from autotune.analysis.recommendation import Verdict
from autotune.simulation.executor import MACHINE
from autotune.simulation.families import Family, draw
from autotune.simulation.finalists import race_of_four
from autotune.simulation.study import simulate
from autotune.simulation.worlds import draw_world, same_everywhere
from autotune.space.knobs import KnobClass
from autotune.trial.types import Stage

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PLAN_TOKENS, BUDGET_SECONDS = 3e7, 1_800.0


@pytest.fixture(scope="module")
def truth() -> Iterator[Any]:
    """The studies of the benchmark as a module; it finds its neighbour `rivals` as it does when it is run."""
    spec = importlib.util.spec_from_file_location("simulated", BENCHMARKS / "simulated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setitem(sys.modules, "simulated", module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        yield module
    del sys.modules["rivals"]


@pytest.mark.parametrize("number", range(4))
def test_where_nothing_makes_a_difference_nothing_is_recommended(truth: Any, number: int) -> None:
    found, records = simulate(
        truth.text_of(PLAN_TOKENS),
        same_everywhere(draw_world(number)),
        budget_seconds=BUDGET_SECONDS,
        seed=number,
    )
    assert found.verdict not in (Verdict.CLAIMED, Verdict.EXPECTED)
    assert found.recommended == found.baseline
    assert len({r.spec.config for r in records}) > 5, "it has looked"


def test_intervals_hold_the_truth_and_are_narrow_enough_to_be_of_use(truth: Any) -> None:
    ended = [truth.run_study(truth.Task(number=number, plan_tokens=PLAN_TOKENS)) for number in range(1, 10)]
    known = [e for e in ended if e.is_inside is not None]
    assert len(known) >= 6
    assert sum(not e.is_inside for e in known) <= 3  # more than 3 of nine 90 % intervals miss once in 120 times
    assert sum(not e.is_cost_inside for e in ended) <= 3
    assert statistics.median(e.width for e in known) < 0.3
    gains = [math.log(e.costs["the baseline"] / e.costs["this search"]) for e in ended]
    assert any(e.adopts for e in ended)
    assert statistics.median(gains) > 0.0, "search and plan together cost less than the baseline's plan"


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(list(Family)),
    st.integers(0, 40),
    st.floats(60.0, 3_000.0),
    st.sampled_from([(1, 3e5), (1, 1e10), (10, 3e6), (10, 3e7), (100, 3e8)]),
)
@example(Family.POWERS, 13, 300.0, (10, 3e7))  # the base compiles, and there is no time to compile anything else
def test_every_search_ends_whatever_its_world_budget_and_plan(
    truth: Any, family: Family, number: int, budget_seconds: float, plan: tuple[int, float]
) -> None:
    """A stage that spins would never come back from here: the simulated clock stands still while it does."""
    runs, tokens = plan
    found, records = simulate(
        truth.text_of(tokens, runs), draw(family, number), budget_seconds=budget_seconds, seed=number
    )
    assert found.search_cost.total_seconds <= 1.1 * budget_seconds + 60.0, "a compilation at most"
    space = truth.space_of(tokens, runs)
    specs = [r.spec for r in records if r.spec.stage is Stage.EXPLORE_LEARNING]
    tried = [(s.config, s.horizon_tokens) for s in specs if space.changed(s.config, KnobClass.LEARNING)]
    assert len(set(tried)) == len(tried), "no trial of the ladder is run twice"


def test_the_race_finds_the_one_that_leads_with_far_fewer_slices_than_unpaired() -> None:
    raced = race_of_four(0)
    assert raced.best_won
    assert raced.slices < 0.2 * raced.unpaired_slices


def test_a_tiny_plan_stops_the_search_at_once_and_a_large_one_spends_more(truth: Any) -> None:
    tiny, large = (
        simulate(truth.text_of(tokens), draw_world(1), budget_seconds=BUDGET_SECONDS, seed=1)[0]
        for tokens in (3e4, 3e9)
    )
    assert SearchStoppedEarly in {type(c) for c in tiny.caveats}
    assert tiny.recommended == tiny.baseline
    assert large.search_cost.total_seconds > 3 * tiny.search_cost.total_seconds


def test_nobody_beats_the_oracle(truth: Any) -> None:
    for number, plan_tokens in ((1, 3e4), (4, 3e5), (1, 3e7)):
        world, space = draw_world(number), truth.space_of(plan_tokens)
        oracle = truth.plan_seconds(world, space, truth.best_of(world, space))
        for config in (space.baseline, truth.expert_within(space, MACHINE)):
            assert oracle <= truth.plan_seconds(world, space, config) * (1 + 1e-3)


def test_rivals_spend_the_same_budget_on_configurations_of_the_space(truth: Any) -> None:
    space, world = truth.space_of(PLAN_TOKENS), draw_world(1)
    for name, choose in truth.RIVALS.items():
        rival = truth.rivals.Rival(space, world, budget_seconds=600.0, seed=1)
        config = choose(rival)
        assert 600.0 <= rival.clock() < 700.0, name
        assert config.difference(space.baseline).keys() <= {d.knob.name for d in space.dimensions}
        assert world.obstacle(config) is None, name


def test_a_look_at_the_first_run_never_costs_much_more_than_the_part_that_is_claimed(truth: Any) -> None:
    """The guard: whatever is tried in run 1, the other runs go back to what is shown if it does worse."""
    families = [truth.Family(name) for name in ("reversed", "regimes")]
    ended = [truth.run_study(truth.Task(number=n, family=family)) for family in families for n in range(4)]
    for each in ended:
        assert each.costs["this search, with looks"] < each.costs["the baseline"] * 1.25
    assert any(e.costs["this search, with looks"] != e.costs["this search"] for e in ended)


def test_no_claim_contains_a_learning_knob_that_a_family_refutes(truth: Any) -> None:
    for family in ("starved", "reversed", "fixed drift"):
        for number in range(3):
            ended = truth.run_study(truth.Task(number=number, family=truth.Family(family)))
            assert not (ended.claims_learning and ended.is_false)
            assert ended.split["search"] < 0.03, "the cap of 2 % of the plan, and what ends late"
