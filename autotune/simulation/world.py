"""What is true of a simulated machine and model, and how what is measured there is disturbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autotune.space.configuration import Configuration
from autotune.trial.types import Failed, Fingerprint, Infeasible

Slowdown = Callable[[float], float]
"""Of one process: by how much a step is slower than the truth, if it begins at that moment (in seconds)."""


class ScriptedWorld(Protocol):
    """What is true, and how it is disturbed.

    `launch_seconds` is what the first session of a
    fresh process image costs beyond `open_seconds`.
    """

    @property
    def launch_seconds(self) -> float: ...

    def tokens_per_second(self, config: Configuration) -> float:
        """True steady-state throughput."""
        ...

    def loss(self, config: Configuration, tokens: int, seed: int) -> float:
        """True held-out loss in nats per token of a complete schedule of `tokens`; not finite: diverged."""
        ...

    def fingerprint(self, config: Configuration) -> Fingerprint:
        """What a session of `config` computes before its first step, whatever the seed."""
        ...

    def noise_scale(self, config: Configuration, tokens: int) -> float:
        """True gradient noise scale after `tokens`, in sequences (arXiv 1812.06162)."""
        ...

    def open_seconds(self, config: Configuration) -> float:
        """From the order to open until the model stands."""
        ...

    def compile_seconds(self, config: Configuration) -> float:
        """What compilation adds to the first pass."""
        ...

    def obstacle(self, config: Configuration) -> Infeasible | Failed | None:
        """Why a session of `config` ends in its first pass, if it does."""
        ...

    def watts(self, config: Configuration) -> float | None:
        """True mean draw of the machine while it trains `config`; None where no meter can be read."""
        ...

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """The disturbance of the study's `process`-th session; what is common to all follows from `seed` alone."""
        ...
