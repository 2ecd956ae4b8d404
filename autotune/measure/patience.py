"""How patient the driver is with a session: in proportion to the usual pace of the baseline on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.executors.base import Patience
from autotune.trial.types import Slice
from autotune.workload.base import StepCost

_HOPELESS = 8.0  # times slower than the reference: stop the session
_LEAST_SECONDS = 1.5  # a load burst on a shared machine slows everything by a factor of six
_LEAST_SETUP_SECONDS = 20.0
_USUAL_SETUPS = 20.0  # times the usual set-up
_COMPILE_SECONDS = 240.0
_FIRST = Patience(setup_seconds=120.0, pass_seconds=300.0, step_seconds=120.0)
_FIRST_SHARE = 0.5  # of the time that is left: a baseline that hangs at once must leave time for another try


@dataclass(slots=True)
class Pace:
    """The usual pace of the baseline: the fastest seen, in tokens/s, and the seconds until its model was built."""

    tokens_per_second: float = 0.0
    setup_seconds: float = 0.0

    def see(self, taken: Slice) -> None:
        """Learn from a slice of the baseline."""
        self.tokens_per_second = max(self.tokens_per_second, taken.tokens_per_second)

    def patience(self, cost: StepCost, left_seconds: float, *, leniency: float = 1.0) -> Patience:
        """The patience with a session of steps of `cost`; before a pace is known, at most a share of the time left."""
        if not self.tokens_per_second:
            most = first_seconds(left_seconds)
            return Patience(
                setup_seconds=min(most, _FIRST.setup_seconds),
                pass_seconds=min(most, _FIRST.pass_seconds),
                step_seconds=min(most, _FIRST.step_seconds),
            )
        hopeless_rate = self.tokens_per_second / _HOPELESS
        return Patience(
            setup_seconds=max(_LEAST_SETUP_SECONDS, min(_FIRST.setup_seconds, _USUAL_SETUPS * self.setup_seconds)),
            pass_seconds=max(_LEAST_SECONDS, cost.pass_tokens / hopeless_rate) * leniency,
            step_seconds=cost.tokens / hopeless_rate * leniency,
            compile_seconds=_COMPILE_SECONDS if cost.compiles else 0.0,
            least_seconds=_LEAST_SECONDS * leniency,
        )


def first_seconds(left_seconds: float) -> float:
    """How long to wait for a first session until it has trained, if the search has so much time left."""
    return max(_LEAST_SETUP_SECONDS, _FIRST_SHARE * left_seconds)
