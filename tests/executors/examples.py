"""What the tests of executors have in common: tiny sessions, and orders to start the stand-in."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil

from autotune.executors.base import Patience, SessionRequest
from autotune.simulation.workload import simulated_gpt
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.workload.base import WorkerOrder
from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig

PATIENT = Patience(setup_seconds=30.0, pass_seconds=30.0, step_seconds=30.0)
_STAND_IN = Path(__file__).with_name("stand_in.py")
_SEQUENCE_LENGTH = 128
_HORIZON_TOKENS = 10_300
_EVALUATION_TOKENS = 2_048
_SIMULATED = simulated_gpt(
    parse_document(
        f"[workload]\nlayers = 1\nheads = 1\nwidth = 8\nsequence_length = {_SEQUENCE_LENGTH}\n"
        f"horizon_tokens = {_HORIZON_TOKENS}\nevaluation_tokens = {_EVALUATION_TOKENS}\n[baseline]\n",
        name="example",
        source="example.toml",
        folder=Path("/"),
    )
)


def stand_in(mood: str = "good") -> tuple[str, ...]:
    """The program of a worker in that mood."""
    return (sys.executable, "-P", "-S", str(_STAND_IN), mood)


def configuration(**knobs: Any) -> Configuration:
    """The defaults of the built-in GPT with those knobs turned."""
    return Configuration(TrainingConfig(**knobs).to_mapping())


def request(
    folder: Path, *, mood: str = "good", patience: Patience = PATIENT, seed: int = 0, **knobs: Any
) -> SessionRequest:
    """A session of the stand-in, of 1024 tokens a step and 10 steps."""
    session = SessionConfig(
        gpt=GPTConfig(layers=1, heads=1, width=8, sequence_length=_SEQUENCE_LENGTH),
        data=DataConfig(),
        training=TrainingConfig(**knobs),
        seed=seed,
        horizon_tokens=_HORIZON_TOKENS,
        evaluation_tokens=_EVALUATION_TOKENS,
    )
    order = WorkerOrder(program=stand_in(mood), payload=session.to_mapping())
    return _request(folder, order, patience, seed, configuration(**knobs))


def scripted_request(folder: Path, *, patience: Patience = PATIENT, seed: int = 0, **knobs: Any) -> SessionRequest:
    """The same session, to be scripted."""
    config = configuration(**knobs)
    order = _SIMULATED.order(config, seed=seed, horizon_tokens=_HORIZON_TOKENS)
    return _request(folder, order, patience, seed, config)


def _request(folder: Path, order: WorkerOrder, patience: Patience, seed: int, config: Configuration) -> SessionRequest:
    return SessionRequest(
        configuration=config,
        seed=seed,
        horizon_tokens=_HORIZON_TOKENS,
        evaluation_tokens=_EVALUATION_TOKENS,
        tokens_per_step=_SIMULATED.cost(config).tokens,
        order=order,
        log_path=folder / "log.txt",
        patience=patience,
    )


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
