"""The worker: one training session in its own process group, controlled over a pipe."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, NoReturn

import torch

from autotune_model.config import SessionConfig
from autotune_model.device import resolve_device
from autotune_model.energy import Meter, NoMeter, open_meter
from autotune_model.failures import failure_report
from autotune_model.inspections import fingerprint, gradient_noise
from autotune_model.probe import environment
from autotune_model.processes import device_of_rank, host_store, join, visit_store
from autotune_model.protocol import (
    Advance,
    Close,
    Command,
    Evaluate,
    Event,
    MeasureFingerprint,
    MeasureGradientNoise,
    Phase,
    PhaseName,
    Ready,
    decode_command,
    send,
)
from autotune_model.ranks import Ranks, fail_as_rank
from autotune_model.tokens import open_corpus
from autotune_model.trainer import Trainer

Lines = queue.SimpleQueue[str]


def serve(session_path: Path, commands_fd: int, events: IO[str], started: float) -> NoReturn:
    """Run the session that the file describes until it is closed or fails, then end the process group.

    The process must lead its own group. `started` is its start time by `perf_counter`. It is rank 0 of the
    session, and starts the other ranks, if any (`autotune_model.ranks`).
    """
    commands = _listen(commands_fd)
    ranks = Ranks(events)
    try:
        session = SessionConfig.from_mapping(json.loads(session_path.read_text()))
        device = resolve_device(session.device)
        world_size = session.training.world_size
        if world_size > 1:
            device = device_of_rank(device, 0, world_size)
            store = host_store(world_size)
            ranks.start(session_path, world_size, store.port)
            open_corpus(session.data)  # rank 0 tokenizes, the others find it cached
            join(store, 0, world_size, device)
        trainer = _open(session, device, open_meter(device, world_size), events, started)
        while not isinstance(command := decode_command(commands.get()), Close):
            ranks.tell(command)
            send(events, _answer(trainer, command))
    except Exception as error:
        traceback.print_exc()
        ranks.fail(failure_report(error))
        _leave(1)
    ranks.end()
    _leave(0)


def serve_rank(
    session_path: Path, commands_fd: int, events: IO[str], started: float, *, rank: int, port: int
) -> NoReturn:
    """Run another rank of the session: do what rank 0 does, until rank 0 ends this process or dies.

    `events` goes to rank 0, which reads only failures.
    """
    commands = _listen(commands_fd)
    try:
        session = SessionConfig.from_mapping(json.loads(session_path.read_text()))
        world_size = session.training.world_size
        device = device_of_rank(resolve_device(session.device), rank, world_size)
        join(visit_store(port, world_size), rank, world_size, device)
        trainer = _open(session, device, NoMeter("rank 0 reads it for all"), events, started)
        while True:
            send(events, _answer(trainer, decode_command(commands.get())))
    except Exception as error:
        traceback.print_exc()
        fail_as_rank(events, failure_report(error))


def _listen(commands_fd: int) -> Lines:
    commands: Lines = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(commands_fd, commands), daemon=True).start()
    return commands


def _open(session: SessionConfig, device: torch.device, meter: Meter, events: IO[str], started: float) -> Trainer:
    """Build the session and run a warm-up pass, reporting each stage."""
    trainer = Trainer(session, open_corpus(session.data), device, meter)
    setup_seconds = time.perf_counter() - started
    send(events, Phase(name=PhaseName.BUILT))
    first_pass_seconds = trainer.first_pass()
    compile_seconds = 0.0
    if session.training.compile != "off":
        compile_seconds = max(0.0, first_pass_seconds - trainer.first_pass())
    ready = Ready(
        setup_seconds=setup_seconds,
        compile_seconds=compile_seconds,
        parameters=trainer.parameter_count,
        flops_per_token=trainer.flops_per_token,
        tokens_per_step=session.tokens_per_step,
        horizon_steps=session.horizon_steps,
        peak_memory_bytes=trainer.peak_memory(),
        environment=environment(device) | {"energy_meter": meter.name},
    )
    send(events, ready)
    return trainer


def _answer(trainer: Trainer, command: Command) -> Event:
    match command:
        case Advance(steps=steps, round=round):
            return trainer.advance(steps, round)
        case Evaluate():
            return trainer.evaluate()
        case MeasureFingerprint():
            return fingerprint(trainer)
        case MeasureGradientNoise(batches=batches):
            return gradient_noise(trainer, batches)
        case Close():
            raise ValueError("rank 0 ends a session; another rank is never told to")


def _read_commands(commands_fd: int, commands: Lines) -> None:
    """Queue the lines of commands. When the other end of the pipe closes, kill the process group at once."""
    try:
        with os.fdopen(commands_fd, encoding="utf-8") as lines:
            for line in lines:
                commands.put(line)
    finally:
        os.killpg(0, signal.SIGKILL)


def _leave(status: int) -> NoReturn:
    """End the process and its group's compile workers, skipping the clean-up of a launcher it was forked from."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    os._exit(status)
