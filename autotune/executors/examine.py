"""Runs the worker program in a separate process to tokenize the text and describe the machine."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from typing import IO

from autotune.errors import BadInput, EnvironmentProblem
from autotune.executors.memory import available_bytes
from autotune.executors.process import kill_group
from autotune.trial.codec import Malformed, from_json, parse
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine
from autotune_model.protocol import Failure, InfeasibleKind

_LONGEST_ANSWER = 1 << 24  # bytes; a machine is described in a few thousand


def examine_here(order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
    """The text and the machine of this host; the tokens are cached for all sessions of the study.

    Raises:
        BadInput: the text cannot be trained on, or is not prepared within `limit_seconds`.
        EnvironmentProblem: the worker program does not run here.
    """
    started = time.monotonic()
    with (
        tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file,
        tempfile.TemporaryFile() as out,  # not pipes: a surviving child could hold them open
        tempfile.TemporaryFile() as err,
    ):
        json.dump(order.payload, file)
        file.flush()
        code = _run([*order.program, "prepare", "--order", file.name], order, out, err, limit_seconds)
        answer, said = _last_line(out), _last_line(err)
    try:
        plain = parse(answer)
        if isinstance(plain, dict) and set(plain) == {"failure"}:
            _raise(from_json(Failure, plain["failure"]))
        machine = from_json(Machine, plain)
    except Malformed as problem:
        raise EnvironmentProblem(
            f"`{' '.join(order.program)} prepare` must describe text and machine; it ended with exit code "
            f"{code} ({said.decode(errors='replace') or problem}): check that torch and autotune are installed together"
        ) from None
    return replace(
        machine,
        available_bytes=available_bytes(machine.environment),
        examined_seconds=round(time.monotonic() - started, 3),
    )


def _run(command: list[str], order: WorkerOrder, out: IO[bytes], err: IO[bytes], limit_seconds: float) -> int:
    """The exit code of a command; whatever ends the wait, the command and all it started are gone."""
    try:
        process = subprocess.Popen(
            command,
            env=os.environ | order.environment,
            stdin=subprocess.PIPE,  # never written to: the command ends when it closes
            stdout=out,
            stderr=err,
            start_new_session=True,  # Ctrl-C reaches only the driver, which then kills the group
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"a trial's program must start; got {error}: check that it is installed here, and executable"
        ) from None
    try:
        return process.wait(None if math.isinf(limit_seconds) else limit_seconds)
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"preparing the text must leave time to search; it took longer than {limit_seconds:.0f} s, the whole "
            "budget: use a larger budget or a smaller text"
        ) from None
    finally:
        kill_group(process.pid)
        process.wait()
        assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        process.stdin.close()


def _raise(failure: Failure) -> None:
    if failure.kind is InfeasibleKind.INVALID:
        raise BadInput(failure.message)
    raise EnvironmentProblem(f"examining corpus and machine failed ({failure.kind}): {failure.message}")


def _last_line(output: IO[bytes]) -> bytes:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _LONGEST_ANSWER))
    return (output.read().strip().splitlines() or [b""])[-1]
