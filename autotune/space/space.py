"""What is searched: the workload, the plan it is for, the baseline, and the domains of the knobs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig
from autotune_model.knobs import Knob, KnobClass, KnobValue

EXPERT_WISHES: Mapping[str, KnobValue] = MappingProxyType(
    {"dtype": "bf16_autocast", "attention": "sdpa", "optimizer_kernel": "fused", "tied_head": True}
)
"""What an expert would type without measuring, bf16 only where the machine gains from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained: a GPT on a text. `horizon_tokens` is the length of a judged trial's schedule."""

    gpt: GPTConfig
    data: DataConfig
    horizon_tokens: int
    evaluation_tokens: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The run the user is going to do with the recommended configuration.

    Exactly one of `tokens` (per run) and `target_loss` (nats per token) is positive. Prices are in
    the user's currency, written USD; `device_hour_usd` is for one device (rent, or depreciation on
    owned hardware) and `kwh_usd` applies to owned hardware only. With no price of a device-hour the
    plan is priced in device-hours.
    """

    tokens: int = 0
    target_loss: float = 0.0
    runs: int = 1
    devices: int = 1
    device_hour_usd: float = 0.0
    engineer_hour_usd: float = 0.0
    owned: bool = False
    kwh_usd: float = 0.0
    pue: float = 1.0
    device_watts: float = 0.0

    @property
    def currency(self) -> str:
        """The unit of every saving of this plan: `USD`, or `device-hours` where nothing is priced."""
        return "USD" if self.device_hour_usd > 0 else "device-hours"

    @property
    def pays_for_energy(self) -> bool:
        """Whether energy is in the money figures by itself: rent has it in already, device-hours have no money."""
        return self.owned and self.kwh_usd > 0 and self.device_hour_usd > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A domain of listed values, in the order given."""

    values: tuple[KnobValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntRange:
    """Whole numbers from `low` to `high` inclusive, sampled evenly or (`log`) by their logarithm."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRange:
    """Numbers from `low` to `high` inclusive, sampled evenly or (`log`) by their logarithm."""

    low: float
    high: float
    log: bool = False


Domain = Choice | IntRange | FloatRange


def contains(domain: Domain, value: KnobValue) -> bool:
    """Whether `value` lies in `domain`, its type included (True is not 1)."""
    match domain:
        case Choice(values=values):
            return any(value == v and type(value) is type(v) for v in values)
        case IntRange(low=low, high=high):
            return type(value) is int and low <= value <= high
        case FloatRange(low=low, high=high):
            return type(value) is float and low <= value <= high


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One knob that is searched, and over what."""

    knob: Knob
    domain: Domain


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """A whole question: which configuration in `dimensions` serves `plan` best for `workload`?

    `baseline` is what the user would run today. A knob that is no dimension keeps its baseline value.
    `budget_seconds` caps the search unless the command line says otherwise.
    """

    name: str
    workload: Workload
    plan: Plan
    baseline: TrainingConfig
    dimensions: tuple[Dimension, ...]
    budget_seconds: float

    def of_class(self, *classes: KnobClass) -> tuple[Dimension, ...]:
        """The dimensions whose knob is of one of `classes`, in the order of the table of knobs."""
        return tuple(d for d in self.dimensions if d.knob.knob_class in classes)

    def session(self, config: TrainingConfig, *, seed: int, horizon_tokens: int) -> SessionConfig:
        """All that a worker needs in order to train `config` on this workload."""
        return SessionConfig(
            gpt=self.workload.gpt,
            data=self.workload.data,
            training=config,
            seed=seed,
            horizon_tokens=horizon_tokens,
            evaluation_tokens=self.workload.evaluation_tokens,
            device=self.workload.device,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that defines the question, independent of layout and comments."""
        plain = dataclasses.asdict(self)
        plain["dimensions"] = [
            {"knob": d.knob.name, "kind": type(d.domain).__name__, **dataclasses.asdict(d.domain)}
            for d in self.dimensions
        ]
        for transient in ("name", "budget_seconds"):
            del plain[transient]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
