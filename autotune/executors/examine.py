"""Runs the worker program in a separate process to tokenize the text and describe the machine."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import replace

from autotune.errors import BadInput, EnvironmentProblem
from autotune.executors.memory import available_bytes
from autotune.trial.codec import Malformed, from_json, parse
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine
from autotune_model.protocol import Failure, InfeasibleKind


def examine_here(order: WorkerOrder) -> Machine:
    """The text and the machine of this host; the tokens are cached for all sessions of the study.

    Raises:
        BadInput: the text cannot be trained on.
        EnvironmentProblem: the worker program does not run here.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(order.payload, file)
        file.flush()
        try:
            done = subprocess.run(
                [*order.program, "prepare", "--order", file.name],
                env=os.environ | order.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                start_new_session=True,  # Ctrl-C reaches only the driver; run() then kills the child
                check=False,
            )
        except OSError as error:
            raise EnvironmentProblem(
                f"a trial's program must start; got {error}: check that it is installed here, and executable"
            ) from None
    try:
        plain = parse(_last_line(done.stdout))
        if isinstance(plain, dict) and set(plain) == {"failure"}:
            _raise(from_json(Failure, plain["failure"]))
        machine = from_json(Machine, plain)
    except Malformed as problem:
        said = _last_line(done.stderr).decode(errors="replace") or str(problem)
        raise EnvironmentProblem(
            f"`{' '.join(order.program)} prepare` must describe text and machine; it ended with exit code "
            f"{done.returncode} ({said}): check that torch and autotune are installed together"
        ) from None
    return replace(machine, available_bytes=available_bytes(machine.environment))


def _raise(failure: Failure) -> None:
    if failure.kind is InfeasibleKind.INVALID:
        raise BadInput(failure.message)
    raise EnvironmentProblem(f"examining corpus and machine failed ({failure.kind}): {failure.message}")


def _last_line(output: bytes) -> bytes:
    return (output.strip().splitlines() or [b""])[-1]
