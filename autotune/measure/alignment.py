"""Measures whether aligned shapes are faster on this machine: 64 against 62, 128 against 120, a padded vocabulary.

Each claim is a pair of configurations that do the same work per token. Their sessions run side by side in fresh
processes with alternating slices (docs/method.md, 3.3), once per restart. One pair is two copies of the baseline: it
gives the noise floor.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autotune.analysis.rates import as_ratio, interval_over_restarts, paired_speed
from autotune.errors import NothingFeasible
from autotune.executors.base import Executor, Patience, SessionEnded, SessionRequest
from autotune.measure.run import Run
from autotune.quantity import Interval, Quantity, Unknown
from autotune.workload.base import SpeedClaim
from autotune.workload.space import SearchSpace

_LEVEL = 0.9
_ROUNDS = 16  # per restart: docs/method.md, 3.4 asks for at least 12; the first ones are warm-up
_PATIENCE = Patience(setup_seconds=120.0, pass_seconds=300.0, step_seconds=120.0)


class Answer(StrEnum):
    """What the measurement says about a claim."""

    TRUE = "true here"
    FALSE = "false here"
    BELOW_FLOOR = "below the noise floor"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The ratio of throughputs in tokens/s, aligned over other, and the answer it gives."""

    claim: str
    ratio: Quantity
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """All findings. `floor`, a ratio minus one, is how much copies of one configuration differ."""

    floor: float | Unknown
    findings: tuple[Finding, ...]


def measure_alignment(
    executor: Executor, space: SearchSpace, claims: Sequence[SpeedClaim], *, restarts: int, tell: Callable[[str], None]
) -> Alignment:
    """Measure every claim and a pair of copies, each in `restarts` (at least 2) pairs of fresh processes.

    Raises:
        NothingFeasible: a configuration cannot be trained here.
    """
    copies = SpeedClaim(words="the baseline over a copy of it", aligned=space.baseline, other=space.baseline)
    centres: dict[str, list[float]] = {claim.words: [] for claim in (copies, *claims)}
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for restart in range(restarts):
            for claim in order.sample([copies, *claims], len(claims) + 1):
                tell(f"restart {restart + 1} of {restarts}: {claim.words}")
                executor.renew()
                centre = _pair(executor, space, claim, order, seed=restart, log_path=Path(folder) / "log.txt")
                if not isinstance(centre, Unknown):
                    centres[claim.words].append(centre)
    floor = _floor(interval_over_restarts(centres.pop(copies.words), _LEVEL))
    return Alignment(
        floor=floor,
        findings=tuple(
            _finding(words, interval_over_restarts(found, _LEVEL), floor) for words, found in centres.items()
        ),
    )


def answer_of(ratio: Interval | Unknown, floor: float | Unknown) -> Answer:
    """The answer for a log-ratio with its interval; the floor is a ratio minus one."""
    if isinstance(ratio, Unknown) or isinstance(floor, Unknown):
        return Answer.UNDECIDED
    shown = as_ratio(ratio)
    if shown.low > 1.0 and shown.estimate > 1.0 + floor:
        return Answer.TRUE
    if shown.high < 1.0 and shown.estimate < 1.0 / (1.0 + floor):
        return Answer.FALSE
    inside = 1.0 / (1.0 + floor) <= shown.estimate <= 1.0 + floor
    return Answer.BELOW_FLOOR if inside else Answer.UNDECIDED


def _pair(
    executor: Executor, space: SearchSpace, claim: SpeedClaim, order: random.Random, *, seed: int, log_path: Path
) -> float | Unknown:
    """ln of the ratio of speeds, aligned over other, from one pair of fresh processes."""
    workload = space.workload
    opened: list[Run] = []
    try:
        for config in order.sample([claim.aligned, claim.other], 2):
            session = executor.open(
                SessionRequest(
                    configuration=config,
                    seed=seed,
                    horizon_tokens=workload.horizon_tokens,
                    evaluation_tokens=workload.evaluation_tokens,
                    tokens_per_step=workload.cost(config).tokens,
                    order=workload.order(config, seed=seed, horizon_tokens=workload.horizon_tokens),
                    log_path=log_path,
                    patience=_PATIENCE,
                )
            )
            opened.append(Run(config=config, session=session, open_seconds=0.0, peak_flops=0.0))
        aligned, other = opened if opened[0].config == claim.aligned else reversed(opened)
        for number in range(_ROUNDS):
            for run in order.sample(opened, 2):
                if run.take(run.steps_per_slice, number) is None:
                    return Unknown(reason=f"{claim.words}: a session ended early")
        speed = paired_speed(aligned.slices, other.slices)
        return speed if isinstance(speed, Unknown) else speed.centre
    except SessionEnded as ended:
        raise NothingFeasible(
            f"both configurations must train on this machine; got {ended.kind} with {claim.words}: {ended.message}: "
            "use a smaller model or shorter sequences"
        ) from None
    finally:
        for run in opened:
            run.session.close()


def _floor(copies: Interval | Unknown) -> float | Unknown:
    """The larger distance of the copies' interval from 1, as a ratio minus one."""
    if isinstance(copies, Unknown):
        return copies
    ratio = as_ratio(copies)
    return max(ratio.high, 1.0 / ratio.low) - 1.0


def _finding(words: str, ratio: Interval | Unknown, floor: float | Unknown) -> Finding:
    shown = ratio if isinstance(ratio, Unknown) else as_ratio(ratio)
    return Finding(claim=words, ratio=shown, answer=answer_of(ratio, floor))
