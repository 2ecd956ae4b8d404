"""The look: what the first real run showed, and what the other runs should use (docs/method.md, 9.5). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autotune.analysis.case import Case
from autotune.analysis.choice import Choice
from autotune.analysis.decision import LOOK_SD, Expected, Prospect, RaceInRun, Watch
from autotune.analysis.evidence import normal_interval
from autotune.quantity import Interval, Unknown, combine, or_else
from autotune.space.configuration import Configuration
from autotune.space.knobs import KnobValue

_SLOPE_ERROR = 0.25  # relative error of ln e: the slope of the loss at the plan's length is extrapolated
_SAME_LENGTH = 0.02  # in ln: runs that end farther apart are not compared


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The last loss (nats per token) of a run of the plan, after `tokens`."""

    tokens: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the look showed: the speed-up of the configuration tried over the claimed part, as a ratio.

    `before` and `after` are the beliefs about its logarithm. `is_kept` says whether the other runs should use it;
    `config` is what they should use. `changes` are what was tried, over the claimed part.
    """

    changes: Mapping[str, KnobValue]
    shown: Interval
    before: Prospect
    after: Prospect
    is_kept: bool
    config: Configuration


def compared(choice: Choice, tried: RunEnd, baseline: RunEnd) -> Looked | Unknown:
    """What a run with the recommended configuration and one with the baseline's learning knobs decide for the others.

    Unknown if nothing is to be looked at, or the runs cannot be compared.
    """
    case, decision = choice.case, choice.decision
    if not isinstance(decision, Expected | RaceInRun):
        return Unknown(reason="the study recommends nothing that has to be looked at")
    if isinstance(decision.guard, Watch):
        return Unknown(reason="only its speed is to be watched: compare tokens/s in the first minutes of a run")
    if abs(math.log(tried.tokens / baseline.tokens)) > _SAME_LENGTH:
        return Unknown(
            reason=f"two runs are compared at the same length; got {tried.tokens:,} and {baseline.tokens:,} tokens"
        )
    slope = _loss_per_log_token(case, tried.tokens)
    if isinstance(slope, Unknown):
        return slope
    efficiency = (baseline.loss - tried.loss) / slope
    seen = efficiency + _log_speed(choice)
    error = math.hypot(LOOK_SD, _SLOPE_ERROR * efficiency)
    before = decision.prospect
    after = before.given(seen, error)
    return Looked(
        changes=case.space.changed(decision.config, base=case.claimed_config),
        shown=normal_interval(seen, error).map(math.exp),
        before=before,
        after=after,
        is_kept=after.expected_cost < 1.0,
        config=decision.config if after.expected_cost < 1.0 else case.claimed_config,
    )


def _log_speed(choice: Choice) -> float:
    """ln of throughput of the configuration tried over the claimed part, as confirmed; 0 if not known."""
    case, hope = choice.case, choice.hopeful
    tried = or_else(combine(lambda claim: combine(lambda speed: speed.estimate, claim.speed), hope), 0.0)
    if not case.is_claimed:
        return tried
    return tried - or_else(combine(lambda claim: combine(lambda speed: speed.estimate, claim.speed), case.claim), 0.0)


def _loss_per_log_token(case: Case, tokens: int) -> float | Unknown:
    """How much a token budget larger by one log unit lowers the final loss, in nats; positive.

    Only a slope is taken beyond the trials, never a level: the fitted curve's, or the last one measured if less.
    """
    curve, points = case.calibration.curve, dict(case.calibration.points)
    ends = sorted(points)[-2:]
    fall = math.nan if len(ends) < 2 else (points[ends[0]] - points[ends[1]]) / math.log(ends[1] / ends[0])
    slopes = [fall] if fall > 0.0 else []
    if not isinstance(curve, Unknown):
        slopes.append(curve.exponent * math.exp(math.log(curve.amplitude) - curve.exponent * math.log(tokens)))
    if not slopes:
        return Unknown(reason="the baseline's loss was not seen to fall with tokens: it cannot be converted to tokens")
    return min(slopes)
