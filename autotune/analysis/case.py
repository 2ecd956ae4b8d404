"""The case behind a recommendation: the space, the measurements, and what follows from them step by step.

It uses the arithmetic of rates, efficiency, claims and montecarlo; techniques, caveats and conclude use it.
Properties are computed once, on first use.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.analysis.claims import Claim, choose, claim_of
from autotune.analysis.efficiency import tokens_to_reach
from autotune.analysis.evidence import (
    BASELINE,
    EXPERT,
    LEVEL,
    REDUCED,
    SYSTEM_PART,
    WINNER,
    Calibration,
    Effect,
    against_reference,
    effects_of,
    evaluation_at,
    of_stage,
)
from autotune.analysis.montecarlo import Economics, Forecast, forecast
from autotune.analysis.power import Power, measured_power, power_of
from autotune.analysis.roi import plan_device_seconds
from autotune.quantity import Unknown, combine, only_known, or_else
from autotune.space.configuration import Configuration
from autotune.space.knobs import ADOPTION_HOURS
from autotune.space.limits import Pruned
from autotune.trial.types import Completed, Stage, StageEnd, TrialRecord, outcome_reason
from autotune.trial.types import Pruned as PrunedTrial
from autotune.workload.space import SearchSpace

FEWEST_RESTARTS, _FEWEST_ROUNDS = 3, 12  # for a claim: docs/method.md, 3.5 and 3.4
_HOUR_SECONDS = 3600.0
_EXPLORING = (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Facts about a search besides its records.

    `expert` is the hand-tuned default as far as the space can express it, `expert_anywhere` without that limit.
    `search_seconds` is the total search time, `seconds_by_stage` its split, `stage_ends` why each stage ended.
    `peak_flops` is the machine's measured peak by arithmetic, in FLOP/s. `pruned` are values that were not tried.
    """

    expert: Configuration
    expert_anywhere: Configuration
    search_seconds: float
    seconds_by_stage: Mapping[str, float]
    stage_ends: Mapping[Stage, StageEnd]
    train_tokens: int
    environment: Mapping[str, str]
    peak_flops: Mapping[str, float]
    pruned: tuple[Pruned, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """The search `space`, the measurements (`records`, `calibration`), and `facts` about the search."""

    space: SearchSpace
    records: tuple[TrialRecord, ...]
    calibration: Calibration
    facts: Circumstances

    @property
    def baseline(self) -> Configuration:
        return self.space.baseline

    @cached_property
    def plan_tokens(self) -> float | Unknown:
        """Tokens of one run of the plan; for a target loss, the tokens that the baseline needs to reach it."""
        plan = self.space.plan
        if plan.tokens:
            return float(plan.tokens)
        return combine(lambda curve: tokens_to_reach(curve, plan.target_loss), self.calibration.curve)

    @cached_property
    def plan_seconds(self) -> float | Unknown:
        """Device-seconds of the whole plan with the baseline."""
        runs, rate = self.space.plan.runs, self.calibration.rate.estimate
        return combine(lambda tokens: plan_device_seconds(tokens, runs, rate), self.plan_tokens)

    # -- what was measured (docs/method.md, 3 and 4) -------------------------------------------------

    def of_stage(self, stage: Stage) -> tuple[TrialRecord, ...]:
        """The records of one stage."""
        return of_stage(self.records, stage)

    def seen(self, record: TrialRecord) -> Effect | Unknown:
        """The effect of an exploratory trial against the baseline: one process, one seed."""
        if not isinstance(record.outcome, Completed | PrunedTrial):
            return Unknown(reason=outcome_reason(record.outcome))
        spec = record.spec
        partner = evaluation_at(self.records, label=BASELINE, seed=spec.seed, horizon_tokens=spec.horizon_tokens)
        return against_reference(record, self.calibration, partner)

    @cached_property
    def explored(self) -> Mapping[Stage, Mapping[Configuration, Effect]]:
        """By exploratory stage: the effect of each configuration that could be judged."""
        seen = {stage: {r.spec.config: self.seen(r) for r in self.of_stage(stage)} for stage in _EXPLORING}
        return {
            stage: {config: effect for config, effect in effects.items() if not isinstance(effect, Unknown)}
            for stage, effects in seen.items()
        }

    # -- what may be claimed (docs/method.md, 4.4 and 6) -----------------------------------------------

    @cached_property
    def confirmation(self) -> tuple[TrialRecord, ...]:
        """The records of the blocks in which the winner ran beside the baseline on fresh seeds."""
        return self.of_stage(Stage.CONFIRM)

    @cached_property
    def joint_confirmation(self) -> tuple[TrialRecord, ...]:
        """The records of the blocks in which the reduced configuration ran beside baseline and hand-tuned default."""
        together = (BASELINE, REDUCED, EXPERT)
        return tuple(r for r in self.of_stage(Stage.ATTRIBUTE) if r.spec.label in together)

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The confirmed claims for the winner and its system part, boldest first; empty if there are none."""
        return tuple(only_known(self._claim_of(label, self.confirmation) for label in (WINNER, SYSTEM_PART)))

    @cached_property
    def whole(self) -> Claim | Unknown:
        """The claim that confirmation supports, before idle techniques are dropped."""
        return choose(self.claims)

    @cached_property
    def claim(self) -> Claim | Unknown:
        """The final claim: the configuration without idle techniques, if it is not worse than the whole.

        It was confirmed as a whole, and may be worse by at most the noise floor.
        """
        reduced = self._claim_of(REDUCED, self.joint_confirmation)
        if isinstance(reduced, Unknown):
            return self.whole
        return choose(self.claims, reduced, slack=or_else(self.floor_of(reduced), 0.0))

    @cached_property
    def candidate(self) -> Configuration:
        """The configuration that is claimed; the baseline if nothing is claimed."""
        return self._config_of(self.claim)

    def confirming(self, claim: Claim) -> tuple[TrialRecord, ...]:
        """The records that `claim` is based on."""
        return self.joint_confirmation if claim.label == REDUCED else self.confirmation

    def floor_of(self, claim: Claim | Unknown) -> float | Unknown:
        """The noise floor in log units at the claim's resolution; without a claim, at the coarsest one allowed."""
        if isinstance(claim, Unknown) or claim.restarts < 1:
            return self.calibration.floor(FEWEST_RESTARTS, _FEWEST_ROUNDS)
        return self.calibration.floor(claim.restarts, claim.rounds)

    def _claim_of(self, label: str, blocks: Sequence[TrialRecord]) -> Claim | Unknown:
        config = next((r.spec.config for r in reversed(blocks) if r.spec.label == label), None)
        if config is None:
            return Unknown(reason=f"{label} was not confirmed")
        effects = effects_of(blocks, label, against=BASELINE, curve=self.calibration.curve)
        space, calibration = self.space, self.calibration
        return combine(
            lambda plan_tokens: claim_of(label, config, effects, space, calibration, plan_tokens), self.plan_tokens
        )

    def _config_of(self, claim: Claim | Unknown) -> Configuration:
        return self.baseline if isinstance(claim, Unknown) else claim.config

    # -- what it is worth (docs/method.md, 7) -------------------------------------------------------

    @cached_property
    def baseline_power(self) -> Power | Unknown:
        """The power draw of the baseline, compared with itself."""
        return power_of(self.space.plan, self.calibration.power)

    @cached_property
    def power(self) -> Power | Unknown:
        """The power draw of the claimed configuration and the baseline, see `power_for`."""
        return self.power_for(self.claim)

    @cached_property
    def economics(self) -> Economics | Unknown:
        """The costs of the plan, of the search, and of adopting the claimed configuration."""
        return self._economics_for(self.claim)

    @cached_property
    def forecast(self) -> Forecast | Unknown:
        """The forecast of the plan with the claimed configuration: the saving and its probability."""
        return self.forecast_for(self.claim)

    def power_for(self, claim: Claim | Unknown) -> Power | Unknown:
        """The power draw of a claimed configuration and the baseline, from the blocks that confirmed it.

        Without a claim, the baseline's.
        """
        if isinstance(claim, Unknown):
            return self.baseline_power
        claimed = [r for r in self.confirming(claim) if r.spec.label == claim.label and r.is_complete]
        return power_of(self.space.plan, measured_power(claimed, level=LEVEL))

    def forecast_for(self, claim: Claim | Unknown) -> Forecast | Unknown:
        """The forecast of the plan with a claimed configuration, after the search so far."""
        if isinstance(claim, Unknown):
            return claim
        return combine(
            lambda total, economics: forecast(
                economics=economics,
                log_speedup_mean=total.estimate,
                log_speedup_stderr=claim.stderr,
                degrees_of_freedom=claim.degrees_of_freedom,
                level=LEVEL,
            ),
            claim.total,
            self._economics_for(claim),
        )

    def _economics_for(self, claim: Claim | Unknown) -> Economics | Unknown:
        config = self._config_of(claim)
        compiling = [r.costs.compile_seconds for r in self.records if r.spec.config == config and r.is_complete]
        return self.economics_of(
            config,
            power=self.power_for(claim),
            search_seconds=self.facts.search_seconds,
            compile_seconds=statistics.median(compiling) if compiling else 0.0,
        )

    def economics_of(
        self, config: Configuration, *, power: Power | Unknown, search_seconds: float, compile_seconds: float = 0.0
    ) -> Economics | Unknown:
        """The costs of the plan with the baseline, of the search, and of adopting `config`, in the plan's currency.

        `compile_seconds` are spent once per run, on every device.
        """
        plan = self.space.plan
        return combine(
            lambda plan_seconds: Economics(
                baseline_device_seconds=plan_seconds,
                baseline_log_sd=self.calibration.rate_log_sd(plan.runs),
                device_price_per_second=(plan.device_hour_usd or 1.0) / _HOUR_SECONDS,
                kwh_price=plan.kwh_usd if plan.pays_for_energy else 0.0,
                pue=plan.pue,
                power=power,
                one_off_device_seconds=compile_seconds * plan.runs * plan.devices,
                search_device_seconds=search_seconds,
                adoption_cost=self.adoption_cost(self.space.changed(config)),
            ),
            self.plan_seconds,
        )

    def adoption_cost(self, knobs: Iterable[str]) -> float:
        """The cost of adopting those knobs in the plan's currency; 0 if only device-hours are counted."""
        plan, table = self.space.plan, self.space.workload.knobs
        hours = sum(ADOPTION_HOURS[table[name].complexity] for name in knobs)
        return hours * plan.engineer_hour_usd if plan.currency == "USD" else 0.0
