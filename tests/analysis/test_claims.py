"""What may be claimed: system knobs as measured, low precision through its gate, learning as trials showed it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_case import CALIBRATION, CURVE, HORIZON, SPACE, TEXT, case_of, record, small_space, turned

from autotune.analysis.claims import Claim, LearningClaim, choose, claim_of, is_inferior
from autotune.analysis.efficiency import LogEfficiency, loss_after
from autotune.analysis.evidence import Effect
from autotune.analysis.gates import NonInferiority
from autotune.analysis.rates import VarianceComponents, interval_over_restarts
from autotune.quantity import Interval, Unknown

PLAN_TOKENS = 30_000_000.0
SYSTEM: dict[str, Any] = {"attention": "sdpa"}
NUMERICS: dict[str, Any] = {"dtype": "bf16_autocast"}
LEARNING: dict[str, Any] = {"schedule": "wsd"}

SHOWN = (0.002, -0.002, 0.0, 0.001)
UNDECIDED = (0.05, -0.06, 0.02, -0.03)
INFERIOR = (-0.05, -0.052, -0.048, -0.05)
logs = st.floats(-0.3, 0.3)
seeds = st.lists(logs, min_size=2, max_size=6)


def effects(
    log_efficiencies: Sequence[float], *, log_speed: float = 0.3, horizon_tokens: int = HORIZON
) -> list[Effect]:
    """One effect a seed; the speed wobbles by half a per cent from one to the next."""
    loss = loss_after(CURVE, horizon_tokens)
    return [
        Effect(
            block=block,
            horizon_tokens=horizon_tokens,
            speed=log_speed + 0.005 * (-1) ** block,
            rounds=20 + block,
            loss_difference=loss_after(CURVE, horizon_tokens * math.exp(value)) - loss,
            efficiency=LogEfficiency(value=value, censored=False),
        )
        for block, value in enumerate(log_efficiencies)
    ]


def claim(
    knobs: dict[str, Any],
    measured: Sequence[Effect],
    *,
    plan_tokens: float = PLAN_TOKENS,
    learning: LearningClaim | None = None,
) -> Claim:
    return claim_of("winner", turned(knobs), measured, SPACE, CALIBRATION, plan_tokens, learning)


def learnt(
    log_efficiency: float = 0.2, half: float = 0.1, *, numerics: float | None = 0.0, is_shown: bool = True
) -> LearningClaim:
    """What learning knobs do at the plan's length; the precision's part is exact, or not known (None)."""
    return LearningClaim(
        efficiency=Interval.around(log_efficiency, half, level=0.9),
        numerics=Unknown(reason="not confirmed") if numerics is None else Interval.exactly(numerics, level=0.9),
        is_shown=is_shown,
    )


def known(answer: Any) -> Any:
    assert not isinstance(answer, Unknown), answer
    return answer


def width(interval: Interval | Unknown) -> float:
    answer = known(interval)
    return float(answer.high - answer.low)


# -- system knobs ------------------------------------------------------------------------------------


def test_what_changes_only_how_a_step_is_computed_is_claimed_as_measured_at_any_plan() -> None:
    measured = effects(SHOWN)
    claimed = claim(SYSTEM, measured)
    assert claimed.total == interval_over_restarts([e.total for e in measured], 0.9)
    assert claimed.plan_efficiency == claimed.efficiency == interval_over_restarts(SHOWN, 0.9)
    assert claimed.speed == interval_over_restarts([e.speed for e in measured], 0.9)
    assert not claimed.is_expected
    assert isinstance(claimed.numerics, Unknown)
    assert (claimed.restarts, claimed.rounds, claimed.degrees_of_freedom) == (4, 21, 3.0)
    assert claim(SYSTEM, measured, plan_tokens=1e12) == claimed


def test_the_standard_error_is_that_of_the_total() -> None:
    totals = [0.2, 0.3, 0.4]
    measured = [replace(e, speed=t) for e, t in zip(effects([0.0] * 3), totals, strict=True)]
    assert claim(SYSTEM, measured).stderr == pytest.approx(0.1 / math.sqrt(3))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_restarts_at_the_horizon_confirm_nothing(count: int) -> None:
    measured = effects([0.0] * count) + effects([0.0] * 3, horizon_tokens=HORIZON // 2)
    for knobs in (SYSTEM, NUMERICS, LEARNING):
        claimed = claim(knobs, measured)
        assert claimed.restarts == count
        assert isinstance(claimed.total, Unknown)
        assert isinstance(claimed.numerics, Unknown)
        assert isinstance(choose([claimed]), Unknown)


# -- numerics: the gate ------------------------------------------------------------------------------


def test_low_precision_that_is_shown_to_learn_as_well_is_claimed_as_measured_at_any_plan() -> None:
    measured = effects(SHOWN)
    claimed = claim(NUMERICS, measured)
    numerics = known(claimed.numerics)
    assert numerics.is_shown
    assert not is_inferior(numerics)
    assert numerics.seeds == 4
    assert numerics.mean == pytest.approx(sum(SHOWN) / 4)
    assert not claimed.is_expected
    assert claimed.total == interval_over_restarts([e.total for e in measured], 0.9)
    assert claim(NUMERICS, measured, plan_tokens=1e12) == claimed
    assert choose([claimed]) == claimed


def test_low_precision_that_seeds_do_not_decide_is_claimed_with_all_their_doubt() -> None:
    claimed = claim(NUMERICS, effects(UNDECIDED))
    numerics = known(claimed.numerics)
    assert not numerics.is_shown
    assert not is_inferior(numerics)
    assert not claimed.is_expected
    assert claimed.total == interval_over_restarts([e.total for e in effects(UNDECIDED)], 0.9)
    assert width(claimed.total) > 5 * width(claim(NUMERICS, effects(SHOWN)).total)


def test_low_precision_that_is_shown_to_learn_worse_pays_for_it_at_the_plan() -> None:
    claimed = claim(NUMERICS, effects(INFERIOR))
    assert is_inferior(known(claimed.numerics))
    assert known(claimed.plan_efficiency).estimate == pytest.approx(-0.05)
    assert not claimed.is_expected
    assert known(claimed.total).estimate == pytest.approx(
        known(claimed.speed).estimate + known(claimed.plan_efficiency).estimate
    )
    assert width(claimed.plan_efficiency) > 5 * width(claimed.efficiency)
    farther = claim(NUMERICS, effects(INFERIOR), plan_tokens=1e12)
    assert width(farther.plan_efficiency) > width(claimed.plan_efficiency)


def test_the_speed_of_low_precision_that_learns_worse_is_never_claimed_without_its_price() -> None:
    chosen = choose([claim(NUMERICS, effects(INFERIOR))])
    assert isinstance(chosen, Unknown) or known(chosen.total).estimate < known(chosen.speed).estimate - 0.04


def test_a_shorter_horizon_does_not_enter_the_gate_but_the_way_to_the_plan() -> None:
    shorter = effects([-0.2, -0.21], horizon_tokens=HORIZON // 2)
    assert claim(NUMERICS, effects(SHOWN) + shorter) == claim(NUMERICS, effects(SHOWN))
    inferior = claim(NUMERICS, effects(INFERIOR))
    carried = claim(NUMERICS, effects(INFERIOR) + shorter)
    assert carried.numerics == inferior.numerics
    at_plan = known(carried.plan_efficiency)
    assert width(at_plan) < width(inferior.plan_efficiency), "two lengths say more than one"
    assert at_plan.high - at_plan.estimate > at_plan.estimate - at_plan.low, "the loss may shrink"
    assert at_plan.estimate <= -0.05 + 1e-9, "but that is not claimed"


def test_rounding_is_not_judged_where_something_else_is_learned_too() -> None:
    claimed = claim(NUMERICS | LEARNING, effects(SHOWN), learning=learnt())
    assert isinstance(claimed.numerics, Unknown)
    assert claimed.plan_efficiency != claimed.efficiency
    assert isinstance(claim(LEARNING, effects(SHOWN), learning=learnt()).numerics, Unknown)


def test_one_seed_without_an_efficiency_leaves_the_gate_and_the_claim_open() -> None:
    measured = effects(SHOWN)
    measured[2] = replace(measured[2], efficiency=Unknown(reason="it was not evaluated"))
    claimed = claim(NUMERICS, measured)
    assert isinstance(claimed.numerics, Unknown)
    assert claimed.total == claimed.efficiency == Unknown(reason="it was not evaluated")
    assert isinstance(claimed.speed, Interval)


@given(seeds)
def test_low_precision_is_never_both_shown_to_learn_as_well_and_worse(log_efficiencies: list[float]) -> None:
    numerics = known(claim(NUMERICS, effects(log_efficiencies)).numerics)
    assert numerics.margin == 0.02
    assert not (numerics.is_shown and is_inferior(numerics))
    # Either takes more than a mean on the wrong side of the margin.
    assert not numerics.is_shown or numerics.mean > -numerics.margin
    assert not is_inferior(numerics) or numerics.mean < -numerics.margin


@given(seeds, st.floats(0.0, 0.3))
def test_learning_better_on_every_seed_never_closes_the_gate(log_efficiencies: list[float], better: float) -> None:
    before = known(claim(NUMERICS, effects(log_efficiencies)).numerics)
    after = known(claim(NUMERICS, effects([e + better for e in log_efficiencies])).numerics)
    if abs(before.low + before.margin) > 1e-9:
        assert after.is_shown >= before.is_shown
    if abs(2 * before.mean - before.low + before.margin) > 1e-9:
        assert is_inferior(after) <= is_inferior(before)


def test_inferior_is_what_the_upper_bound_says_too() -> None:
    def gate(mean: float, half: float) -> NonInferiority:
        return NonInferiority(is_shown=False, mean=mean, low=mean - half, margin=0.02, level=0.95, seeds=3)

    assert is_inferior(gate(-0.05, 0.029))
    assert not is_inferior(gate(-0.05, 0.031))
    assert not is_inferior(Unknown(reason="it rounds as the baseline does"))


# -- learning ----------------------------------------------------------------------------------------


@given(seeds, logs, st.floats(0.0, 1.0), st.booleans())
def test_a_learning_claim_is_speed_and_what_is_known_of_the_plan_shown_or_expected(
    log_efficiencies: list[float], at_plan: float, half: float, is_shown: bool
) -> None:
    claimed = claim(LEARNING, effects(log_efficiencies), learning=learnt(at_plan, half, is_shown=is_shown))
    speed, carried = known(claimed.speed), known(claimed.plan_efficiency)
    assert (carried.estimate, carried.half_width) == pytest.approx((at_plan, half)), "whatever was measured here"
    assert known(claimed.total).estimate == pytest.approx(speed.estimate + at_plan)
    assert width(claimed.total) >= max(width(speed), width(carried)) - 1e-12
    assert claimed.is_expected == (not is_shown)
    assert isinstance(choose([claimed]), Claim) == is_shown


def test_the_length_of_the_plan_is_no_longer_its_business_where_learning_is_known_there() -> None:
    near, far = (claim(LEARNING, effects(SHOWN), plan_tokens=tokens, learning=learnt()) for tokens in (1e6, 1e12))
    assert near == far


def test_low_precision_beside_learning_knobs_adds_what_it_does_alone() -> None:
    both = claim(NUMERICS | LEARNING, effects(SHOWN), learning=learnt(0.2, numerics=-0.05))
    assert known(both.plan_efficiency).estimate == pytest.approx(0.15)
    unsettled = claim(NUMERICS | LEARNING, effects(SHOWN), learning=learnt(numerics=None))
    assert unsettled.total == unsettled.plan_efficiency == Unknown(reason="not confirmed")
    assert isinstance(choose([unsettled]), Unknown)


def test_a_learning_knob_of_unknown_effect_is_not_claimed_by_its_speed() -> None:
    gated = Unknown(reason="trials too short")
    learning = LearningClaim(efficiency=gated, numerics=Interval.exactly(0.0, level=0.9), is_shown=False)
    claimed = claim(LEARNING, effects(SHOWN), learning=learning)
    assert claimed.total is gated
    assert claimed.is_expected
    assert isinstance(claimed.speed, Interval)


# -- choosing and pricing ----------------------------------------------------------------------------


def test_the_first_claim_that_can_stand_is_chosen_and_where_none_can_it_is_said_why() -> None:
    sound, bolder = claim(SYSTEM, effects(SHOWN)), claim(NUMERICS, effects(SHOWN))
    assert choose([bolder, sound]) == bolder
    hoped = claim(LEARNING, effects([0.1, 0.1]), learning=learnt(is_shown=False))
    assert choose([hoped, sound]) == sound
    assert choose([hoped]) == Unknown(reason="no gain found was shown to last for the whole plan")
    shown = claim(LEARNING, effects([0.1, 0.1]), learning=learnt())
    assert choose([shown, sound]) == shown
    assert choose([claim(SYSTEM, effects([0.0])), sound]) == sound
    assert choose([claim(SYSTEM, effects([0.0]))]) == claim(SYSTEM, effects([0.0])).total
    assert isinstance(choose([]), Unknown)


def test_the_plan_is_priced_with_the_rate_of_the_whole_study_and_the_luck_of_its_processes() -> None:
    reach = 1.6448536 * 0.03
    calibration = replace(
        CALIBRATION,
        rate=Interval(estimate=1e4, low=1e4 * math.exp(-reach), high=1e4 * math.exp(reach), level=0.9),
        noise=VarianceComponents(within=0.01, between=0.02**2, copies=4),
    )
    compiling = [record(SYSTEM, label="winner", block=n) for n in range(3)]
    compiling = [replace(r, costs=replace(r.costs, compile_seconds=20.0)) for r in compiling]
    economics = known(
        case_of(compiling, calibration=calibration).economics_of(
            turned(SYSTEM), power=Unknown(reason="not metered"), search_seconds=1_800.0
        )
    )
    assert economics.baseline_device_seconds == pytest.approx(10 * PLAN_TOKENS / 1e4)
    # The rate, the process it was measured in, and ten processes of the plan.
    assert economics.baseline_log_sd == pytest.approx(math.sqrt(0.03**2 + 0.02**2 * 1.1), rel=1e-6)
    assert economics.one_off_device_seconds == 200.0
    assert economics.search_cost == pytest.approx(0.5), "in device-hours, for nothing is priced"
    assert economics.adoption_cost == 0.0


def test_the_plan_with_a_claim_costs_what_the_baseline_does_over_its_speed_up() -> None:
    claimed = claim(SYSTEM, effects([0.0, 0.0]))
    costs = known(case_of().forecast_for(claimed)).plan_device_seconds
    assert costs.estimate == pytest.approx(10 * PLAN_TOKENS / 1e4 / math.exp(known(claimed.total).estimate))
    unconfirmed = claim(SYSTEM, [])
    assert case_of().forecast_for(unconfirmed) == unconfirmed.total


def test_adopting_is_priced_by_what_there_is_to_adopt() -> None:
    prices = "runs = 10\ndevice_hour_usd = 2.0\nengineer_hour_usd = 50.0"
    case = case_of(space=small_space(TEXT.replace("runs = 10", prices)))

    def adoption(knobs: dict[str, Any]) -> float:
        economics = known(case.economics_of(turned(knobs), power=CALIBRATION.power, search_seconds=3_600.0))
        assert economics.search_cost == pytest.approx(2.0)
        return float(economics.adoption_cost)

    assert adoption({}) == 0.0
    assert adoption(SYSTEM) == pytest.approx(0.1 * 50.0)
    assert adoption(SYSTEM | NUMERICS) == pytest.approx(1.1 * 50.0)


def test_the_plans_tokens_are_given_or_read_off_the_baselines_curve() -> None:
    assert case_of().plan_tokens == PLAN_TOKENS
    wanted = loss_after(CURVE, 5e6)
    aimed = small_space(TEXT.replace("tokens = 30_000_000\n", f"target_loss = {wanted!r}\n"))
    assert case_of(space=aimed).plan_tokens == pytest.approx(5e6)
    lost = Unknown(reason="none")
    assert case_of(space=aimed, calibration=replace(CALIBRATION, curve=lost)).plan_tokens is lost


def test_what_low_precision_loses_is_not_claimed_to_shrink_on_the_way_to_the_plan() -> None:
    shrinking = [
        replace(e, horizon_tokens=tokens)
        for tokens, value in ((HORIZON // 2, -1.5), (HORIZON, -1.2))
        for e in effects((value, value, value))
    ]
    carried = known(claim(NUMERICS, shrinking).plan_efficiency)
    assert carried.estimate <= -1.2 + 1e-9
    assert carried.low < carried.estimate < carried.high


def test_a_loss_beyond_the_baselines_curve_is_not_carried_to_the_plan() -> None:
    measured = effects(INFERIOR)
    beyond = [replace(e, efficiency=LogEfficiency(value=-0.3, censored=True)) for e in measured]
    assert isinstance(claim(NUMERICS, beyond).plan_efficiency, Unknown)
    assert not isinstance(claim(SYSTEM, beyond).plan_efficiency, Unknown), "of a system knob nothing is carried"


def test_without_a_curve_system_knobs_are_claimed_by_their_speed_and_nothing_else_is() -> None:
    lost = Unknown(reason="no curve")
    measured = [replace(e, efficiency=lost) for e in effects(SHOWN)]
    system = claim({"attention": "sdpa"}, measured)
    assert system.total == system.speed
    assert isinstance(claim(NUMERICS, measured).total, Unknown)
    assert isinstance(claim(LEARNING, measured, learning=learnt()).total, Interval), "the ladder has losses of its own"
