"""Predicted vs. measured peak memory of training sessions, from one million parameters to GPT-2 small.

    python benchmarks/memory.py            # about three minutes
    python benchmarks/memory.py --quick    # the two smallest shapes

Each session takes two optimizer steps in a process of its own on the CPU. A prediction may be
off by at most 15 %, including the worker's own memory; exits with 1 if one is worse.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from autotune.executors.base import Patience, SessionRequest
from autotune.executors.local import LocalExecutor
from autotune.quantity import Unknown
from autotune.workload.gpt import GPTWorkload
from autotune_model.config import DataConfig, GPTConfig, TrainingConfig
from autotune_model.memory import parameter_count

WORST_ERROR = 0.15
PATIENCE = Patience(setup_seconds=120.0, pass_seconds=300.0, step_seconds=300.0)

SHAPES = (
    GPTConfig(layers=4, heads=4, width=128, sequence_length=128),
    GPTConfig(layers=6, heads=6, width=384, sequence_length=128),
    GPTConfig(layers=8, heads=8, width=512, sequence_length=256),
    GPTConfig(layers=12, heads=12, width=768, sequence_length=256),
)
VOCABULARIES = (2_048, 4_096, 16_384, 32_768)
SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"micro_batch": 4, "attention": "sdpa", "optimizer_kernel": "fused"},
    {"dtype": "bf16_autocast", "attention": "sdpa", "optimizer_kernel": "fused", "tied_head": True},
    {"dtype": "bf16_master", "attention": "sdpa", "optimizer_kernel": "fused"},
    {"dtype": "bf16_pure", "attention": "sdpa", "optimizer_kernel": "foreach"},
    {"checkpointing": True, "attention": "sdpa", "optimizer_kernel": "fused"},
    {"loss_kernel": "chunked", "attention": "sdpa", "optimizer_kernel": "fused"},
    {"optimizer_in_backward": True, "clip_norm": 0.0, "attention": "sdpa", "optimizer_kernel": "fused"},
    {"parallelism": "ddp", "world_size": 2, "micro_batch": 4, "attention": "sdpa", "optimizer_kernel": "fused"},
    {"parallelism": "fsdp", "world_size": 2, "micro_batch": 4, "attention": "sdpa", "optimizer_kernel": "fused"},
    {"parallelism": "tensor", "world_size": 2, "attention": "sdpa", "optimizer_kernel": "fused"},
    {"parallelism": "pipeline", "world_size": 2, "micro_batch": 2, "attention": "sdpa", "optimizer_kernel": "fused"},
)


def measured_bytes(executor: LocalExecutor, workload: GPTWorkload, log_path: Path) -> int:
    """Peak resident bytes of a worker after two steps of the baseline."""
    config, horizon_tokens = workload.baseline, workload.horizon_tokens
    request = SessionRequest(
        configuration=config,
        seed=0,
        horizon_tokens=horizon_tokens,
        evaluation_tokens=workload.evaluation_tokens,
        tokens_per_step=workload.cost(config).tokens,
        order=workload.order(config, seed=0, horizon_tokens=horizon_tokens),
        log_path=log_path,
        patience=PATIENCE,
    )
    opened = executor.open(request)
    try:
        return opened.advance(2).peak_memory_bytes
    finally:
        opened.close()


def main() -> int:
    """Print the table; 1 if a prediction is too far off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two smallest shapes")
    options = parser.parse_args()
    cases = list(zip(SHAPES, VOCABULARIES, strict=True))[: 2 if options.quick else None]
    errors = []
    print("parameters  setting                                                   predicted  measured   error")
    with tempfile.TemporaryDirectory() as folder, LocalExecutor() as executor:
        for gpt, vocabulary in cases:
            plain = GPTWorkload(
                gpt=gpt,
                data=DataConfig(tokenizer=f"bpe:{vocabulary}"),
                training=TrainingConfig(),
                horizon_tokens=100_000,
                evaluation_tokens=16_384,
                device="cpu",
            )
            machine = executor.examine(plain.examination({}))
            for setting in SETTINGS:
                training = TrainingConfig.from_mapping({"micro_batch": 8, "global_batch": 8, **setting})
                workload = replace(plain, training=training)
                measured = measured_bytes(executor, workload, Path(folder) / "log.txt")
                predicted = workload.peak_bytes(workload.baseline, machine)
                assert not isinstance(predicted, Unknown)
                errors.append(predicted / measured - 1.0)
                parameters = parameter_count(gpt, machine.corpus.vocab_size, tied_head=training.tied_head)
                words = " ".join(f"{name}={value}" for name, value in setting.items()) or "plain"
                print(
                    f"{parameters / 1e6:8.1f} M  {words:58.58}{predicted / 2**30:6.2f} GiB {measured / 2**30:5.2f} GiB "
                    f"{errors[-1]:+7.1%}",
                    flush=True,
                )
    worst = max(errors, key=abs)
    print(f"{len(errors)} sessions, worst error {worst:+.1%}, at most {WORST_ERROR:.0%} asked")
    return 0 if abs(worst) <= WORST_ERROR else 1


if __name__ == "__main__":
    sys.exit(main())
