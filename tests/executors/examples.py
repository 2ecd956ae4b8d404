"""What the tests of executors have in common: a tiny session, and how the stand-in is started."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil
from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig

from autotune.executors.base import Patience, SessionRequest

PATIENT = Patience(setup_seconds=30.0, pass_seconds=30.0, step_seconds=30.0)
_STAND_IN = Path(__file__).with_name("stand_in.py")


def stand_in(mood: str = "good") -> tuple[str, ...]:
    """The command of a worker in that mood."""
    return (sys.executable, "-P", "-S", str(_STAND_IN), mood)


def request(folder: Path, *, patience: Patience = PATIENT, seed: int = 0, **knobs: Any) -> SessionRequest:
    """A session of 1024 tokens a step and 10 steps."""
    config = SessionConfig(
        gpt=GPTConfig(layers=1, heads=1, width=8, sequence_length=128),
        data=DataConfig(),
        training=TrainingConfig(**knobs),
        seed=seed,
        horizon_tokens=10_300,
        evaluation_tokens=2_048,
    )
    return SessionRequest(config=config, log_path=folder / "log.txt", patience=patience)


def dies(pid: int) -> bool:
    """Whether the process ends within five seconds; that its new parent has yet to reap it does not matter."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
            psutil.Process(pid).wait(0.02)
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            continue
    return False
