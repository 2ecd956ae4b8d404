"""The footprint of a configuration: parameters, peak memory, and MFU. Pure."""

from __future__ import annotations

import statistics

from autotune.analysis.case import Case
from autotune.analysis.recommendation import Footprint
from autotune.quantity import Unknown
from autotune.space.configuration import Configuration


def footprint_of(case: Case, config: Configuration) -> Footprint | Unknown:
    """From the last complete trial of `config`; MFU (PaLM, arXiv 2204.02311, appendix B) is the median slice's."""
    seen = [r for r in case.records if r.spec.config == config and r.is_complete and r.ready and r.slices]
    if not seen:
        return Unknown(reason="it was never trained to the end of a trial")
    last = seen[-1]
    ready, peak = last.ready[0], case.facts.peak_flops.get(case.space.workload.cost(config).arithmetic, 0.0)
    rate = statistics.median(s.tokens_per_second for s in last.slices)
    return Footprint(
        parameters=ready.parameters,
        peak_memory_bytes=max(s.peak_memory_bytes for s in last.slices),
        mfu=rate * ready.flops_per_token / peak if peak else Unknown(reason="this precision has no measured peak"),
    )
