"""The built-in GPT as a workload: the only place in the driver that knows its knobs and their arithmetic."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Self

from autotune.quantity import Unknown
from autotune.space.configuration import Configuration, InvalidConfiguration
from autotune.space.document import SpaceDocument, Table, value_of
from autotune.space.knobs import Knob, KnobValue
from autotune.space.limits import Limits
from autotune.workload.base import Gate, SpeedClaim, StepCost, Values, WorkerOrder
from autotune.workload.gpt_gate import tolerances_of
from autotune.workload.gpt_knobs import KNOBS
from autotune.workload.gpt_table import GPTTable
from autotune.workload.machine import Machine
from autotune_model import config as model
from autotune_model.memory import predict_peak_bytes
from autotune_model.schedule import lr_area

PROGRAM = (sys.executable, "-P", "-m", "autotune_model")
"""The worker program. `-P` keeps the user's folder off its import path."""

_EXPERT: Mapping[str, KnobValue] = MappingProxyType(
    {"dtype": "bf16_autocast", "attention": "sdpa", "optimizer_kernel": "fused", "tied_head": True}
)
"""The hand-tuned default: what a careful engineer sets without measuring; bf16 only if it is faster on the machine."""
_BF16_GAINS = 1.1  # speed-up of bf16 over fp32 in a matrix product that counts as a gain

_BATCHES = ((64, 62), (128, 120))
_MULTIPLE = 64  # rows of the vocabulary

_ARITHMETIC = {
    "fp32": "fp32",
    "bf16_autocast": "bf16",
    "fp16_autocast": "fp16",
    "bf16_master": "bf16",
    "bf16_pure": "bf16",
}


@dataclass(frozen=True, kw_only=True)
class GPTWorkload:
    """A GPT-2-style decoder on a text. See `autotune.workload.base.Workload`."""

    gpt: model.GPTConfig
    data: model.DataConfig
    training: model.TrainingConfig
    horizon_tokens: int
    evaluation_tokens: int
    device: str

    @classmethod
    def read(cls, document: SpaceDocument) -> Self:
        """The workload described by the tables [workload] and [baseline].

        Raises:
            BadInput: a table is invalid; the message has place, rule, value and remedy.
        """
        table = document.table("workload")
        entries = table.read(GPTTable)
        with table.locating(model.InvalidConfiguration):
            gpt, data = entries.gpt(), entries.text(document.folder)
        if entries.horizon_tokens < gpt.sequence_length:
            raise table.error(
                "horizon_tokens",
                f"horizon_tokens must hold at least one sequence of {gpt.sequence_length}; "
                f"got {entries.horizon_tokens}: try {100 * gpt.sequence_length}",
            )
        return cls(
            gpt=gpt,
            data=data,
            training=_training_of(document.table("baseline")),
            horizon_tokens=entries.horizon_tokens,
            evaluation_tokens=entries.evaluation_tokens,
            device=entries.device,
        )

    @property
    def knobs(self) -> Mapping[str, Knob]:
        return KNOBS

    @cached_property
    def baseline(self) -> Configuration:
        return Configuration(self.training.to_mapping())

    @property
    def corpus(self) -> str:
        return self.data.corpus

    def with_corpus(self, corpus: str) -> GPTWorkload:
        path = corpus if corpus == "stdlib" else str(Path(corpus).expanduser().absolute())
        return dataclasses.replace(self, data=dataclasses.replace(self.data, corpus=path))

    def identity(self) -> Mapping[str, str]:
        values = self.gpt.to_mapping() | self.data.to_mapping()
        del values["corpus"], values["cache_dir"]  # the content's hash identifies the text
        values |= {name: getattr(self, name) for name in ("horizon_tokens", "evaluation_tokens", "device")}
        return {key: json.dumps(value) for key, value in values.items()}

    def check(self, configuration: Configuration) -> None:
        self._session(configuration, seed=0, horizon_tokens=self.horizon_tokens)

    def whole_numbers(self, name: str, low: int, high: int, others: Values) -> Sequence[int]:
        """A global batch is a multiple of the micro-batches of all processes."""
        batches = (*others.get("global_batch", ()), self.training.global_batch)
        if name == "micro_batch":
            return sorted({n for batch in batches for n in _divisors(int(batch)) if low <= n <= high})
        if name == "global_batch":
            steps = {int(n) for n in (*others.get("micro_batch", ()), self.training.micro_batch)}
            least = {n for n in steps if not any(n > m and n % m == 0 for m in steps)}  # others are multiples of these
            return sorted({n for step in least for n in range(math.ceil(low / step) * step, high + 1, step)})
        return range(low, high + 1)

    def expert(self, machine: Machine) -> Configuration:
        peak = machine.peak_flops
        gains = peak.get("bf16", 0.0) > _BF16_GAINS * peak.get("fp32", math.inf)
        granted = self.baseline
        for name, value in _EXPERT.items():
            if gains or name != "dtype":
                wished = granted.with_values({name: value})
                with contextlib.suppress(InvalidConfiguration):  # not valid with the rest of the baseline
                    self.check(wished)
                    granted = wished
        return granted

    def limits(self, machine: Machine, values: Values) -> Limits:
        """The limits that probing found, plus those of `values` that follow from cores, devices and vocabulary."""
        found = {knob: dict(reasons) for knob, reasons in machine.limits.items()}
        found["world_size"] = _too_many_processes(values, machine.environment)
        found["parallelism"] = found.get("parallelism", {}) | self._without_processes(values, found["world_size"])
        found["threads"] = found.get("threads", {}) | _beyond_the_cores(values.get("threads", ()), machine.environment)
        found["vocab_multiple"] = self._same_padding(values, machine.corpus.vocab_size)
        return {knob: reasons for knob, reasons in found.items() if reasons}

    def cost(self, configuration: Configuration) -> StepCost:
        training = _training(configuration)
        return StepCost(
            tokens=training.global_batch * self.gpt.sequence_length,
            pass_tokens=training.micro_batch * self.gpt.sequence_length,
            compiles=training.compile != "off",
            # the peak of TF32 and bf16 products of fp32 numbers is not measured
            arithmetic=""
            if training.dtype == "fp32" and training.matmul_precision != "highest"
            else _ARITHMETIC[training.dtype],
            processes=training.world_size,
        )

    def peak_bytes(self, configuration: Configuration, machine: Machine) -> int | Unknown:
        """On a CPU all processes share the memory; elsewhere each process has its own device."""
        training = _training(configuration)
        together = predict_peak_bytes(self.gpt, machine.corpus.vocab_size, training)
        return together if machine.environment.get("device") == "cpu" else together // training.world_size

    def gate(self, configuration: Configuration) -> Gate:
        return tolerances_of(configuration, self.baseline)

    def order(self, configuration: Configuration, *, seed: int, horizon_tokens: int) -> WorkerOrder:
        session = self._session(configuration, seed=seed, horizon_tokens=horizon_tokens)
        return WorkerOrder(program=PROGRAM, payload=session.to_mapping())

    def examination(self, values: Values) -> WorkerOrder:
        """Probes compilation only if the space compiles. The probe then pays for itself: torch caches its result,
        which shortens the first sessions.
        """
        compiles = any(v not in ("off", self.training.compile) for v in values.get("compile", ()))
        attends = "flex" in values.get("attention", ()) and self.training.attention != "flex"
        attempts = ["compile"] * compiles + ["flex"] * attends
        trial = {
            "sequence_length": self.gpt.sequence_length,
            "sequences_per_step": self.training.global_batch,
            "evaluation_tokens": self.evaluation_tokens,
        }
        return WorkerOrder(
            program=PROGRAM,
            payload={"data": self.data.to_mapping(), "device": self.device, "attempts": attempts, "trial": trial},
        )

    def schedule_area(self, configuration: Configuration, horizon_tokens: int) -> float | Unknown:
        return _schedule_area(configuration, horizon_tokens, self.horizon_tokens, self.gpt.sequence_length)

    def speed_claims(self, machine: Machine) -> tuple[SpeedClaim, ...]:
        """Powers of two as micro-batch, and a padded vocabulary unless its size is a multiple already."""
        claims = [
            SpeedClaim(words=f"micro-batch {even} over {odd}", aligned=self._batch_of(even), other=self._batch_of(odd))
            for even, odd in _BATCHES
        ]
        vocab_size = machine.corpus.vocab_size
        if vocab_size % _MULTIPLE:
            claims.append(
                SpeedClaim(
                    words=f"vocabulary padded from {vocab_size} to {_padded(vocab_size, _MULTIPLE)}",
                    aligned=self.baseline.with_values({"vocab_multiple": _MULTIPLE}),
                    other=self.baseline.with_values({"vocab_multiple": 1}),
                )
            )
        return tuple(claims)

    def _batch_of(self, sequences: int) -> Configuration:
        return self.baseline.with_values({"micro_batch": sequences, "global_batch": sequences})

    def _training(self, configuration: Configuration, horizon_tokens: int) -> model.TrainingConfig:
        """The training of a session of that length: longer ones warm up for as many tokens as `self.horizon_tokens`.

        So the trials of a ladder differ in their length alone (docs/method.md, 9.2). An inverse square root keeps its
        share: it falls from the end of its warm-up on.
        """
        return _training_of_length(configuration, horizon_tokens, self.horizon_tokens)

    def _session(self, configuration: Configuration, *, seed: int, horizon_tokens: int) -> model.SessionConfig:
        try:
            return model.SessionConfig(
                gpt=self.gpt,
                data=self.data,
                training=self._training(configuration, horizon_tokens),
                seed=seed,
                horizon_tokens=horizon_tokens,
                evaluation_tokens=self.evaluation_tokens,
                device=self.device,
            )
        except model.InvalidConfiguration as error:
            raise InvalidConfiguration(str(error)) from None

    def _without_processes(self, values: Values, sizes: Mapping[str, str]) -> dict[str, str]:
        """Reasons against every parallelism strategy if no `world_size` above 1 is left to try it with."""
        if self.training.world_size > 1 or any(
            int(v) > 1 and str(v) not in sizes for v in values.get("world_size", ())
        ):
            return {}
        reason = next(iter(sizes.values()), "") or "world_size has no value above 1 to try"
        return {str(v): reason for v in values.get("parallelism", ()) if v != self.training.parallelism}

    def _same_padding(self, values: Values, vocab_size: int) -> dict[str, str]:
        """Reasons against multiples that pad to the same number of rows as an earlier value."""
        reasons = {}
        own = self.training.vocab_multiple
        rows = {_padded(vocab_size, own)}
        for value in values.get("vocab_multiple", ()):
            padded = _padded(vocab_size, int(value))
            if padded in rows and value != own:
                reasons[str(value)] = f"another value already pads the vocabulary to {padded} rows"
            rows.add(padded)
        return reasons


@lru_cache(maxsize=10_000)
def _training(configuration: Configuration) -> model.TrainingConfig:
    """Raises InvalidConfiguration if the values are not valid together."""
    try:
        return model.TrainingConfig(**configuration)  # type: ignore[arg-type]
    except model.InvalidConfiguration as error:
        raise InvalidConfiguration(str(error)) from None


@lru_cache(maxsize=10_000)
def _training_of_length(configuration: Configuration, tokens: int, usual_tokens: int) -> model.TrainingConfig:
    """See `GPTWorkload._training`."""
    training = _training(configuration)
    if tokens <= usual_tokens or training.schedule == "inverse_sqrt":
        return training
    return dataclasses.replace(training, warmup_fraction=training.warmup_fraction * usual_tokens / tokens)


@lru_cache(maxsize=100_000)
def _schedule_area(configuration: Configuration, tokens: int, usual_tokens: int, sequence_length: int) -> float:
    """See `GPTWorkload.schedule_area`. A search asks for the same few thousand again and again."""
    training = _training_of_length(configuration, tokens, usual_tokens)
    steps = max(1, tokens // (training.global_batch * sequence_length))
    return training.learning_rate * lr_area(training.schedule, training.warmup_fraction, steps)


def _training_of(baseline: Table) -> model.TrainingConfig:
    baseline.check_keys(KNOBS)
    values = {name: value_of(baseline, KNOBS[name], value) for name, value in baseline.items()}
    with baseline.locating(model.InvalidConfiguration):
        return model.TrainingConfig(**values)


def _divisors(number: int) -> set[int]:
    small = {n for n in range(1, math.isqrt(number) + 1) if number % n == 0}
    return small | {number // n for n in small}


def _beyond_the_cores(values: Sequence[KnobValue], environment: Mapping[str, str]) -> dict[str, str]:
    cores = int(environment.get("logical_cores", "0"))
    return {str(v): f"exceeds the number of logical cores ({cores})" for v in values if cores and int(v) > cores}


def _too_many_processes(values: Values, environment: Mapping[str, str]) -> dict[str, str]:
    """Reasons against numbers of processes: a CPU's cores are divided among them; elsewhere each needs a device."""
    sizes = values.get("world_size", ())
    if environment.get("device", "cpu") == "cpu":
        return _beyond_the_cores(sizes, environment)
    devices = int(environment.get("devices", "0"))
    return {str(v): f"exceeds the number of devices ({devices})" for v in sizes if devices and int(v) > devices}


def _padded(vocab_size: int, multiple: int) -> int:
    return math.ceil(vocab_size / multiple) * multiple
