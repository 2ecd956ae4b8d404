"""What a configuration occupies of a machine: parameters, memory, and the share of its arithmetic (MFU). Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from autotune_model.config import TrainingConfig

from autotune.analysis.recommendation import Footprint
from autotune.quantity import Unknown
from autotune.trial.types import TrialRecord

_PEAK_OF = {
    "fp32": "fp32",
    "bf16_autocast": "bf16",
    "fp16_autocast": "fp16",
    "bf16_master": "bf16",
    "bf16_pure": "bf16",
}


def peak_of(config: TrainingConfig, peak_flops: Mapping[str, float]) -> float:
    """The device's rate in the arithmetic of `config`, in FLOP/s; 0 where it was not measured, as for TF32."""
    if config.dtype == "fp32" and config.matmul_precision != "highest":
        return 0.0
    return peak_flops.get(_PEAK_OF[config.dtype], 0.0)


def footprint_of(
    records: Sequence[TrialRecord], config: TrainingConfig, peak_flops: Mapping[str, float]
) -> Footprint | Unknown:
    """Of the last complete trial of `config`; its MFU (PaLM, arXiv 2204.02311, appendix B) is the median slice's."""
    seen = [r for r in records if r.spec.config == config and r.is_complete and r.ready and r.slices]
    if not seen:
        return Unknown(reason="it was never trained to the end of a trial")
    last = seen[-1]
    ready, peak = last.ready[0], peak_of(config, peak_flops)
    rate = statistics.median(s.tokens_per_second for s in last.slices)
    return Footprint(
        parameters=ready.parameters,
        peak_memory_bytes=max(s.peak_memory_bytes for s in last.slices),
        mfu=rate * ready.flops_per_token / peak if peak else Unknown(reason="the peak of its arithmetic is not known"),
    )
