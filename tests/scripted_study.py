"""Scripted studies: the real pipeline on an imagined machine, in simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autotune.executors.scripted import ExampleWorld, ScriptedExecutor, ScriptedWorld, SimulatedClock
from autotune.hardware.prepare import Corpus, Machine
from autotune.measure import Lab
from autotune.progress import Event, Listener
from autotune.recommendation import Recommendation
from autotune.search import run_search
from autotune.study import FORMAT, Fingerprint, Study, StudyInfo

SPACE = """
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 800_000

[plan]
tokens = 80_000_000
runs = 10
device_hour_usd = 0.1

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
micro_batch = [4, 8, 16]
dtype = ["fp32", "bf16_autocast", "fp16_autocast"]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
schedule = ["constant", "linear", "cosine", "wsd"]
tied_head = [false, true]
"""

MACHINE = Machine(
    corpus=Corpus(
        train_tokens=100_000_000,
        holdout_tokens=1_000_000,
        documents=1_000,
        bytes_per_token=3.0,
        vocab_size=2_048,
        content_sha256="0" * 64,
    ),
    environment={"device": "cpu", "device_name": "scripted"},
    peak_flops={"fp32": 1e11, "bf16": 2e11, "fp16": 1e9},
)


@dataclass
class ScriptedStudy:
    """A study on an imagined machine; `sit` runs it, again and again if need be."""

    folder: Path
    text: str = SPACE
    world: ScriptedWorld = field(default_factory=ExampleWorld)
    machine: Machine = MACHINE
    budget_seconds: float = 2_500.0
    capacity_bytes: int = 24 << 30
    seed: int = 0
    events: list[Event] = field(default_factory=list)

    def open(self) -> Study:
        """The study, made where there is none."""
        if (self.folder / "study.json").exists():
            return Study.open(self.folder)
        info = StudyInfo(
            format=FORMAT,
            name=self.folder.name,
            created_at="2026-01-01T00:00:00+00:00",
            space_name="scripted",
            corpus="stdlib",
            budget_seconds=self.budget_seconds,
            fingerprint=Fingerprint(space="s", data="d", code="c", hardware="h"),
        )
        return Study.create(self.folder, info, self.text)

    def lab(self, study: Study, listeners: Sequence[Listener] = ()) -> Lab:
        """A bench on the imagined machine; its clock starts anew, as a process's does."""
        clock = SimulatedClock()
        return Lab(
            study=study,
            executor=ScriptedExecutor(self.world, clock, seed=self.seed),
            machine=self.machine,
            capacity_bytes=self.capacity_bytes,
            clock=clock,
            listeners=[self.events.append, *listeners],
            seed=self.seed,
        )

    def sit(self, listeners: Sequence[Listener] = ()) -> Recommendation:
        """One sitting of the search, to its end or until a listener raises."""
        with self.open() as study:
            return run_search(self.lab(study, listeners))
