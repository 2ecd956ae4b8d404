"""What the measurements of a study depend on, by key, with its value here and now."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import autotune_model
from autotune.workload.machine import Machine
from autotune.workload.space import SearchSpace

_HARDWARE_KEYS = ("device_name", "logical_cores", "threads", "torch")  # memory only decides what fits, each time anew
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_DYNAMIC",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
    "OMP_WAIT_POLICY",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "MKL_DYNAMIC",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
DRIVER = Path(__file__).parents[1]
"""The folder of this package."""
_MEASURING = ("executors", "measure", "trial", "workload")
"""The rooms of this package whose code determines what a trial measures, beside all of the trial side."""


def identity_of(space: SearchSpace, machine: Machine) -> Mapping[str, str]:
    """What the study's measurements depend on: no value is shortened, so two that differ look different."""
    return (
        space.identity()
        | {"text": machine.corpus.content_sha256, "code": measuring_code()}
        | {f"hardware.{key}": machine.environment.get(key, "?") for key in _HARDWARE_KEYS}
        | {f"process.{key}": value for key, value in conditions().items()}
    )


def conditions() -> Mapping[str, str]:
    """The cores this process may use, and the variables by which torch chooses its threads. Workers inherit both."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    variables = {name: os.environ.get(name, "not set") for name in _THREAD_VARIABLES}
    return {"cores": ",".join(map(str, cores)) or "all"} | variables


def measuring_code() -> str:
    """SHA-256 over the sources that measure. The rest (search, analysis, report) may change during a study."""
    digest = hashlib.sha256()
    for folder in (Path(autotune_model.__path__[0]), *(DRIVER / room for room in _MEASURING)):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
