"""The gates: what they let pass, what they stop, and the noise scale of gradients whose noise is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotune.analysis.gates import (
    Inequivalence,
    NonInferiority,
    equivalence,
    noise_scale,
    non_inferiority,
    relative_distance,
)
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration
from autotune.trial.types import Fingerprint, GradientNoise
from autotune.workload.base import CompareSketches
from autotune.workload.gpt_gate import tolerances_of

any_float = st.floats(allow_nan=True, allow_infinity=True)
sketches = st.lists(any_float, min_size=1, max_size=5)
logs = st.floats(min_value=-2.0, max_value=2.0)

WAVE = tuple(math.sin(i) for i in range(256))
SOUND = Fingerprint(logits=WAVE, gradient=WAVE, update=WAVE)
GATE = CompareSketches(logits=0.005, gradient=0.02, update=0.15)


def off_by(share: float) -> tuple[float, ...]:
    """A sketch at that relative distance from `WAVE`."""
    return tuple(value * (1.0 + share) for value in WAVE)


# -- distance ----------------------------------------------------------------------------------------


@given(sketches, sketches)
def test_a_distance_is_a_ratio_or_infinite_whatever_is_compared(ours: list[float], theirs: list[float]) -> None:
    distance = relative_distance(ours, theirs)
    assert distance >= 0.0  # which no nan is
    if not all(map(math.isfinite, (*ours, *theirs))):
        assert distance == math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=5), st.floats(1e-3, 1e3))
def test_a_distance_has_no_unit(values: list[float], factor: float) -> None:
    assume(math.hypot(*values) > 1e-3)
    ours, theirs = [2.0 * v for v in values], values
    assert relative_distance(ours, theirs) == pytest.approx(1.0)
    scaled = relative_distance([factor * v for v in ours], [factor * v for v in theirs])
    assert scaled == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "distance"),
    [
        ((3.0, 4.0), (3.0, 4.0), 0.0),
        ((0.0, 0.0), (3.0, 4.0), 1.0),
        ((3.0, 9.0), (3.0, 4.0), 1.0),
        ((0.0, 0.0), (0.0, 0.0), 0.0),
        ((1e-300, 0.0), (0.0, 0.0), math.inf),
        ((1e300, 0.0), (-1e300, 0.0), 2.0),
        ((1e308, 0.0), (-1e308, 0.0), math.inf),
        ((math.nan,), (1.0,), math.inf),
        ((1.0,), (math.inf,), math.inf),
        ((math.inf,), (math.inf,), math.inf),
        ((1.0,), (1.0, 0.0), math.inf),
    ],
)
def test_known_distances(ours: tuple[float, ...], theirs: tuple[float, ...], distance: float) -> None:
    assert relative_distance(ours, theirs) == pytest.approx(distance)


# -- equivalence -------------------------------------------------------------------------------------


def test_what_computes_the_same_passes() -> None:
    assert equivalence(SOUND, SOUND, GATE) is None
    assert equivalence(SOUND, SOUND, CompareSketches(logits=0.0, gradient=0.0, update=0.0)) is None


@pytest.mark.parametrize("what", ["logits", "gradient", "update"])
def test_the_first_thing_that_differs_is_named(what: str) -> None:
    later = {"logits": ("gradient", "update"), "gradient": ("update",), "update": ()}[what]
    ours = replace(SOUND, **dict.fromkeys((what, *later), off_by(1.0)))
    found = equivalence(ours, SOUND, GATE)
    assert isinstance(found, Inequivalence)
    assert (found.what, found.tolerance) == (what, getattr(GATE, what))
    assert found.distance == pytest.approx(1.0)


@given(st.sampled_from(["logits", "gradient", "update"]), st.floats(0.0, 0.5))
def test_each_sketch_is_held_against_its_own_tolerance(what: str, share: float) -> None:
    tolerance = getattr(GATE, what)
    assume(abs(share - tolerance) > 1e-9)
    found = equivalence(replace(SOUND, **{what: off_by(share)}), SOUND, GATE)
    assert (found is not None) == (share > tolerance)


def test_what_is_no_number_does_not_pass() -> None:
    found = equivalence(replace(SOUND, update=(math.nan,) * 256), SOUND, GATE)
    assert found is not None
    assert (found.what, found.distance) == ("update", math.inf)


# -- what the built-in GPT forgives ------------------------------------------------------------------


def arithmetic(dtype: str = "fp32", *, optimizer: str = "adamw", matmul_precision: str = "highest") -> Configuration:
    return Configuration({"dtype": dtype, "optimizer": optimizer, "matmul_precision": matmul_precision})


def forgiven(dtype: str, **sketch: tuple[float, ...]) -> bool:
    gate = tolerances_of(arithmetic(dtype), arithmetic())
    return equivalence(replace(SOUND, **sketch), SOUND, gate) is None


def test_rounding_is_forgiven_by_dtype() -> None:
    """A per cent is much for fp32 and fp16 and little for bf16; a fifth of a per cent is little for fp16, too."""
    assert not forgiven("fp32", gradient=off_by(0.01))
    assert not forgiven("fp16_autocast", gradient=off_by(0.01))
    assert forgiven("bf16_autocast", gradient=off_by(0.01))
    assert forgiven("fp16_autocast", gradient=off_by(0.002))


def test_muon_rounds_its_update_to_bf16_and_nothing_else() -> None:
    adamw, muon = arithmetic(), arithmetic(optimizer="muon")

    def found(training: Configuration, **sketch: tuple[float, ...]) -> Inequivalence | None:
        return equivalence(replace(SOUND, **sketch), SOUND, tolerances_of(training, adamw))

    assert found(adamw, update=off_by(0.01)) is not None
    assert found(muon, update=off_by(0.01)) is None
    assert found(muon, update=off_by(0.05)) is not None
    assert found(muon, gradient=off_by(0.01)) is not None
    assert found(arithmetic("bf16_autocast", optimizer="muon"), update=off_by(0.1)) is None


def test_the_coarsest_arithmetic_counts() -> None:
    fp32, fp16, bf16 = (arithmetic(dtype) for dtype in ("fp32", "fp16_autocast", "bf16_autocast"))
    assert tolerances_of(fp32, bf16) == tolerances_of(bf16, fp16) == tolerances_of(bf16, bf16)
    assert tolerances_of(fp16, fp32) == tolerances_of(fp32, fp16) != tolerances_of(fp32, fp32)
    products = [tolerances_of(arithmetic(matmul_precision=p), fp32) for p in ("highest", "high", "medium")]
    assert products == [tolerances_of(c, c) for c in (fp32, fp16, bf16)]


# -- non-inferiority ---------------------------------------------------------------------------------


def test_the_bound_is_students() -> None:
    """Mean 0.01, standard deviation 0.02, t(0.95, 3) = 2.353: the bound is 0.01 - 2.353 * 0.02 / 2."""
    sd_01 = np.array([-1.0, 1.0, -1.0, 1.0]) * math.sqrt(3) / 2
    result = non_inferiority((0.01 + 0.02 * sd_01).tolist(), margin=0.02, level=0.95)
    assert isinstance(result, NonInferiority)
    assert result.mean == pytest.approx(0.01)
    assert result.low == pytest.approx(0.01 - 2.3534 * 0.01, abs=1e-6)
    assert result.is_shown
    assert (result.margin, result.level, result.seeds) == (0.02, 0.95, 4)


def test_too_wide_or_too_low_is_not_shown() -> None:
    for values in ((-0.03, -0.031, -0.029), (0.05, -0.05), (-0.02, -0.02)):
        result = non_inferiority(values, margin=0.02, level=0.95)
        assert isinstance(result, NonInferiority)
        assert not result.is_shown


@given(logs, st.integers(2, 6))
def test_equal_values_give_no_width(value: float, seeds: int) -> None:
    result = non_inferiority([value] * seeds, margin=0.02, level=0.95)
    assert isinstance(result, NonInferiority)
    assert result.low == result.mean == pytest.approx(value)


@given(st.lists(logs, min_size=2, max_size=6), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_wider_margin_shows_more_and_a_stricter_level_less(values: list[float], margin: float, more: float) -> None:
    def shown(margin: float, level: float) -> bool:
        result = non_inferiority(values, margin=margin, level=level)
        assert isinstance(result, NonInferiority)
        return result.is_shown

    assert shown(margin + more, 0.95) >= shown(margin, 0.95) >= shown(margin, 0.99)


def test_a_configuration_on_the_margin_passes_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(0)
    results = [non_inferiority(rng.normal(-0.02, 0.01, 4).tolist(), margin=0.02, level=0.9) for _ in range(2_000)]
    share = sum(isinstance(r, NonInferiority) and r.is_shown for r in results) / 2_000
    assert 0.08 < share < 0.12


@pytest.mark.parametrize(
    ("values", "reason"), [((), "at least 2"), ((0.1,), "at least 2"), ((0.1, -math.inf), "finite")]
)
def test_what_shows_nothing_is_unknown(values: tuple[float, ...], reason: str) -> None:
    result = non_inferiority(values, margin=0.02, level=0.95)
    assert isinstance(result, Unknown)
    assert reason in result.reason


# -- noise scale -------------------------------------------------------------------------------------


def noise(micro_square_norm: float, square_norm: float, *, micro_batch: int = 4, batch: int = 64) -> GradientNoise:
    return GradientNoise(
        tokens_seen=0,
        micro_batch=micro_batch,
        batch=batch,
        micro_square_norm=micro_square_norm,
        square_norm=square_norm,
    )


@given(st.floats(1e-6, 1e6), st.floats(0.0, 1e3), st.integers(1, 64), st.integers(2, 64))
def test_expected_norms_give_the_true_scale(square_gradient: float, scale: float, small: int, times: int) -> None:
    trace, large = scale * square_gradient, small * times
    norms = square_gradient + trace / small, square_gradient + trace / large
    found = noise_scale(noise(*norms, micro_batch=small, batch=large))
    assert found == pytest.approx(scale, rel=1e-6, abs=1e-6)


def test_the_scale_of_gaussian_gradients_is_found() -> None:
    """Gradients of single sequences are G + noise; |G| = 2 and tr(Sigma) = 120, so the scale is 30 sequences."""
    rng = np.random.default_rng(1)
    gradient = rng.normal(0.0, 1.0, 3_000)
    gradient *= 2.0 / np.linalg.norm(gradient)
    single = gradient + rng.normal(0.0, math.sqrt(120 / 3_000), (256, 3_000))
    micro = single.reshape(64, 4, 3_000).mean(axis=1)
    measured = noise(float(np.mean(np.sum(micro**2, axis=1))), float(np.sum(single.mean(axis=0) ** 2)), batch=256)
    assert noise_scale(measured) == pytest.approx(30.0, rel=0.1)


def test_gradients_without_noise_have_scale_zero() -> None:
    assert noise_scale(noise(4.0, 4.0)) == 0.0
    assert noise_scale(noise(4.0, 4.0 + 1e-12)) == 0.0  # rounding


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (noise(4.0, 4.0, micro_batch=8, batch=8), "two batch sizes"),
        (noise(math.nan, 4.0), "not finite"),
        (noise(4.0, math.inf), "not finite"),
        (noise(16.0, 1.0), "more are needed"),
        (noise(16.0, 0.5), "more are needed"),
        (noise(0.0, 0.0), "more are needed"),
    ],
)
def test_what_gives_no_scale_is_unknown(measured: GradientNoise, reason: str) -> None:
    result = noise_scale(measured)
    assert isinstance(result, Unknown)
    assert reason in result.reason
