"""The conclusion of a search, as frozen data; worded only in `autotune.report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from autotune.analysis.caveat import Caveat
from autotune.analysis.decision import Claimed, Decision, Expected, Keep, NotInformative, RaceInRun
from autotune.quantity import Quantity, Unknown
from autotune.space.configuration import Configuration
from autotune.space.knobs import Knob, KnobClass
from autotune.space.plan import Plan
from autotune.workload.machine import Corpus


class Verdict(StrEnum):
    """The five possible conclusions, one for each kind of `analysis.decision.Decision`."""

    CLAIMED = "claimed"  # adopt what is shown to pay
    EXPECTED = "expected"  # adopt what has the least expected cost; a part of its gain is not shown
    RACE = "race"  # try it in the real run, and drop it if it does not do better
    KEEP = "keep"
    NOT_INFORMATIVE = "not_informative"


def verdict_of(decision: Decision) -> Verdict:
    """The kind of a decision."""
    match decision:
        case Claimed():
            return Verdict.CLAIMED
        case Expected():
            return Verdict.EXPECTED
        case RaceInRun():
            return Verdict.RACE
        case Keep():
            return Verdict.KEEP
        case NotInformative():
            return Verdict.NOT_INFORMATIVE


class TechniqueVerdict(StrEnum):
    """The six possible verdicts on a searched knob."""

    ADOPT = "adopt"  # part of the recommendation, and it pays by itself
    NEUTRAL = "neutral"  # no effect above the noise floor
    HARMFUL = "harmful"  # the recommendation is better without it
    EXPECTED = "expected"  # its gain is expected at the plan's length, not shown
    EXPLORED = "explored"  # compared with the same configuration without it, on one process and one seed only
    NOT_MEASURED = "not_measured"  # the budget ended before it was tried, or it cannot run; see the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How the claimed configuration compares with another one, as ratios (1.25 is 25 % better).

    `speedup` is to equal quality: `throughput` times the part of `token_efficiency` that is claimed.
    """

    speedup: Quantity
    throughput: Quantity
    token_efficiency: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSaving:
    """What the plan saves, net of search and adoption.

    `seconds_per_step` is per optimizer step of the baseline (docs/method.md, 7). The others are over the whole plan:
    `hours` (device-hours, net of the search), `money` (in the plan's currency, net of search and adoption) and `kwh`
    (facility overhead included, net of the search). `baseline_watts` and `candidate_watts` are the mean power draw
    of training, without that overhead. `energy_provenance` is their source, "measured (...)" or "estimated ...", or
    the reason why there are none.
    """

    seconds_per_step: Quantity
    hours: Quantity
    money: Quantity
    kwh: Quantity
    baseline_watts: Quantity
    candidate_watts: Quantity
    energy_provenance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roi:
    """Net saving over the cost of search and adoption; `probability_positive` is P(net saving > 0)."""

    ratio: Quantity
    probability_positive: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCost:
    """The cost of the search: `total_seconds` of wall time on this machine, and its split."""

    total_seconds: float
    money: float
    adoption_money: float
    seconds_by_stage: Mapping[str, float]
    seconds_by_activity: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueEffect:
    """The effect of one knob on speed and quality, and whether it pays.

    `speed_effect` and `quality_effect` are ratios (throughput; tokens saved to equal loss) of the
    recommendation over the recommendation without it. `saving` and `roi` are over the plan.
    """

    name: str
    title: str
    section: str
    knob_class: KnobClass
    complexity: int
    baseline_value: str
    value: str
    speed_effect: Quantity
    quality_effect: Quantity
    saving: Quantity
    roi: Quantity
    break_even_tokens: Quantity
    verdict: TechniqueVerdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A measured configuration in the list of runners-up."""

    label: str
    config: Configuration
    speedup: Quantity
    trial_numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """A row of the list of trials; `outcome` is `completed`, `pruned` or the kind of failure."""

    number: int
    stage: str
    label: str
    outcome: str
    reason: str
    throughput_ratio: Quantity
    loss: Quantity
    cost_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The baseline's cooled losses and the fit L(D) = irreducible + amplitude * D**-exponent."""

    points: tuple[tuple[int, float], ...]
    irreducible: float
    amplitude: float
    exponent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale:
    """The simple noise scale of the baseline's gradient, in `sequences`, after `horizon_tokens` with global `batch`."""

    horizon_tokens: int
    batch: int
    sequences: float | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The footprint of a configuration: distinct parameters (tied weights count once), its worker's peak memory,
    and model FLOPs utilisation, a share of the device's measured matrix-product rate in the same arithmetic.
    """

    parameters: int
    peak_memory_bytes: int
    mfu: float | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Sequences per optimizer step of the baseline, the claimed candidate and what is expected.

    0 if not known, or if nothing is expected.
    """

    baseline: int
    candidate: int
    expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a configuration is expected to do at the plan's length, where that is not shown. Never part of a claim.

    `knobs` are what it changes beyond the claimed part. `speedup`, `throughput` and `token_efficiency` are ratios over
    the baseline, `over_claimed` is the speed-up over the claimed part; all are at the plan's length, with the interval
    of the belief.
    `probability_worse` is that of costing more than the claimed part. `hours`, `money` and `roi` are those of the whole
    configuration over the plan, net of the search as in `NetSaving` and `Roi`, before any guard.
    """

    config: Configuration
    knobs: Mapping[str, str]
    speedup: Quantity
    throughput: Quantity
    token_efficiency: Quantity
    over_claimed: Quantity
    probability_worse: float
    hours: Quantity
    money: Quantity
    roi: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The conclusion of a study; see `docs/report.schema.json` for its published form.

    `decision` is what to do, `recommended` the configuration to run with: that of least expected cost, or the claimed
    part where a gain is to be raced in the run. `claimed` is the part that is shown to pay, the baseline if nothing is.
    `over_baseline`, `over_expert`, `net_saving`, `roi` and `break_even_tokens` are about `candidate`, the best
    configuration whose figures are shown, even if it does not pay; `expectation` is about what is not shown.
    `baseline_hours` and `claimed_hours` are device-hours of the whole plan, to equal quality. `noise_floor` is the
    smallest ratio minus one that this machine could resolve. `noise_scales` check the global batch if it is searched.
    `knobs` are all knobs of the workload, by name.
    """

    decision: Decision
    baseline: Configuration
    expert_default: Configuration
    candidate: Configuration
    claimed: Configuration
    recommended: Configuration
    knobs: Mapping[str, Knob]
    over_baseline: Comparison
    over_expert: Comparison
    plan: Plan
    plan_tokens: Quantity
    baseline_tokens_per_second: Quantity
    baseline_hours: Quantity
    claimed_hours: Quantity
    baseline_footprint: Footprint | Unknown
    candidate_footprint: Footprint | Unknown
    net_saving: NetSaving
    roi: Roi
    break_even_tokens: Quantity
    search_cost: SearchCost
    noise_floor: Quantity
    curve: Curve | Unknown
    techniques: tuple[TechniqueEffect, ...]
    expectation: Expectation | Unknown
    noise_scales: tuple[NoiseScale, ...]
    batches: Batches
    runners_up: tuple[Contender, ...]
    trials: tuple[TrialSummary, ...]
    corpus: Corpus
    environment: Mapping[str, str]
    caveats: tuple[Caveat, ...]

    @property
    def verdict(self) -> Verdict:
        """The kind of the decision."""
        return verdict_of(self.decision)
