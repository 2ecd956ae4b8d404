"""One caveat of each class."""

from __future__ import annotations

from autotune.analysis.caveat import (
    AlternatedSessions,
    BaselineLogUnfit,
    BudgetEnded,
    Caveat,
    CurveNotFitted,
    CurveSteepening,
    EfficiencyCensored,
    EnergyUnknown,
    ExpertPartial,
    FewRestarts,
    LearningIsExpected,
    NoisyMachine,
    NoSteadyState,
    NotEquivalent,
    NotGated,
    NumericsInferior,
    NumericsUndecided,
    Overflow,
    RaceSkipped,
    RepeatedData,
    SearchStoppedEarly,
    ShortHorizon,
    SpeedIsExpected,
    TrialsTooShort,
    Unpriced,
    ValuePruned,
)

CAVEATS: dict[str, Caveat] = {
    "no_steady_state": NoSteadyState(trial=14),
    "noisy_machine": NoisyMachine(floor=0.0341),
    "budget_ended": BudgetEnded(stage="explore_learning"),
    "race_skipped": RaceSkipped(),
    "few_restarts": FewRestarts(restarts=2),
    "learning_is_expected": LearningIsExpected(knobs="learning_rate, schedule", factor=1.237),
    "speed_is_expected": SpeedIsExpected(knobs="compile"),
    "trials_too_short": TrialsTooShort(
        horizon_tokens=60_000, slope=0.94, r_squared=0.97, informative_tokens=2.4e6, cost_seconds=22_800.0
    ),
    "short_horizon": ShortHorizon(knobs="learning_rate", horizon_tokens=98_304, plan_tokens=1.2e9),
    "repeated_data": RepeatedData(epochs=1.4),
    "curve_not_fitted": CurveNotFitted(reason="two budgets finished, three are needed"),
    "curve_steepening": CurveSteepening(horizon_tokens=196_608),
    "baseline_log_unfit": BaselineLogUnfit(reason="a log must have a loss of at least 3 at 800,000 tokens; got 2.5"),
    "efficiency_censored": EfficiencyCensored(bound=2.04),
    "alternated_sessions": AlternatedSessions(),
    "energy_unknown": EnergyUnknown(reason="RAPL is not readable and the plan gives no device_watts"),
    "unpriced": Unpriced(),
    "search_stopped_early": SearchStoppedEarly(stage="explore_system"),
    "expert_partial": ExpertPartial(knobs="compile"),
    "not_equivalent": NotEquivalent(knobs="attention = sdpa", reason="gradient must agree within 0.001; got 0.7"),
    "not_gated": NotGated(knobs="attention", reason="a command computes nothing that can be compared"),
    "overflow": Overflow(skipped=3, steps=1_240),
    "pruned": ValuePruned(knobs="attention = cudnn", reason="No viable backend was found"),
    "numerics_undecided": NumericsUndecided(knobs="dtype", lost=0.031, margin=0.02),
    "numerics_inferior": NumericsInferior(knobs="dtype", lost=0.094, margin=0.02),
}
"""One of each class, by the name it is published under."""
