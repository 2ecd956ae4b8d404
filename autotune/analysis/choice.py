"""What is recommended for the plan: what is expected beyond the claim, and the decision (docs/method.md, 9.4).

A hope is a configuration that is expected to gain over the claimed part, but is not shown to. It may be the confirmed
one, or one that trials show to be faster. The one whose plan is expected to cost the least is decided about. Pure.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cached_property

from autotune.analysis.case import FEWEST_ROUNDS, Case
from autotune.analysis.claims import Claim, faster
from autotune.analysis.decision import Claimed, Decision, Expected, Keep, NotInformative, Prospect, RaceInRun, decided
from autotune.analysis.evidence import NORMAL_QUANTILE, normal_interval
from autotune.analysis.montecarlo import Economics
from autotune.quantity import Interval, Unknown, combine, or_else
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.knobs import KnobClass
from autotune.trial.types import Stage, StageEnd

_SHOWN = 2.5  # standard deviations that a system configuration has to be ahead by, claims aside


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What to recommend, given a case. Properties are computed once, on first use."""

    case: Case

    @cached_property
    def hopeful(self) -> Claim | Unknown:
        """What is expected to gain beyond what is claimed at the least cost, if anything is; it need not be advised."""
        if not self._hopes:
            return Unknown(reason="no gain is expected beyond what is shown")
        return min(self._hopes, key=self._expected_cost)

    @cached_property
    def _hopes(self) -> tuple[Claim, ...]:
        """What may be expected to gain beyond what is claimed, the confirmed configuration first."""
        case = self.case
        confirmed = self._confirmed_hope
        claimed = case.claim if case.is_claimed and isinstance(case.claim, Claim) else None
        starts = (confirmed, claimed) if confirmed else (claimed,)
        quicker = (self._with_quicker_system(start) for start in starts)
        return tuple(hope for hope in (confirmed, *quicker) if hope is not None)

    @property
    def _confirmed_hope(self) -> Claim | None:
        """The confirmed configuration whose gain is not claimed, if there is one: it is not shown to last.

        Or it is shown, but may not pay for the search, whose cost is spent whatever is decided now. Of speed alone a
        little more is asked: the fastest of many may be ahead by luck.
        """
        case = self.case
        expected = next((c for c in case.claims if c.is_expected), None)
        shown = case.claim if case.is_shown(case.claim) and not case.is_claimed else None
        if expected or not isinstance(shown, Claim) or not isinstance(shown.total, Interval):
            return expected
        learns = case.space.changed(shown.config, KnobClass.LEARNING)
        is_ahead = shown.total.estimate > _SHOWN * shown.total.half_width / NORMAL_QUANTILE
        return shown if learns or is_ahead else None

    def _with_quicker_system(self, start: Claim | None) -> Claim | None:
        """`start` (None: the baseline) on a system configuration that trials show to be faster, but nothing confirmed.

        One that compiles may take longer to confirm than a plan can spare, and yet save much of it. Its precision is
        that of `start`: speed alone says nothing of another.
        """
        case = self.case
        config = start.config if start else case.baseline
        system, knobs = case.space.system_part(config), case.space.changed(config, KnobClass.LEARNING)
        best, least, confirmed = None, 0.0, {case.space.system_part(claim.config) for claim in case.claims}
        for other in case.explored[Stage.EXPLORE_SYSTEM]:
            if other in confirmed or case.space.changed(other, KnobClass.NUMERICS, base=system):
                continue
            mean, sd = case.system_speed.over(other, system)
            with contextlib.suppress(InvalidConfiguration):
                found = faster(start, case.space.turned(other, knobs), normal_interval(mean, sd))
                cost = sd * sd / 2.0 - mean + self._setup_cost(found.config) - self._setup_cost(config)
                if mean > _SHOWN * sd and cost < least:
                    best, least = found, cost
        return best

    def _setup_cost(self, config: Configuration) -> float:
        """What compiling and adopting `config` costs, over the plan with the claimed part."""
        case = self.case

        def share(plan: Economics) -> float:
            own = case.one_off_seconds(config) * plan.device_price_per_second + case.adoption_cost(
                case.space.changed(config)
            )
            return own / (plan.baseline_device_seconds * plan.price_per_device_second * math.exp(-case.claimed_gain))

        return or_else(combine(share, case.economics), 0.0)

    def _expected_cost(self, hope: Claim) -> tuple[bool, float]:
        """The expected cost of what is decided about it; what is not worth a try comes last."""
        prospect, found = self._prospect_of(hope), self._decided(hope)
        if found or isinstance(prospect, Unknown):
            return found is None, found.cost if found else math.inf
        return True, prospect.expected_cost

    def _decided(self, hope: Claim) -> Expected | RaceInRun | None:
        case = self.case
        prospect = self._prospect_of(hope)
        if isinstance(prospect, Unknown):
            return None
        learns = case.space.changed(hope.config, KnobClass.LEARNING, KnobClass.NUMERICS, base=case.claimed_config)
        return decided(
            hope.config,
            prospect,
            runs=case.space.plan.runs,
            has_baseline_log=case.facts.baseline_log.is_usable,
            is_speed_alone=not learns,
        )

    @cached_property
    def prospect(self) -> Prospect | Unknown:
        """What the hopeful configuration is expected to gain over the claimed one, after the cost of adopting it."""
        return combine(self._prospect_of, self.hopeful)

    def _prospect_of(self, hope: Claim) -> Prospect | Unknown:
        price = self._setup_cost(hope.config) - self._setup_cost(self.case.claimed_config)

        def over_claimed(total: Interval, _: Economics) -> Prospect:
            ahead = total.estimate - self.case.claimed_gain - price
            return Prospect(mean=ahead, sd=total.half_width / NORMAL_QUANTILE)

        return combine(over_claimed, hope.total, self.case.economics)

    @cached_property
    def decision(self) -> Decision:
        """What to do: docs/method.md, 9.4."""
        case = self.case
        found = self._decided(self.hopeful) if isinstance(self.hopeful, Claim) else None
        if found:
            return found
        if case.is_claimed:
            return Claimed(config=case.claimed_config)
        if case.is_starved:
            tokens = case.informative_tokens
            seconds = len(case.learnt.measured) * tokens / case.calibration.rate.estimate
            reason = "trials too short: they measure the area under the learning-rate schedule, not learning"
            return NotInformative(reason=reason, tokens=tokens, cost_seconds=seconds)
        unclear = isinstance(case.claim, Unknown) or isinstance(case.claim.total, Unknown)
        if (unclear or isinstance(case.forecast, Unknown)) and not case.claims and not self._found_nothing:
            reason = "the budget ended before anything could be confirmed against the baseline"
            return NotInformative(reason=reason, tokens=0.0, cost_seconds=0.0)
        return Keep()

    @property
    def _found_nothing(self) -> bool:
        """Whether exploration ran, or was not worth its cost, and saw nothing better to confirm."""
        case = self.case
        if case.confirmation:
            return False
        if case.facts.stage_ends.get(Stage.CALIBRATE) is StageEnd.NOT_WORTH_IT:
            return True
        if case.facts.stage_ends.get(Stage.CONFIRM) is StageEnd.NOT_WORTH_IT:
            return True
        best = max((effect.total for effect in case.explored[Stage.EXPLORE_SYSTEM].values()), default=0.0)
        return any(case.explored.values()) and best <= or_else(case.calibration.floor(1, FEWEST_ROUNDS), 0.0)
