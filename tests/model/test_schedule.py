from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune_model.knobs import KNOBS
from autotune_model.schedule import dropout_factor, lr_area, lr_factor, weight_decay_factor

schedules = st.sampled_from(KNOBS["schedule"].values)
warmups = st.floats(0.0, 0.9)
progresses = st.floats(0.0, 2.0)


@given(schedules, warmups, progresses)
def test_factor_is_a_share_of_the_peak(schedule: str, warmup: float, progress: float) -> None:
    assert 0.0 <= lr_factor(schedule, warmup, progress) <= 1.0


@given(schedules, warmups, progresses, progresses)
def test_it_rises_during_warmup_and_never_after(schedule: str, warmup: float, a: float, b: float) -> None:
    early, late = sorted((a, b))
    if late < warmup:
        assert lr_factor(schedule, warmup, early) <= lr_factor(schedule, warmup, late)
    elif early >= warmup:
        assert lr_factor(schedule, warmup, early) >= lr_factor(schedule, warmup, late)


@given(schedules, st.floats(0.01, 0.9), st.floats(0.0, 0.99))
def test_warmup_is_linear(schedule: str, warmup: float, share: float) -> None:
    assert lr_factor(schedule, warmup, share * warmup) == pytest.approx(share)


@given(schedules, warmups, st.floats(1.0, 100.0))
def test_past_the_horizon_the_last_value_holds(schedule: str, warmup: float, progress: float) -> None:
    assert lr_factor(schedule, warmup, progress) == lr_factor(schedule, warmup, 1.0)


@pytest.mark.parametrize(
    ("schedule", "quarter", "half", "nine_tenths", "end"),
    [
        ("constant", 1.0, 1.0, 1.0, 1.0),
        ("linear", 0.75, 0.5, 0.1, 0.0),
        ("cosine", 0.853553, 0.5, 0.024472, 0.0),
        ("wsd", 1.0, 1.0, 0.5, 0.0),
        ("inverse_sqrt", 0.2, 0.141421, 0.105409, 0.1),
    ],
)
def test_shape(schedule: str, quarter: float, half: float, nine_tenths: float, end: float) -> None:
    factors = [lr_factor(schedule, 0.0, progress) for progress in (0.25, 0.5, 0.9, 1.0)]
    assert factors == pytest.approx([quarter, half, nine_tenths, end], abs=1e-5)


def test_wsd_decays_right_after_a_warmup_that_ends_late() -> None:
    assert lr_factor("wsd", 0.9, 0.95) == pytest.approx(0.5)


def test_inverse_sqrt_halves_in_four_times_the_warmup() -> None:
    assert [lr_factor("inverse_sqrt", 0.04, progress) for progress in (0.04, 0.16, 1.0)] == pytest.approx([1, 0.5, 0.2])


def test_inverse_sqrt_without_a_warmup_starts_at_the_peak_and_stays_there_for_a_hundredth() -> None:
    factors = [lr_factor("inverse_sqrt", 0.0, progress) for progress in (0.0, 0.01, 0.04)]
    assert factors == pytest.approx([1.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("schedule", "start", "quarter", "half", "end"),
    [("constant", 1.0, 1.0, 1.0, 1.0), ("linear", 1.0, 0.75, 0.5, 0.0), ("cosine", 1.0, 0.853553, 0.5, 0.0)],
)
def test_course_of_the_weight_decay(schedule: str, start: float, quarter: float, half: float, end: float) -> None:
    factors = [weight_decay_factor(schedule, progress) for progress in (0.0, 0.25, 0.5, 1.0, 1.5)]
    assert factors == pytest.approx([start, quarter, half, end, end], abs=1e-5)


@pytest.mark.parametrize(
    ("schedule", "start", "quarter", "end"),
    [("constant", 1.0, 1.0, 1.0), ("falling", 1.0, 0.75, 0.0), ("rising", 0.0, 0.25, 1.0)],
)
def test_course_of_the_dropout_rate(schedule: str, start: float, quarter: float, end: float) -> None:
    assert [dropout_factor(schedule, p) for p in (0.0, 0.25, 1.0, 1.5)] == pytest.approx([start, quarter, end, end])


def test_every_course_of_a_knob_is_known() -> None:
    assert all(0.0 <= weight_decay_factor(str(s), 0.5) <= 1.0 for s in KNOBS["weight_decay_schedule"].values)
    assert all(0.0 <= dropout_factor(str(s), 0.5) <= 1.0 for s in KNOBS["dropout_schedule"].values)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="got 'steps'"):
        lr_factor("steps", 0.0, 0.5)
    with pytest.raises(ValueError, match="got 'steps'"):
        weight_decay_factor("steps", 0.5)
    with pytest.raises(ValueError, match="got 'steps'"):
        dropout_factor("steps", 0.5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd", "inverse_sqrt"])
@pytest.mark.parametrize("steps", [1, 29, 1_000, 5_003])
def test_the_area_is_the_sum_over_the_steps_however_many_there_are(schedule: str, steps: int) -> None:
    exact = math.fsum(lr_factor(schedule, 0.033, (step + 0.5) / steps) for step in range(steps))
    assert lr_area(schedule, 0.033, steps) == pytest.approx(exact, rel=2e-5)
