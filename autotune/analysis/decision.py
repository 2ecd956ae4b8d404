"""What is recommended for the plan: the closed set of decisions, and the arithmetic behind them (docs/method.md, 9).

Two questions are kept apart. What is *claimed* is shown, with its lower bound. What is *recommended* has the least
expected cost, with its risk bounded, said and, where the plan allows, guarded by the first real run. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autotune.space.configuration import Configuration

MOST_RISK = 0.25
"""The largest probability of being worse at which a configuration is recommended without being looked at."""
_LEAST_GAIN = 0.01  # of the plan's cost: less is not worth a look
LOOK_SD = 0.05
"""Standard deviation of ln S seen in one run of the plan against one of the baseline."""
_COOLDOWN = 0.2  # of a raced trunk
_TRUNK_DRIFT = 0.15  # of ln e per unit of ln(plan / trunk)
_TRUNKS = (0.01, 0.02, 0.05, 0.1)  # shares of the plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """A belief about ln S of one configuration over another at the plan's length: normal with `mean` and `sd`."""

    mean: float
    sd: float

    @property
    def expected_cost(self) -> float:
        """Of the plan, over the other's: E[exp(-ln S)] = exp(-m + s^2 / 2)."""
        return math.exp(self.sd**2 / 2.0 - self.mean)

    @property
    def probability_worse(self) -> float:
        """P(ln S < 0)."""
        if self.sd == 0.0:
            return float(self.mean < 0.0)
        return _normal(-self.mean / self.sd)

    def cost_if_looked_at(self, look_sd: float) -> float:
        """The expected cost of what remains once ln S was seen with an error of `look_sd`, keeping the better one.

        Phi((t - m) / q) + exp(-m + s^2 / 2) * Phi((m - t - q^2) / q), q = s^2 / sqrt(s^2 + s_o^2) the sd of the
        expectation after the look and t half the variance left: below t the other is kept, at a cost of 1.
        """
        if self.sd == 0.0:
            return min(1.0, self.expected_cost)
        both = self.sd**2 + look_sd**2
        q, t = self.sd**2 / math.sqrt(both), self.sd**2 * look_sd**2 / (2.0 * both)
        return _normal((t - self.mean) / q) + self.expected_cost * _normal((self.mean - t - q * q) / q)

    def given(self, seen: float, error: float) -> Prospect:
        """The belief after ln S was seen, with a normal error of that standard deviation."""
        weight = self.sd**2 / (self.sd**2 + error**2)
        return Prospect(mean=self.mean + weight * (seen - self.mean), sd=self.sd * math.sqrt(1.0 - weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Run 1 of the plan is the look: the others use what it shows. `needs_run` of the baseline's learning knobs at the
    plan's length, if there is no log of one."""

    needs_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunks:
    """The only run begins as two, of both configurations, for this share of its tokens; the better one goes on."""

    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Only its speed is in doubt, and that shows in the first minutes of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unguarded:
    """Nothing in the plan can tell in time whether it is worse, or nothing that costs less than it saves."""


Guard = Look | Trunks | Watch | Unguarded


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Adopt `config`: its gain is shown, and its net saving is positive even at the lower bound."""

    config: Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Adopt `config`: it has the least expected cost, but what it gains over the claimed part is not shown.

    `prospect` is over the claimed part (the baseline if nothing is claimed); `cost` is the expected cost over that
    part's, as it is guarded.
    """

    config: Configuration
    prospect: Prospect
    guard: Guard
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceInRun:
    """Try `config` in the real run and drop it if it does not do better; only that makes its expected cost lower."""

    config: Configuration
    prospect: Prospect
    guard: Look | Trunks | Watch
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Keep the baseline: nothing is expected to pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotInformative:
    """Nothing can be said. `tokens` per trial would inform, at `cost_seconds` for a search; 0 if length is not why."""

    reason: str
    tokens: float
    cost_seconds: float


Decision = Claimed | Expected | RaceInRun | Keep | NotInformative
"""The five possible decisions."""


def guarded(
    prospect: Prospect, *, runs: int, has_baseline_log: bool, is_speed_alone: bool = False
) -> tuple[Guard, float]:
    """How the plan itself guards a change, and the change's expected cost then (1 is that of not changing).

    Plans of several runs look at the first; a single run races two trunks, where that costs less than it saves. What
    changes the speed alone is watched in any run.
    """
    if is_speed_alone:
        return Watch(), prospect.cost_if_looked_at(LOOK_SD)
    needs_run = not has_baseline_log
    left = runs - 1 - needs_run
    if runs > 1 and left < 1:
        return Unguarded(), prospect.expected_cost
    if runs > 1:
        cost = (prospect.expected_cost + needs_run + left * prospect.cost_if_looked_at(LOOK_SD)) / runs
        return Look(needs_run=needs_run), cost
    races = {share: _cost_of_race(prospect, share) for share in _TRUNKS}
    share = min(races, key=lambda each: races[each])
    if races[share] < prospect.expected_cost:
        return Trunks(share=share), races[share]
    return Unguarded(), prospect.expected_cost


def decided(
    config: Configuration, prospect: Prospect, *, runs: int, has_baseline_log: bool, is_speed_alone: bool = False
) -> Expected | RaceInRun | None:
    """Whether `config` is recommended over the claimed part without being claimed; None if it is not.

    `prospect` is of `config` over that part, costs of adopting it included; `is_speed_alone` says that nothing but
    speed differs between them.
    """
    guard, cost = guarded(prospect, runs=runs, has_baseline_log=has_baseline_log, is_speed_alone=is_speed_alone)
    if prospect.expected_cost < 1.0 - _LEAST_GAIN and prospect.probability_worse <= MOST_RISK:
        if cost < prospect.expected_cost or is_speed_alone:
            return Expected(config=config, prospect=prospect, guard=guard, cost=cost)
        return Expected(config=config, prospect=prospect, guard=Unguarded(), cost=prospect.expected_cost)
    if not isinstance(guard, Unguarded) and cost < 1.0 - _LEAST_GAIN:
        return RaceInRun(config=config, prospect=prospect, guard=guard, cost=cost)
    return None


def _cost_of_race(prospect: Prospect, share: float) -> float:
    """Two trunks to `share` of the run, both cooled over a fifth of it; the winner's trunk goes on."""
    look_sd = math.hypot(LOOK_SD, _TRUNK_DRIFT * math.log(1.0 / share))
    return share + 2.0 * _COOLDOWN * share + prospect.cost_if_looked_at(look_sd)


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))
