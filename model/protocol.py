"""What goes over the pipes between driver and worker: one JSON object a line, `{name: body}`. No torch here.

```
driver -> worker   {"advance": {"steps": 12, "round": 3}}   {"evaluate": {}}   {"close": {}}
worker -> driver   {"phase": {"name": "started" | "built"}}   {"ready": ReadyReport}
                   {"slice": SliceReport}   {"evaluation": EvaluationReport}   {"failure": FailureReport}
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
    """A few whole optimizer steps between two device synchronisations; losses in nats per token."""

    round: int
    tokens: int
    seconds: float
    step_seconds: list[float]
    losses: list[float]
    peak_memory_bytes: int


class EvaluationReport(TypedDict):
    """Loss on the held-out documents: mean and standard error over windows, in nats per token."""

    tokens_seen: int
    loss: float
    stderr: float
    tokens: int
    bits_per_byte: float


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
