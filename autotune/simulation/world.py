"""The truth about a simulated machine and model, and the noise on its measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autotune.space.configuration import Configuration
from autotune.trial.types import Failed, Fingerprint, Infeasible

Slowdown = Callable[[float], float]
"""For one process: the factor by which a step that begins at that time (in seconds) is slower than the truth."""


class ScriptedWorld(Protocol):
    """True values, and the noise on their measurements.

    `launch_seconds` is the time that the first session of a fresh process image takes beyond `open_seconds`.
    """

    @property
    def launch_seconds(self) -> float: ...

    def tokens_per_second(self, config: Configuration) -> float:
        """True steady-state throughput."""
        ...

    def loss(self, config: Configuration, tokens: int, seed: int) -> float:
        """True held-out loss in nats per token after a complete schedule of `tokens`; not finite if diverged."""
        ...

    def fingerprint(self, config: Configuration) -> Fingerprint:
        """What a session of `config` computes before its first step, whatever the seed."""
        ...

    def noise_scale(self, config: Configuration, tokens: int) -> float:
        """True gradient noise scale after `tokens`, in sequences (arXiv 1812.06162)."""
        ...

    def open_seconds(self, config: Configuration) -> float:
        """Seconds from the request to open until the model is built."""
        ...

    def compile_seconds(self, config: Configuration) -> float:
        """Seconds that compilation adds to the first pass."""
        ...

    def obstacle(self, config: Configuration) -> Infeasible | Failed | None:
        """Why a session of `config` fails in its first pass; None if it does not."""
        ...

    def watts(self, config: Configuration) -> float | None:
        """True mean power draw of the machine while it trains `config`; None if there is no meter."""
        ...

    def slowdown(self, seed: int, process: int) -> Slowdown:
        """The noise of the study's `process`-th session. The part common to all sessions depends on `seed` alone."""
        ...
