"""How fast the trial engine trains, and what measuring costs.

    python benchmarks/engine.py [--quick]

For each model width: training rate, MFU against the matrix-product peak measured in the same run,
and the worker's rate over that of a bare loop (same model, optimizer and batches, no autotune). The
two processes take turns in slices of a fraction of a second, worker first in every other pair, and
only the ratio within a pair counts; both are restarted several times, because a process's luck
with memory lasts for life (docs/method.md, 3.5).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from autotune.analysis.rates import as_ratio, interval_over_restarts
from autotune.executors.base import Patience, SessionRequest
from autotune.executors.local import LocalExecutor
from autotune.quantity import Interval
from autotune.space.configuration import Configuration
from autotune.workload.base import WorkerOrder
from autotune.workload.gpt import PROGRAM
from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig
from autotune_model.data import Batches
from autotune_model.gpt import GPT
from autotune_model.optim import build_optimizer
from autotune_model.probe import peak_flops
from autotune_model.schedule import lr_factor
from autotune_model.tokens import open_corpus

SLICE_SECONDS = 0.2
LEAST_RATIO = 0.97
PATIENCE = Patience(setup_seconds=60.0, pass_seconds=60.0, step_seconds=30.0)


def session_of(width: int) -> SessionConfig:
    """Four layers on the standard library's sources; a horizon that no slice reaches."""
    return SessionConfig(
        gpt=GPTConfig(layers=4, heads=width // 32, width=width, sequence_length=128),
        data=DataConfig(tokenizer="bpe:2048"),
        training=TrainingConfig(micro_batch=8, global_batch=8, attention="sdpa", optimizer_kernel="foreach"),
        seed=0,
        horizon_tokens=10_000_000,
        device="cpu",
    )


def bare_loop(session: SessionConfig) -> None:
    """A plain training script: reads a step count per line, answers with the seconds taken."""
    training, corpus = session.training, open_corpus(session.data)
    model = GPT(session.gpt, training, vocab_size=corpus.vocab_size, seed=session.seed)
    optimizer = build_optimizer(model, training)
    batches = Batches(
        corpus,
        sequence_length=session.gpt.sequence_length,
        sequences_per_step=training.global_batch,
        seed=session.seed,
    )
    step = 0
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            progress = (step + 0.5) / session.horizon_steps
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * lr_factor("cosine", training.warmup_fraction, progress)
            tokens, targets = batches.take(step * training.global_batch, training.global_batch)
            loss = model(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
            step += 1
        print(time.perf_counter() - started, flush=True)


class BareLoop:
    """`bare_loop` in its own process."""

    def __init__(self, session_path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--bare", str(session_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, steps: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def request_of(session: SessionConfig, log_path: Path) -> SessionRequest:
    """The request for that session."""
    return SessionRequest(
        configuration=Configuration(session.training.to_mapping()),
        seed=session.seed,
        horizon_tokens=session.horizon_tokens,
        evaluation_tokens=session.evaluation_tokens,
        tokens_per_step=session.tokens_per_step,
        order=WorkerOrder(program=PROGRAM, payload=session.to_mapping()),
        log_path=log_path,
        patience=PATIENCE,
    )


def paired_slices(session: SessionConfig, folder: Path, pairs: int) -> tuple[float, list[float], list[float]]:
    """FLOPs per token, the worker's rates in tokens/s, and their ratios to the bare loop's, pair by pair."""
    session_path = folder / "session.json"
    session_path.write_text(json.dumps(session.to_mapping()))
    executor = LocalExecutor()
    bare = BareLoop(session_path)
    try:
        worker = executor.open(request_of(session, folder / "log.txt"))
        for _ in range(3):  # warm-up
            bare.seconds(2)
            step_seconds = worker.advance(2).seconds / 2
        steps = max(1, round(SLICE_SECONDS / step_seconds))
        rates, ratios = [], []
        for pair in range(pairs):
            if pair % 2:
                bare_seconds, worker_seconds = bare.seconds(steps), worker.advance(steps).seconds
            else:
                worker_seconds, bare_seconds = worker.advance(steps).seconds, bare.seconds(steps)
            rates.append(steps * session.tokens_per_step / worker_seconds)
            ratios.append(bare_seconds / worker_seconds)
        return worker.ready.flops_per_token, rates, ratios
    finally:
        bare.close()
        executor.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two widths, fewer restarts and pairs: about two minutes")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare_loop(SessionConfig.from_mapping(json.loads(arguments.bare.read_text())))
        return
    widths, restarts, pairs = ((64, 256), 4, 16) if arguments.quick else ((64, 128, 256, 384), 10, 16)
    peak = peak_flops(torch.device("cpu"))["fp32"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, GEMM peak {peak / 1e9:.0f} GFLOP/s in fp32")
    print(f"{restarts} restarts of {pairs} pairs each; worker/bare with its 90 % interval over restarts")
    print(f"{'width':>6} {'tokens/s':>10} {'MFU':>6}   worker/bare")
    everything: list[float] = []
    for width in widths:
        rates: list[float] = []
        centres: list[float] = []
        for _ in range(restarts):
            with tempfile.TemporaryDirectory() as folder:
                flops_per_token, more_rates, ratios = paired_slices(session_of(width), Path(folder), pairs)
            rates += more_rates
            centres.append(math.log(statistics.median(ratios)))
        everything += centres
        rate = statistics.median(rates)
        print(f"{width:>6} {rate:>10,.0f} {rate * flops_per_token / peak:>6.1%}   {_ratio(centres)}", flush=True)
    print(f"all widths: {_ratio(everything)}; at least {LEAST_RATIO} asked")


def _ratio(centres: list[float]) -> str:
    """The mean of log-ratios as a ratio, with its interval over restarts, since a process keeps its luck."""
    interval = interval_over_restarts(centres, 0.9)
    assert isinstance(interval, Interval)
    ratio = as_ratio(interval)
    return f"{ratio.estimate:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"


if __name__ == "__main__":
    main()
