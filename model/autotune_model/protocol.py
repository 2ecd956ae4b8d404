"""What goes over the pipes between driver and worker: one JSON object a line, `{name: body}`. No torch here.

```
driver -> worker   {"advance": {"steps": 12, "round": 3}}   {"evaluate": {}}   {"close": {}}
                   {"fingerprint": {}}, before the first advance   {"gradient_noise": {"batches": 2}}
worker -> driver   {"phase": {"name": "started" | "built"}}   {"ready": ReadyReport}
                   {"slice": SliceReport}   {"evaluation": EvaluationReport}   {"failure": FailureReport}
                   {"fingerprint": FingerprintReport}   {"gradient_noise": GradientNoiseReport}
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, TypedDict


class ReadyReport(TypedDict):
    """The session can train. `setup_seconds` until the model stood, `compile_seconds` of the first pass."""

    setup_seconds: float
    compile_seconds: float
    parameters: int
    flops_per_token: float
    tokens_per_step: int
    horizon_steps: int
    peak_memory_bytes: int
    environment: dict[str, str]


class SliceReport(TypedDict):
    """A few whole optimizer steps between two device synchronisations; losses in nats per token.

    `tokens` and `energy_joules` are those of one device, so that all rates are: where several train together,
    its share. The latter is None where no meter can be read. `skipped_steps` made no update: a gradient overflowed.
    """

    round: int
    tokens: int
    seconds: float
    step_seconds: list[float]
    losses: list[float]
    peak_memory_bytes: int
    energy_joules: float | None
    skipped_steps: int


class EvaluationReport(TypedDict):
    """Loss on the held-out documents: mean and standard error over windows, in nats per token."""

    tokens_seen: int
    loss: float
    stderr: float
    tokens: int
    bits_per_byte: float


class FingerprintReport(TypedDict):
    """What the session computes before its first step; each is a sketch (`autotune_model.sketch`)."""

    logits: list[float]
    gradient: list[float]
    update: list[float]


class GradientNoiseReport(TypedDict):
    """Squared norms of the gradients of `micro_batch` sequences, on average, and of all `batch` sequences."""

    tokens_seen: int
    micro_batch: int
    batch: int
    micro_square_norm: float
    square_norm: float


class FailureReport(TypedDict):
    """Why the worker ends: `oom`, `diverged`, `compile`, `invalid` or `crash`, and one line."""

    kind: str
    message: str


def message_line(name: str, body: Mapping[str, Any]) -> str:
    """One message as a line of strict JSON (no NaN)."""
    return json.dumps({name: body}, allow_nan=False) + "\n"


def parse_message(line: str | bytes) -> tuple[str, dict[str, Any]]:
    """The name and body of a message."""
    ((name, body),) = json.loads(line).items()
    return name, body


def send(stream: IO[str], name: str, body: Mapping[str, Any]) -> None:
    """Write one message, now."""
    stream.write(message_line(name, body))
    stream.flush()
