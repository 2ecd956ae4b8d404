"""The records of a trial. Frozen data, units in the names, nothing derived.

A trial is one *session*: one configuration trained in one worker process. It is measured in
slices; where a slice was paired with one of the warm baseline (the reference), the two carry the
same `round`, and only their ratio means anything on a noisy machine (METHOD 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autotune_model.config import TrainingConfig


class Stage(StrEnum):
    """The stages of a search, in order: the method's table of contents."""

    CALIBRATE = "calibrate"
    EXPLORE_SYSTEM = "explore_system"
    EXPLORE_LEARNING = "explore_learning"
    RACE = "race"
    CONFIRM = "confirm"
    ATTRIBUTE = "attribute"


class StageEnd(StrEnum):
    """Why a stage ended; kept with the study and told in the report."""

    DONE = "done"
    BUDGET = "its share of the budget is spent"
    EXHAUSTED = "nothing new is left to try"
    NOT_WORTH_IT = "another trial would cost more than it is expected to save"
    NOTHING_TO_DO = "nothing to do"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A few whole optimizer steps, timed inside the worker between two device synchronisations.

    `round` is the pairing round it was taken in, or -1 where it ran alone. `tokens` and `energy_joules` are
    those of one device, the share of each where several train together: device-hours are what is paid for.
    `losses` are training losses in nats per token, one per step. `energy_joules` is the difference of a
    meter's readings at both ends, None where none could be read; meters are slow, so only sums over many
    slices mean anything. `skipped_steps` made no update, for a gradient of fp16 overflowed.
    """

    round: int
    tokens: int
    seconds: float
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]
    peak_memory_bytes: int
    energy_joules: float | None = None
    skipped_steps: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Loss on the held-out documents after `tokens_seen` training tokens.

    `loss` and `stderr` are in nats per token over `tokens` tokens; `bits_per_byte` compares across
    tokenizers.
    """

    tokens_seen: int
    loss: float
    stderr: float
    tokens: int
    bits_per_byte: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a session computes before its first step, for comparing it with another one on the same seed.

    Each is a sketch: a random linear projection, so that the norm of the difference of two of them
    estimates the norm of the difference of what they stand for. `logits` of held-out windows;
    `gradient` of the first global batch, not clipped; `update`, the change of the weights by one step
    at the peak learning rate. No units but those of logits, loss per weight and weights.
    """

    logits: tuple[float, ...]
    gradient: tuple[float, ...]
    update: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNoise:
    """Squared norms of gradients at the weights after `tokens_seen` training tokens, from which their noise follows.

    `micro_square_norm` is the mean squared norm of the gradient of `micro_batch` sequences,
    `square_norm` that of the gradient of all `batch` sequences; both of a mean loss in nats per token.
    """

    tokens_seen: int
    micro_batch: int
    batch: int
    micro_square_norm: float
    square_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a session reports once it can train.

    `setup_seconds` runs from the order to open until the model stands; `compile_seconds` is what
    compilation added to the first pass (0 where nothing is compiled). `parameters` counts distinct
    ones. `flops_per_token` is 6N + 12*L*H*Q*T (PaLM, appendix B).
    """

    setup_seconds: float
    compile_seconds: float
    parameters: int
    flops_per_token: float
    tokens_per_step: int
    horizon_steps: int
    peak_memory_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)


class InfeasibleKind(StrEnum):
    """Why a configuration cannot be used here. The search learns from these."""

    OUT_OF_MEMORY = "oom"
    PREDICTED_OUT_OF_MEMORY = "predicted_oom"
    TOO_SLOW = "too_slow"
    DIVERGED = "diverged"
    COMPILE = "compile"
    INVALID = "invalid"
    NOT_EQUIVALENT = "not_equivalent"


class FailedKind(StrEnum):
    """Why a trial gave no answer although its configuration may be sound."""

    CRASH = "crash"
    HUNG = "hung"
    IMPLAUSIBLE = "implausible"  # its figures cannot be: work in no time, or more of it than the device can do


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The session did all it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The session was stopped early because it could no longer matter; its slices count."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """The configuration cannot be used here."""

    kind: InfeasibleKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The session broke."""

    kind: FailedKind
    message: str


Outcome = Completed | Pruned | Infeasible | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One session to run.

    `number` is unique in the study. `block` numbers the group of sessions that ran side by side
    with common seed and rounds. `horizon_tokens` is the length of its schedule; `label` says in a
    word what it is for ("baseline", "expert default", "without dtype").
    """

    number: int
    stage: Stage
    label: str
    config: TrainingConfig
    seed: int
    horizon_tokens: int
    block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Where a trial's wall time went, in seconds; `total_seconds` includes what is in no other row."""

    total_seconds: float
    open_seconds: float = 0.0
    compile_seconds: float = 0.0
    step_seconds: float = 0.0
    reference_step_seconds: float = 0.0
    evaluate_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A finished trial: what was asked, how it ended, everything it measured, what it cost.

    `reference_slices` are the slices of the same rounds of what it was paired with, so that it can be judged
    by itself. `evaluations` and `gradient_noise` are in order of `tokens_seen`. `ready` is empty where the
    session never got that far, `fingerprints` where none was asked for. `interleaved` is False where memory
    did not allow the two sessions side by side, and whole runs alternated instead. Times of day are ISO 8601
    in UTC.
    """

    spec: TrialSpec
    outcome: Outcome
    ready: tuple[Ready, ...]
    slices: tuple[Slice, ...]
    reference_slices: tuple[Slice, ...]
    evaluations: tuple[Evaluation, ...]
    fingerprints: tuple[Fingerprint, ...] = ()
    gradient_noise: tuple[GradientNoise, ...] = ()
    costs: Costs
    interleaved: bool
    started_at: str
    finished_at: str

    @property
    def is_complete(self) -> bool:
        return isinstance(self.outcome, Completed)


def outcome_kind(outcome: Outcome) -> str:
    """One word for an outcome: completed, pruned, or the kind of failure."""
    match outcome:
        case Completed():
            return "completed"
        case Pruned():
            return "pruned"
        case Infeasible(kind=kind):
            return kind.value
        case Failed(kind=failed):
            return failed.value


def outcome_reason(outcome: Outcome) -> str:
    """Why a trial ended as it did; empty where it simply completed."""
    match outcome:
        case Completed():
            return ""
        case Pruned(reason=reason):
            return reason
        case Infeasible(message=message) | Failed(message=message):
            return message
