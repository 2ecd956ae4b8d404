"""Realistic recommendations in which nothing that is only expected is recommended."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from small_space import SPACE

from autotune.analysis.decision import Claimed, Keep, NotInformative, Prospect
from autotune.analysis.recommendation import (
    Batches,
    Comparison,
    Contender,
    Curve,
    Expectation,
    Footprint,
    NetSaving,
    NoiseScale,
    Recommendation,
    Roi,
    SearchCost,
    TechniqueEffect,
    TechniqueVerdict,
    TrialSummary,
)
from autotune.quantity import Interval, Quantity, Unknown
from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.space.knobs import KnobValue
from autotune.space.plan import Plan
from autotune.workload.machine import Corpus, LeftOut
from autotune.workload.space import space_of
from autotune_model.left_out import Reason

from .caveat_examples import CAVEATS

CORPUS = Corpus(
    train_tokens=3_612_004,
    holdout_tokens=398_113,
    documents=799,
    text_bytes=12_600_000,
    bytes_per_token=3.1,
    vocab_size=758,
    vocab_wanted=2_048,
    content_sha256="ab" * 32,
    left_out=(
        LeftOut(
            reason=Reason.ENCODING, count=12, bytes=3_400_000, unknown_sizes=0, examples=("a/old.txt", "b.txt", "c.txt")
        ),
        LeftOut(reason=Reason.LINKED_FOLDER, count=1, bytes=0, unknown_sizes=1, examples=("a/more",)),
    ),
    cache_damage="train.bin is not what was written",
)
CREATED_AT = "2026-11-23T23:40:00+00:00"

WORKLOAD = space_of(parse_document(SPACE, name="small", source="small.toml", folder=Path())).workload
BASELINE = WORKLOAD.baseline
EXPERT = BASELINE.with_values(
    {
        "micro_batch": 16,
        "dtype": "bf16_autocast",
        "attention": "sdpa",
        "optimizer_kernel": "fused",
        "compile": "default",
    }
)
WINNER = EXPERT.with_values({"compile": "off"})
LEARNING: dict[str, KnobValue] = {"learning_rate": 0.003, "schedule": "wsd"}

ENVIRONMENT = {
    "torch": "2.13.0+cpu",
    "python": "3.11.2",
    "processor": "AMD EPYC 9R14 (avx512_bf16)",
    "cores": "2",
    "memory": "7.6 GiB",
    "system": "Linux 6.1",
}


def interval(estimate: float, low: float, high: float, level: float = 0.9) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, level=level)


def technique(
    name: str,
    old: str,
    new: str,
    verdict: TechniqueVerdict,
    reason: str,
    *,
    speed: Quantity,
    quality: Quantity,
    saving: Quantity,
    roi: Quantity,
    break_even: Quantity,
) -> TechniqueEffect:
    knob = WORKLOAD.knobs[name]
    return TechniqueEffect(
        name=name,
        title=knob.title,
        section=knob.technique,
        knob_class=knob.knob_class,
        complexity=knob.complexity,
        baseline_value=old,
        value=new,
        speed_effect=speed,
        quality_effect=quality,
        saving=saving,
        roi=roi,
        break_even_tokens=break_even,
        verdict=verdict,
        reason=reason,
    )


def trial(
    number: int, stage: str, label: str, outcome: str, reason: str, ratio: Quantity, loss: Quantity, cost: float
) -> TrialSummary:
    return TrialSummary(
        number=number,
        stage=stage,
        label=label,
        outcome=outcome,
        reason=reason,
        throughput_ratio=ratio,
        loss=loss,
        cost_seconds=cost,
    )


NOT_JUDGED = Unknown(reason="judged on speed only")
NOT_REACHED = Unknown(reason="no slice was finished")
SAME = interval(1.0, 1.0, 1.0)


def claimed() -> Recommendation:
    """A clear win in speed, with a learning rate that is too uncertain even to try."""
    return Recommendation(
        decision=Claimed(config=WINNER),
        baseline=BASELINE,
        expert_default=EXPERT,
        candidate=WINNER,
        claimed=WINNER,
        recommended=WINNER,
        knobs=WORKLOAD.knobs,
        over_baseline=Comparison(
            speedup=interval(1.4213, 1.3479, 1.4892),
            throughput=interval(1.4284, 1.3611, 1.4932),
            token_efficiency=interval(0.995, 0.9861, 1.0042),
        ),
        over_expert=Comparison(
            speedup=interval(1.064, 1.012, 1.118),
            throughput=interval(1.061, 1.014, 1.109),
            token_efficiency=interval(1.003, 0.994, 1.012),
        ),
        plan=Plan(
            tokens=1_200_000_000,
            runs=4,
            devices=1,
            device_hour_usd=0.42,
            engineer_hour_usd=90.0,
            owned=True,
            kwh_usd=0.31,
            pue=1.2,
        ),
        plan_tokens=interval(1.2e9, 1.2e9, 1.2e9),
        baseline_tokens_per_second=interval(14_123.0, 13_410.0, 14_850.0),
        baseline_hours=interval(94.41, 89.8, 99.4),
        claimed_hours=interval(61.3, 57.9, 65.2),
        baseline_footprint=Footprint(parameters=1_312_384, peak_memory_bytes=412 << 20, mfu=0.231),
        candidate_footprint=Footprint(
            parameters=1_050_240, peak_memory_bytes=398 << 20, mfu=Unknown(reason="no peak of TF32 was measured")
        ),
        net_saving=NetSaving(
            seconds_per_step=interval(0.0430, 0.0374, 0.0477),
            hours=interval(27.98, 24.1, 31.2),
            money=interval(38.4, 18.9, 55.7),
            kwh=interval(1.62, 1.31, 1.94),
            baseline_watts=interval(46.1, 45.2, 47.0),
            candidate_watts=interval(43.8, 42.9, 44.7),
            energy_provenance="measured (RAPL package zones)",
        ),
        roi=Roi(ratio=interval(0.418, 0.206, 0.607), probability_positive=0.9971),
        break_even_tokens=interval(843_200_000.0, 671_000_000.0, 1_010_000_000.0),
        search_cost=SearchCost(
            total_seconds=3_724.0,
            money=0.434,
            adoption_money=99.0,
            seconds_by_stage={
                "calibrate": 512.0,
                "explore_system": 1_340.0,
                "explore_learning": 905.0,
                "race": 402.0,
                "confirm": 391.0,
                "attribute": 174.0,
            },
            seconds_by_activity={
                "steps": 1_630.0,
                "reference_steps": 1_120.0,
                "compile": 310.0,
                "open": 402.0,
                "evaluate": 150.0,
                "other": 112.0,
            },
        ),
        noise_floor=interval(0.0213, 0.0154, 0.0291),
        curve=Curve(
            points=((24_576, 7.052), (49_152, 6.571), (98_304, 6.168), (98_304, 6.097), (196_608, 5.762)),
            irreducible=2.13,
            amplitude=21.4,
            exponent=0.1457,
        ),
        techniques=(
            technique(
                "dtype",
                "fp32",
                "bf16_autocast",
                TechniqueVerdict.ADOPT,
                "faster at equal loss within the margin",
                speed=interval(1.271, 1.224, 1.319),
                quality=interval(0.995, 0.986, 1.004),
                saving=interval(32.1, 21.4, 41.0),
                roi=interval(0.71, 0.42, 0.94),
                break_even=interval(510e6, 410e6, 640e6),
            ),
            technique(
                "attention",
                "math",
                "sdpa",
                TechniqueVerdict.ADOPT,
                "faster, same mathematics",
                speed=interval(1.087, 1.051, 1.124),
                quality=SAME,
                saving=interval(11.9, 6.8, 16.4),
                roi=interval(1.21, 0.66, 1.72),
                break_even=interval(190e6, 150e6, 260e6),
            ),
            technique(
                "optimizer_kernel",
                "for_loop",
                "fused",
                TechniqueVerdict.ADOPT,
                "faster, same mathematics",
                speed=interval(1.041, 1.024, 1.058),
                quality=SAME,
                saving=interval(5.12, 2.88, 7.31),
                roi=interval(0.57, 0.31, 0.80),
                break_even=interval(402e6, 310e6, 590e6),
            ),
            technique(
                "micro_batch",
                "8",
                "16",
                TechniqueVerdict.NEUTRAL,
                "below the noise floor; kept because it costs nothing to keep",
                speed=interval(1.008, 0.989, 1.027),
                quality=SAME,
                saving=interval(0.9, -1.6, 3.3),
                roi=interval(0.1, -0.18, 0.37),
                break_even=Unknown(reason="the interval of the speed effect contains 1"),
            ),
            technique(
                "compile",
                "off",
                "off",
                TechniqueVerdict.HARMFUL,
                "compiled in 28 s and ran 4 % slower",
                speed=interval(0.957, 0.931, 0.984),
                quality=SAME,
                saving=interval(-5.4, -8.9, -2.0),
                roi=Unknown(reason="it saves nothing"),
                break_even=Unknown(reason="it never pays"),
            ),
            technique(
                "learning_rate",
                "0.001",
                "0.001",
                TechniqueVerdict.EXPECTED,
                "expected to gain at 1.2 B tokens, not shown",
                speed=SAME,
                quality=interval(1.237, 1.118, 1.371),
                saving=Unknown(reason="not claimed for the plan"),
                roi=Unknown(reason="not claimed for the plan"),
                break_even=Unknown(reason="not claimed for the plan"),
            ),
            technique(
                "tied_head",
                "false",
                "false",
                TechniqueVerdict.NOT_MEASURED,
                "the budget ended before its turn",
                speed=Unknown(reason="the budget ended"),
                quality=Unknown(reason="the budget ended"),
                saving=Unknown(reason="the budget ended"),
                roi=Unknown(reason="the budget ended"),
                break_even=Unknown(reason="the budget ended"),
            ),
        ),
        expectation=expectation(WINNER, Prospect(mean=-0.08, sd=0.12), speedup=1.4213),
        noise_scales=(
            NoiseScale(horizon_tokens=50_000, batch=16, sequences=14.2),
            NoiseScale(horizon_tokens=100_000, batch=16, sequences=41.7),
        ),
        batches=Batches(baseline=16, candidate=16, expected=0),
        runners_up=(
            Contender(
                label="expert default", config=EXPERT, speedup=interval(1.336, 1.271, 1.402), trial_numbers=(4, 21, 22)
            ),
            Contender(
                label="bf16 alone",
                config=BASELINE.with_values({"dtype": "bf16_autocast"}),
                speedup=interval(1.274, 1.201, 1.351),
                trial_numbers=(9,),
            ),
        ),
        trials=(
            trial(0, "calibrate", "baseline", "completed", "", SAME, interval(6.341, 6.30, 6.38), 131.0),
            trial(4, "explore_system", "expert default", "completed", "", interval(1.34, 1.27, 1.41), NOT_JUDGED, 96.2),
            trial(
                9, "explore_system", "dtype=bf16_autocast", "completed", "", interval(1.27, 1.2, 1.35), NOT_JUDGED, 61.0
            ),
            trial(
                10,
                "explore_system",
                "threads=1",
                "pruned",
                "certainly slower than the incumbent",
                interval(0.61, 0.57, 0.66),
                NOT_JUDGED,
                12.4,
            ),
            trial(
                11,
                "explore_system",
                "micro_batch=128",
                "predicted_oom",
                "needs 9.1 GiB of 7.6 GiB",
                NOT_REACHED,
                NOT_JUDGED,
                0.1,
            ),
            trial(
                12,
                "explore_system",
                "dtype=fp16_autocast",
                "too_slow",
                "one step took more than 30 s",
                NOT_REACHED,
                NOT_JUDGED,
                44.0,
            ),
            trial(
                13,
                "explore_system",
                "compile=max-autotune-no-cudagraphs",
                "compile",
                "InductorError: C++ compile failed | see log.txt",
                NOT_REACHED,
                NOT_JUDGED,
                71.9,
            ),
            trial(
                17,
                "explore_learning",
                "learning_rate=0.1",
                "diverged",
                "loss 11.2 after warm-up, above a uniform guess",
                NOT_REACHED,
                NOT_JUDGED,
                18.3,
            ),
            trial(
                23,
                "confirm",
                "winner",
                "completed",
                "",
                interval(1.4284, 1.3611, 1.4932),
                interval(6.352, 6.31, 6.39),
                140.0,
            ),
        ),
        corpus=CORPUS,
        environment=ENVIRONMENT,
        caveats=tuple(
            CAVEATS[kind]
            for kind in (
                "learning_is_expected",
                "short_horizon",
                "few_restarts",
                "search_stopped_early",
                "budget_ended",
            )
        ),
    )


def expectation(base: Configuration, prospect: Prospect, *, speedup: float, hours: float = 94.41) -> Expectation:
    """What the learning knobs are expected to do on top of `base`, which reaches `speedup` without them.

    `hours` are those of the plan with the baseline.
    """
    over_base = Interval.around(prospect.mean, 1.645 * prospect.sd, level=0.9).map(math.exp)
    whole = over_base.scaled(speedup)
    saved = whole.map(lambda ratio: hours * (1.0 - 1.0 / ratio) - 1.03)
    return Expectation(
        config=base.with_values(LEARNING),
        knobs={name: str(value) for name, value in LEARNING.items()},
        speedup=whole,
        throughput=Interval.around(speedup, 0.02 * speedup, level=0.9),
        token_efficiency=over_base,
        over_claimed=over_base,
        probability_worse=prospect.probability_worse,
        hours=saved,
        money=saved.scaled(1.37),
        roi=saved.scaled(1.37 / 91.9),
    )


def keep() -> Recommendation:
    """The best candidate is within the noise of the machine."""
    candidate = EXPERT.with_values({"dtype": "fp32", "optimizer_kernel": "foreach", "compile": "off"})
    never = Unknown(reason="the interval of the speed-up contains 1")
    return Recommendation(
        decision=Keep(),
        baseline=EXPERT,
        expert_default=EXPERT,
        candidate=candidate,
        claimed=EXPERT,
        recommended=EXPERT,
        knobs=WORKLOAD.knobs,
        over_baseline=Comparison(
            speedup=interval(1.0062, 0.9874, 1.0253), throughput=interval(1.0062, 0.9874, 1.0253), token_efficiency=SAME
        ),
        over_expert=Comparison(
            speedup=interval(1.0062, 0.9874, 1.0253), throughput=interval(1.0062, 0.9874, 1.0253), token_efficiency=SAME
        ),
        plan=Plan(tokens=20_000_000),
        plan_tokens=interval(20e6, 20e6, 20e6),
        baseline_tokens_per_second=interval(20_110.0, 18_940.0, 21_330.0),
        baseline_hours=interval(0.2763, 0.2604, 0.2933),
        claimed_hours=interval(0.2763, 0.2604, 0.2933),
        baseline_footprint=Footprint(parameters=1_312_384, peak_memory_bytes=412 << 20, mfu=0.231),
        candidate_footprint=Unknown(reason="it was never trained to the end of a trial"),
        net_saving=NetSaving(
            seconds_per_step=interval(0.00063, -0.0013, 0.0025),
            hours=interval(-0.412, -0.438, -0.389),
            money=interval(-0.412, -0.438, -0.389),
            kwh=Unknown(reason="no meter is readable and the plan gives no device_watts"),
            baseline_watts=Unknown(reason="no meter is readable and the plan gives no device_watts"),
            candidate_watts=Unknown(reason="no meter is readable and the plan gives no device_watts"),
            energy_provenance="no meter is readable and the plan gives no device_watts",
        ),
        roi=Roi(ratio=interval(-0.994, -1.04, -0.951), probability_positive=0.0),
        break_even_tokens=never,
        search_cost=SearchCost(
            total_seconds=1_489.0,
            money=0.4136,
            adoption_money=0.0,
            seconds_by_stage={"calibrate": 390.0, "explore_system": 799.0, "confirm": 300.0},
            seconds_by_activity={"steps": 700.0, "reference_steps": 610.0, "open": 179.0},
        ),
        noise_floor=interval(0.0341, 0.0262, 0.0433),
        curve=Unknown(reason="no learning knob was searched"),
        techniques=(
            technique(
                "micro_batch",
                "16",
                "16",
                TechniqueVerdict.NEUTRAL,
                "no effect above the noise floor",
                speed=interval(1.0062, 0.9874, 1.0253),
                quality=SAME,
                saving=interval(0.0017, -0.0035, 0.0068),
                roi=interval(-0.994, -1.04, -0.951),
                break_even=never,
            ),
        ),
        expectation=Unknown(reason="no learning knob was searched"),
        noise_scales=(),
        batches=Batches(baseline=0, candidate=0, expected=0),
        runners_up=(),
        trials=(
            trial(0, "calibrate", "baseline", "completed", "", SAME, NOT_JUDGED, 120.0),
            trial(
                1,
                "explore_system",
                "fp32, foreach",
                "completed",
                "",
                interval(1.0062, 0.9874, 1.0253),
                NOT_JUDGED,
                90.0,
            ),
            trial(2, "explore_system", "threads=4", "crash", "ended by signal 9", NOT_REACHED, NOT_JUDGED, 9.0),
        ),
        corpus=CORPUS,
        environment=ENVIRONMENT,
        caveats=tuple(CAVEATS[kind] for kind in ("noisy_machine", "unpriced", "energy_unknown")),
    )


def not_informative() -> Recommendation:
    """The budget ended before anything could be confirmed: nearly everything is unknown."""
    unknown = Unknown(reason="the budget ended before the confirmation")
    nothing = Comparison(speedup=unknown, throughput=unknown, token_efficiency=unknown)
    return Recommendation(
        decision=NotInformative(reason=unknown.reason, tokens=0.0, cost_seconds=0.0),
        baseline=BASELINE,
        expert_default=EXPERT,
        candidate=WINNER,
        claimed=BASELINE,
        recommended=BASELINE,
        knobs=WORKLOAD.knobs,
        over_baseline=nothing,
        over_expert=nothing,
        plan=Plan(target_loss=3.2, runs=1, devices=8, device_hour_usd=2.1),
        plan_tokens=Unknown(reason="no loss curve to read the target loss from"),
        baseline_tokens_per_second=interval(14_123.0, 11_410.0, 16_850.0),
        baseline_hours=Unknown(reason="the length of the plan is not known"),
        claimed_hours=Unknown(reason="the length of the plan is not known"),
        baseline_footprint=Footprint(parameters=94_464, peak_memory_bytes=301 << 20, mfu=0.05),
        candidate_footprint=Footprint(parameters=94_464, peak_memory_bytes=301 << 20, mfu=0.05),
        net_saving=NetSaving(
            seconds_per_step=unknown,
            hours=unknown,
            money=unknown,
            kwh=unknown,
            baseline_watts=interval(65.0, 65.0, 65.0),
            candidate_watts=unknown,
            energy_provenance="estimated from device_watts",
        ),
        roi=Roi(ratio=unknown, probability_positive=float("nan")),
        break_even_tokens=unknown,
        search_cost=SearchCost(
            total_seconds=300.0,
            money=0.175,
            adoption_money=0.0,
            seconds_by_stage={"calibrate": 220.0, "explore_system": 80.0},
            seconds_by_activity={"steps": 160.0, "open": 140.0},
        ),
        noise_floor=Unknown(reason="fewer than three restarts of the baseline"),
        curve=Unknown(reason="only one horizon was finished"),
        techniques=(),
        expectation=unknown,
        noise_scales=(NoiseScale(horizon_tokens=2_000, batch=16, sequences=unknown),),
        batches=Batches(baseline=16, candidate=16, expected=0),
        runners_up=(),
        trials=(trial(0, "calibrate", "baseline", "completed", "", SAME, NOT_JUDGED, 120.0),),
        corpus=MACHINE.corpus,
        environment={},
        caveats=tuple(CAVEATS[kind] for kind in ("budget_ended", "curve_not_fitted", "race_skipped")),
    )


def too_short() -> Recommendation:
    """Every trial was too short to say anything about learning, and no system knob was shown to pay."""
    r = keep()
    reason = "trials too short: they measure the area under the learning-rate schedule, not learning"
    decision = NotInformative(reason=reason, tokens=2.4e6, cost_seconds=22_800.0)
    return replace(r, decision=decision, caveats=(CAVEATS["trials_too_short"], CAVEATS["curve_steepening"]))
