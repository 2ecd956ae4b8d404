"""The case behind a recommendation: the space, the measurements, and what follows from them step by step.

It uses the arithmetic of rates, efficiency, claims and montecarlo; techniques, caveats and conclude use it.
Properties are computed once, on first use.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.analysis.additive import Additive
from autotune.analysis.claims import Claim, LearningClaim, choose, claim_of
from autotune.analysis.efficiency import tokens_to_reach
from autotune.analysis.evidence import (
    BASELINE,
    CONFIRM_SEED,
    EXPERT,
    LEVEL,
    NORMAL_QUANTILE,
    REDUCED,
    SYSTEM_PART,
    WINNER,
    Calibration,
    Effect,
    against_reference,
    effects_of,
    normal_interval,
    of_stage,
)
from autotune.analysis.informative import is_steepening, least_tokens
from autotune.analysis.ladder import RUNG_FACTOR, Ladder
from autotune.analysis.learning import (
    Learnt,
    failed_on_ladder,
    learning_speed,
    learnt_from,
    partner_of,
    tried_on_ladder,
)
from autotune.analysis.montecarlo import Economics, Forecast, forecast
from autotune.analysis.power import Power, measured_power, power_of
from autotune.analysis.roi import plan_device_seconds
from autotune.analysis.surface import NOISE_SD, Surface, surface_of
from autotune.quantity import Interval, Unknown, combine, only_known, or_else
from autotune.space.configuration import Configuration
from autotune.space.knobs import ADOPTION_HOURS, KnobClass
from autotune.space.limits import Pruned
from autotune.trial.types import Completed, Failed, Infeasible, Stage, StageEnd, TrialRecord, outcome_reason
from autotune.trial.types import Pruned as PrunedTrial
from autotune.workload.machine import Corpus
from autotune.workload.space import SearchSpace

FEWEST_RESTARTS, FEWEST_ROUNDS = 3, 12  # for a claim: docs/method.md, 3.5 and 3.4
_HOUR_SECONDS = 3600.0
_FAILED = -1.0  # ln of speed that a configuration counts for that could not run
_EXPLORING = (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineLog:
    """Whether the user gave a log of a run of the plan with the baseline, and why it cannot be of this model."""

    is_given: bool
    problem: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether a run can be compared with it."""
        return self.is_given and not self.problem


NO_LOG = BaselineLog(is_given=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Facts about a search besides its records.

    `expert` is the hand-tuned default as far as the space can express it, `expert_anywhere` without that limit.
    `search_seconds` is the total search time, `seconds_by_stage` its split, `stage_ends` why each stage ended.
    `corpus` is the text.
    `peak_flops` is the machine's measured peak by arithmetic, in FLOP/s. `pruned` are values that were not tried.
    `baseline_log` is that of a run of the plan with the baseline.
    """

    expert: Configuration
    expert_anywhere: Configuration
    search_seconds: float
    seconds_by_stage: Mapping[str, float]
    stage_ends: Mapping[Stage, StageEnd]
    corpus: Corpus
    environment: Mapping[str, str]
    peak_flops: Mapping[str, float]
    pruned: tuple[Pruned, ...] = ()
    baseline_log: BaselineLog = NO_LOG


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
        if is_steepening(self.calibration.points):
            return Unknown(reason="the loss still falls ever faster with tokens: longer trials are needed to tell when")
        return combine(lambda curve: tokens_to_reach(curve, plan.target_loss), self.calibration.curve)

    @cached_property
    def plan_seconds(self) -> float | Unknown:
        """Device-seconds of the whole plan with the baseline."""
        runs, rate = self.space.plan.runs, self.calibration.rate.estimate
        return combine(lambda tokens: plan_device_seconds(tokens, runs, rate), self.plan_tokens)

    @cached_property
    def others_share(self) -> float:
        """The share of the cores that other programs computed in while trials ran, by their time; 0 if not known."""
        known = [(r.costs.total_seconds, r.others_share) for r in self.records if r.others_share is not None]
        total = sum(seconds for seconds, _ in known)
        return sum(seconds * share for seconds, share in known) / total if total else 0.0

    # -- what was measured (docs/method.md, 3 and 4) -------------------------------------------------

    def of_stage(self, stage: Stage) -> tuple[TrialRecord, ...]:
        """The records of one stage."""
        return of_stage(self.records, stage)

    def seen(self, record: TrialRecord) -> Effect | Unknown:
        """The effect of an exploratory trial against the baseline: one process, one seed."""
        if not isinstance(record.outcome, Completed | PrunedTrial):
            return Unknown(reason=outcome_reason(record.outcome))
        partner = partner_of(record.spec, self.records, self.space)
        return against_reference(record, self.calibration, combine(lambda found: found.evaluations[-1], partner))

    @cached_property
    def explored(self) -> Mapping[Stage, Mapping[Configuration, Effect]]:
        """By exploratory stage: the effect of each configuration that could be judged."""
        seen = {stage: {r.spec.config: self.seen(r) for r in self.of_stage(stage)} for stage in _EXPLORING}
        return {
            stage: {config: effect for config, effect in effects.items() if not isinstance(effect, Unknown)}
            for stage, effects in seen.items()
        }

    @cached_property
    def system_speed(self) -> Additive:
        """What trials of system knobs say of ln of speed over the baseline.

        What could not run counts as slow, unless each of its values did run with others: then it is not theirs alone.
        """
        names = [d.knob.name for d in self.space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)]
        seen = {config: effect.total for config, effect in self.explored[Stage.EXPLORE_SYSTEM].items()}
        ran = {value for config in seen for value in self.space.changed(config).items()}
        trials = self.of_stage(Stage.EXPLORE_SYSTEM)
        failed = {r.spec.config for r in trials if isinstance(r.outcome, Infeasible | Failed)}
        slow = {config: _FAILED for config in failed if not self.space.changed(config).items() <= ran}
        return Additive(centre=self.baseline, scores=slow | seen, names=names)

    # -- what was learnt (docs/method.md, 9) ---------------------------------------------------------

    @cached_property
    def learnt(self) -> Learnt:
        """What trials of complete schedules showed of the learning knobs, and which of them inform."""
        return learnt_from(self.records, self.space)

    @property
    def is_starved(self) -> bool:
        """Whether every trial was too short for any figure about learning."""
        return bool(self.learnt.measured) and not self.learnt.informed

    @property
    def informative_tokens(self) -> float:
        """A token budget that may inform about learning where those tried do not."""
        longest = max((seen.tokens for seen in self.learnt.measured), default=self.space.workload.horizon_tokens)
        return max(RUNG_FACTOR * longest, least_tokens(self.space.workload.cost(self.baseline).tokens))

    def ladder(
        self, base: Configuration, candidates: Sequence[Configuration] = (), rungs: Sequence[int] = ()
    ) -> Ladder | Unknown:
        """The ladder of trials on the system configuration of `base`, after the trials so far.

        Its `rungs` are those where trials were not seen to be too short to inform; the longest in any case.
        """
        informing = [tokens for tokens in rungs[:-1] if tokens not in self.learnt.starved]
        open_rungs = (*informing, *rungs[-1:])
        return combine(lambda plan_tokens: self._ladder(base, candidates, open_rungs, plan_tokens), self.plan_tokens)

    def _ladder(
        self, base: Configuration, candidates: Sequence[Configuration], rungs: Sequence[int], plan_tokens: float
    ) -> Ladder:
        surface = surface_of(
            self.space,
            plan_tokens,
            self.learnt.informed,
            candidates=candidates,
            first_tokens=rungs[0] if rungs else 0,
        )
        effects = learning_speed(self.records, surface)

        def log_speed(config: Configuration) -> float:
            return sum(effects.get(feature, 0.0) * x for feature, x in surface.turned(config).items())

        return Ladder(
            surface=surface,
            base=base,
            rungs=tuple(rungs),
            tried=tried_on_ladder(self.records, self.space),
            failed=failed_on_ladder(self.records),
            log_speed=log_speed,
        )

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
            return self.calibration.floor(FEWEST_RESTARTS, FEWEST_ROUNDS)
        return self.calibration.floor(claim.restarts, claim.rounds)

    def _claim_of(self, label: str, blocks: Sequence[TrialRecord]) -> Claim | Unknown:
        config = next((r.spec.config for r in reversed(blocks) if r.spec.label == label), None)
        if config is None:
            return Unknown(reason=f"{label} was not confirmed")
        effects = effects_of(blocks, label, against=BASELINE, curve=self.calibration.curve)
        learning = self._learning_of(config, blocks) if self.space.changed(config, KnobClass.LEARNING) else None
        space, calibration = self.space, self.calibration
        return combine(
            lambda plan_tokens: claim_of(label, config, effects, space, calibration, plan_tokens, learning),
            self.plan_tokens,
        )

    def _learning_of(self, config: Configuration, blocks: Sequence[TrialRecord]) -> LearningClaim:
        """What the learning knobs of `config` do at the plan's length. Shown only if fresh seeds agree."""
        numerics: Interval | Unknown = Interval.exactly(0.0, level=LEVEL)
        if self.space.changed(config, KnobClass.NUMERICS):
            system = self._claim_of(SYSTEM_PART, blocks)
            numerics = combine(lambda known: known.plan_efficiency, system)
        if not self.learnt.is_informative:
            gated = Unknown(reason="trials too short: they measure the area under the learning-rate schedule")
            return LearningClaim(efficiency=gated, numerics=numerics, is_shown=False)
        ladder = self.ladder(self.baseline)
        if isinstance(ladder, Unknown):
            return LearningClaim(efficiency=ladder, numerics=numerics, is_shown=False)
        sceptical = ladder.sceptical
        shown, error = sceptical.at_plan(config)
        shown = min(shown, sceptical.at(config, sceptical.top_tokens)[0])  # a gain is never claimed to grow
        is_gain = shown > NORMAL_QUANTILE * error and ladder.is_supported(config)
        if is_gain and self._fresh_seeds_agree(config, sceptical):
            efficiency = normal_interval(shown, error)
            return LearningClaim(efficiency=efficiency, numerics=numerics, is_shown=True)
        mean, sd = ladder.surface.at_plan(config)
        efficiency = normal_interval(mean, sd)
        return LearningClaim(efficiency=efficiency, numerics=numerics, is_shown=False)

    def _fresh_seeds_agree(self, config: Configuration, surface: Surface) -> bool:
        """Whether the seeds of confirmation alone show a gain at the length tested."""
        fresh = [s.log_efficiency for s in self.learnt.informed if s.config == config and s.seed >= CONFIRM_SEED]
        error = NOISE_SD * math.sqrt(2.0 * surface.noise_factor / max(1, len(fresh)))
        return bool(fresh) and statistics.fmean(fresh) > NORMAL_QUANTILE * error

    def _config_of(self, claim: Claim | Unknown) -> Configuration:
        return self.baseline if isinstance(claim, Unknown) else claim.config

    # -- what is claimed (docs/method.md, 8) --------------------------------------------------------

    @cached_property
    def is_claimed(self) -> bool:
        """Whether the claim is shown to pay, the search included, and exceeds the noise floor."""
        return self.is_shown(self.claim) and not isinstance(self.forecast, Unknown) and self.forecast.net.low > 0

    def is_shown(self, claim: Claim | Unknown) -> bool:
        """Whether the gain of `claim` is shown, on the plan as it is tested; it may not pay for the search."""
        if isinstance(claim, Unknown) or isinstance(claim.total, Unknown) or claim.is_expected:
            return False
        floor = self.floor_of(claim)
        return claim.total.low > 0 and (isinstance(floor, Unknown) or claim.total.estimate > floor)

    @cached_property
    def claimed_config(self) -> Configuration:
        """The part of any recommendation that is shown; the baseline if nothing is."""
        return self.candidate if self.is_claimed else self.baseline

    @property
    def claimed_gain(self) -> float:
        """The ln S that is claimed; 0 if nothing is."""
        known = self.claim.total if self.is_claimed and isinstance(self.claim, Claim) else Interval.exactly(0.0)
        return or_else(known, Interval.exactly(0.0)).estimate

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
        return self.economics_of(
            self._config_of(claim), power=self.power_for(claim), search_seconds=self.facts.search_seconds
        )

    def economics_of(
        self, config: Configuration, *, power: Power | Unknown, search_seconds: float
    ) -> Economics | Unknown:
        """The costs of the plan with the baseline, of the search, and of adopting `config`, in the plan's currency."""
        plan = self.space.plan
        return combine(
            lambda plan_seconds: Economics(
                baseline_device_seconds=plan_seconds,
                baseline_log_sd=self.calibration.rate_log_sd(plan.runs),
                device_price_per_second=(plan.device_hour_usd or 1.0) / _HOUR_SECONDS,
                kwh_price=plan.kwh_usd if plan.pays_for_energy else 0.0,
                pue=plan.pue,
                power=power,
                one_off_device_seconds=self.one_off_seconds(config),
                search_device_seconds=search_seconds,
                adoption_cost=self.adoption_cost(self.space.changed(config)),
            ),
            self.plan_seconds,
        )

    @cached_property
    def _compile_seconds(self) -> Mapping[Configuration, float]:
        """By system configuration: the median time of its compilations."""
        seen: dict[Configuration, list[float]] = {}
        for record in self.records:
            if record.costs.compile_seconds > 0.0:
                seen.setdefault(self.space.system_part(record.spec.config), []).append(record.costs.compile_seconds)
        return {config: statistics.median(seconds) for config, seconds in seen.items()}

    def one_off_seconds(self, config: Configuration) -> float:
        """Device-seconds that the plan's runs take to compile `config`: each does, on every device."""
        seconds = self._compile_seconds.get(self.space.system_part(config), 0.0)
        return seconds * self.space.plan.runs * self.space.plan.devices

    def adoption_cost(self, knobs: Iterable[str]) -> float:
        """The cost of adopting those knobs in the plan's currency; 0 if only device-hours are counted."""
        plan, table = self.space.plan, self.space.workload.knobs
        hours = sum(ADOPTION_HOURS[table[name].complexity] for name in knobs)
        return hours * plan.engineer_hour_usd if plan.currency == "USD" else 0.0
