"""The model size from which a search pays: break-even and ROI from a tenth of a million parameters up.

    python benchmarks/sizes.py                              # about eight minutes; writes docs/sizes.{json,md,svg}
    python benchmarks/sizes.py --from-json docs/sizes.json  # rewrites and redraws them
    python benchmarks/sizes.py --quick                      # three sizes, small budgets, into a temporary folder

Each size is searched over system and precision knobs by the real pipeline; its worth is given for one run of
20 tokens per parameter (Hoffmann et al. 2022). Nothing is priced: cost and saving are hours of the same device, so
ROI has no currency, and the price of an hour cancels out.

Sizes this machine cannot train are modelled: rate = MFU of the largest measured size * measured peak / FLOPs per
token, with that size's speed-up and search steps. Such plans would take centuries here, but plan and search scale
alike with the machine, and ROI is their ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from autotune import api
from autotune.analysis.recommendation import Verdict
from autotune.analysis.roi import break_even_seconds, plan_device_seconds
from autotune.cli.live import progress_for
from autotune.executors.local import LocalExecutor
from autotune.quantity import Interval, Quantity, Unknown, combine
from autotune.report.quantities import Printer, duration, percent, significant, tokens
from autotune.space.configuration import Configuration
from autotune.space.document import parse_duration
from autotune.trial.codec import from_json, to_json
from autotune.workload.gpt import GPTWorkload
from autotune_model.config import DataConfig, GPTConfig, TrainingConfig
from autotune_model.memory import multiplied_parameter_count, parameter_count, predict_peak_bytes

DOCS = Path(__file__).parent.parent / "docs"
TOKENS_PER_PARAMETER = 20
MEASURED = tuple(  # layers and width growing together, heads of 32
    GPTConfig(layers=layers, heads=width // 32, width=width, sequence_length=128)
    for layers, width in ((2, 32), (2, 64), (3, 96), (4, 160), (6, 224), (7, 320))
)
MODELLED = tuple(  # GPT-2 small and shapes like those in use, with the vocabulary of GPT-2: 124 M, 1 B, 7 B, 70 B
    GPTConfig(layers=layers, heads=width // 64, width=width, sequence_length=length)
    for layers, width, length in ((12, 768, 1024), (24, 1792, 2048), (34, 4096, 2048), (86, 8192, 4096))
)
MODELLED_VOCABULARY = 50_257
TOKENIZER = "bpe:2048"
BASELINE = TrainingConfig(micro_batch=2, global_batch=4, tied_head=True)
SPACE = """
[workload]
tokenizer = "{tokenizer}"
layers = {gpt.layers}
heads = {gpt.heads}
width = {gpt.width}
sequence_length = {gpt.sequence_length}
horizon_tokens = 4_096  # eight steps: rounding shows in them, and a large model can afford them
evaluation_tokens = 2_048

[plan]
tokens = 1_000_000_000_000  # so long that no search is broken off; what it is worth to a shorter one is asked

[baseline]
micro_batch = 2
global_batch = 4
tied_head = true

[knobs]
micro_batch = [1, 2, 4]
dtype = ["fp32", "bf16_autocast"]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "foreach", "fused"]
"""
YEAR_SECONDS = 365.25 * 86_400
COLUMNS = (
    "parameters | layers x width x sequence | plan, tokens | plan, time | search | over the baseline "
    "| over the hand-tuned default | break-even, tokens | ROI | memory |"
)

LEFT, RIGHT, HEIGHT = 72.0, 736.0, 230.0  # of a panel of the figure, in pixels
DECADES = (4.6, 11.4)  # of parameters, from its left to its right
STYLE = """
:root { --paper: #fbfaf7; --ink: #1d1f24; --muted: #5b5f67; --rule: #e3dfd6; --bar: #b9cfe6; --dot: #274f80;
  --plan: #a85f12; --loss: #f3ede0; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171b; --ink: #e9e6df; --muted: #a5a8af; --rule: #33373e; --bar: #38536f; --dot: #a9cdf5;
    --plan: #e0a458; --loss: #24221c; } }
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; fill: var(--ink); }
text.title { font-weight: 600; } text.tick { fill: var(--muted); } text.plan { fill: var(--plan); stroke: none; }
text.even { fill: var(--dot); }
.paper { fill: var(--paper); } .loss { fill: var(--loss); } .grid { stroke: var(--rule); }
.unity { stroke: var(--muted); stroke-dasharray: 3 3; } .plan { stroke: var(--plan); stroke-width: 2; }
.range { stroke: var(--bar); stroke-width: 8; stroke-linecap: round; }
.measured { fill: var(--dot); stroke: var(--paper); stroke-width: 1.5; }
.modelled { fill: var(--paper); stroke: var(--dot); stroke-width: 2; }
.foretold { fill: none; stroke: var(--dot); stroke-width: 1.5; stroke-dasharray: 5 4; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a search is worth for one model size; `tokens_per_second` is the baseline's."""

    gpt: GPTConfig
    vocab_size: int
    is_measured: bool
    tokens_per_second: float
    search_seconds: float
    over_baseline: Quantity
    over_expert: Quantity

    @property
    def parameters(self) -> int:
        return parameter_count(self.gpt, self.vocab_size, tied_head=BASELINE.tied_head)

    @property
    def plan_tokens(self) -> int:
        return TOKENS_PER_PARAMETER * self.parameters

    @property
    def plan_seconds(self) -> float:
        """With the baseline."""
        return plan_device_seconds(self.plan_tokens, 1, self.tokens_per_second)

    @property
    def break_even_tokens(self) -> Quantity:
        """The plan length from which the search pays off (docs/method.md, 7)."""
        seconds = combine(lambda speedup: break_even_seconds(self.search_seconds, speedup), self.over_baseline)
        return seconds.scaled(self.tokens_per_second)

    @property
    def roi(self) -> Quantity:
        """Net saving on the plan over search cost, at this speed-up."""
        return self.over_baseline.map(lambda s: self.plan_seconds * (1 - 1 / s) / self.search_seconds - 1)

    @property
    def flops_per_token(self) -> float:
        """6N + 12*L*H*Q*T, forward and backward (PaLM, appendix B)."""
        gpt = self.gpt
        attention = 12.0 * gpt.layers * gpt.width * gpt.sequence_length
        return 6.0 * multiplied_parameter_count(gpt, self.vocab_size) + attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The searched sizes, smallest first; the peak is that of fp32 matrix products."""

    machine: str
    peak_flops: float
    sizes: tuple[Size, ...]

    @property
    def mfu(self) -> float:
        """Of the baseline at the largest size."""
        return self.sizes[-1].tokens_per_second * self.sizes[-1].flops_per_token / self.peak_flops


def measure(shapes: Sequence[GPTConfig], budget_seconds: float) -> Measurements:
    """Search every shape, in a folder deleted afterwards."""
    baseline = Configuration(BASELINE.to_mapping())
    workload = GPTWorkload(
        gpt=shapes[0],
        data=DataConfig(tokenizer=TOKENIZER),
        training=BASELINE,
        horizon_tokens=4_096,
        evaluation_tokens=2_048,
        device="auto",
    )
    with LocalExecutor() as executor:
        machine = executor.examine(workload.examination({}))
    vocabulary, sizes = machine.corpus.vocab_size, []
    for gpt in shapes:
        with tempfile.TemporaryDirectory() as folder, progress_for(sys.stderr) as progress:
            space = Path(folder) / f"width-{gpt.width}.toml"
            space.write_text(SPACE.format(gpt=gpt, tokenizer=TOKENIZER), encoding="utf-8")
            finished = api.search(space, root=folder, budget_seconds=budget_seconds, listeners=(progress,))
        found = finished.recommendation
        assert found.baseline == baseline, "BASELINE and SPACE have to say the same"
        assert isinstance(found.baseline_tokens_per_second, Interval)
        size = Size(
            gpt=gpt,
            vocab_size=vocabulary,
            is_measured=True,
            tokens_per_second=found.baseline_tokens_per_second.estimate,
            search_seconds=found.search_cost.total_seconds,
            over_baseline=found.over_baseline.speedup,
            over_expert=found.over_expert.speedup,
        )
        if found.verdict is Verdict.KEEP and found.candidate == baseline:  # the whole search cost is lost
            kept = Interval.exactly(1.0, level=0.9)
            size = replace(size, over_baseline=kept, over_expert=Unknown(reason="the baseline is kept"))
        sizes.append(size)
    words = machine.environment
    name = f"{words['device_name']}, {words['threads']} threads, torch {words['torch']}"
    return Measurements(machine=name, peak_flops=machine.peak_flops["fp32"], sizes=tuple(sizes))


def modelled(gpt: GPTConfig, known: Measurements) -> Size:
    """That shape, modelled on the largest measured size: same MFU, speed-up and search steps."""
    largest = known.sizes[-1]
    size = replace(largest, gpt=gpt, vocab_size=MODELLED_VOCABULARY, is_measured=False)
    rate = known.mfu * known.peak_flops / size.flops_per_token
    longer = gpt.sequence_length / largest.gpt.sequence_length  # a step has equally many sequences
    search_seconds = largest.search_seconds * longer * largest.tokens_per_second / rate
    return replace(size, tokens_per_second=rate, search_seconds=search_seconds)


def page(known: Measurements, sizes: Sequence[Size]) -> str:
    """The table and three sentences, in Markdown."""
    show = Printer(0.9)
    rows = [COLUMNS, " | ".join(["---"] * COLUMNS.count("|")) + " |"]
    for s in sizes:
        ratios = [show.ratio(s.over_baseline), show.ratio(s.over_expert), show.tokens(s.break_even_tokens)]
        cells = [
            tokens(s.parameters) + ("" if s.is_measured else ", modelled"),
            f"{s.gpt.layers} x {s.gpt.width} x {s.gpt.sequence_length}",
            tokens(s.plan_tokens),
            *map(_time, (s.plan_seconds, s.search_seconds)),
            *((r.text if r.is_known else r.value).replace(" tokens", "") for r in ratios),
            show.plain(s.roi).text,
            f"{significant(predict_peak_bytes(s.gpt, s.vocab_size, BASELINE) / 2**30)} GiB |",
        ]
        rows.append(" | ".join(cells))
    table = "\n".join(f"| {row}" for row in rows)
    smallest, largest, beyond = known.sizes[0], known.sizes[-1], sizes[-1]
    paying = [tokens(s.parameters) for s in known.sizes if isinstance(s.roi, Interval) and s.roi.low > 0]
    return f"""# From which size of model on a search pays

![ROI, and break-even beside the length of the plan, over the size of the model](sizes.svg)

One run of {TOKENS_PER_PARAMETER} tokens per parameter on {known.machine}.
Written by `python benchmarks/sizes.py`, which says how. Ranges are 90 % intervals; the plan's time is the
baseline's, memory what it is predicted to need.

{table}

- At {tokens(smallest.parameters)} parameters the whole plan takes {_time(smallest.plan_seconds)} and the search
  {_time(smallest.search_seconds)}; ROI: {show.plain(smallest.roi).text}.
- Measured sizes whose whole interval of ROI lies above zero: {", ".join(paying) or "none"}. ROI at
  {tokens(largest.parameters)} parameters: {show.plain(largest.roi).text}.
- A search takes as many steps at any size, and the plan grows with the model. ROI modelled at
  {tokens(beyond.parameters)} parameters: {show.plain(beyond.roi).text}. That takes the speed-up of the largest
  measured size, and the MFU of its baseline, {percent(known.mfu)}, to hold there; nothing here shows that they do.
"""


def _time(seconds: float) -> str:
    years = seconds / YEAR_SECONDS
    return duration(seconds) if years < 2 else f"{significant(years)} years"


def figure(sizes: Sequence[Size]) -> str:
    """Two panels over the number of parameters: what an hour of search saves, and break-even next to the plan."""
    returns = [(s, s.roi.map(lambda roi: roi + 1)) for s in sizes]
    upper = Panel(top=70, powers=(-2, 6), points=returns)
    lower = Panel(top=370, powers=(5, 13), points=[(s, s.break_even_tokens) for s in sizes])
    pays, (first, last) = upper.y(1.0), ((x_of(s.parameters), lower.y(s.plan_tokens)) for s in (sizes[0], sizes[-1]))
    described = "; ".join(f"{tokens(s.parameters)} parameters: ROI {Printer(0.9).plain(s.roi).text}" for s in sizes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 650" role="img" aria-label="{escape(described)}">',
        f'<style>{STYLE}</style><rect class="paper" width="760" height="650" rx="6"/>',
        _dot("measured", LEFT + 6, 20) + _text(LEFT + 18, 24, "measured, with its 90 % interval"),
        _dot("modelled", LEFT + 252, 20) + _text(LEFT + 264, 24, "modelled from the largest measured size"),
        f'<rect class="loss" x="{LEFT}" y="{pays}" width="{RIGHT - LEFT}" height="{upper.top + HEIGHT - pays}"/>',
        *upper.grid("Hours saved on the plan per hour of search (ROI + 1)"),
        _line("unity", (LEFT, pays), (RIGHT, pays)),
        _text(RIGHT - 8, pays + 17, "the search costs more than it saves", anchor="end"),
        *upper.marks(),
        *lower.grid("Tokens of the plan, and from which on the search pays"),
        _line("plan", first, last),
        _text(last[0] - 60, last[1] + 10, f"plan: {TOKENS_PER_PARAMETER} tokens per parameter", "plan", "end"),
        *lower.marks(),
        *(
            _text(x_of(s.parameters), lower.y(q.low) + 24, "break-even", "even", "middle")
            for s, q in lower.known[-2:-1]
        ),
        _text((LEFT + RIGHT) / 2, 640, "parameters", "tick", "middle"),
    ]
    return "\n".join([*parts, "</svg>\n"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot on two logarithmic axes, the vertical one between two `powers` of ten."""

    top: float
    powers: tuple[int, int]
    points: Sequence[tuple[Size, Quantity]]

    @property
    def known(self) -> list[tuple[Size, Interval]]:
        return [(size, quantity) for size, quantity in self.points if isinstance(quantity, Interval)]

    def y(self, value: float) -> float:
        """The position of a value in pixels; values off the axis go to its end."""
        low, high = self.powers
        power = min(max(math.log10(value) if value > 0 else low, low), high)
        return round(self.top + HEIGHT * (high - power) / (high - low), 1)

    def grid(self, title: str) -> list[str]:
        """The title, and a line with its label at powers of ten."""
        parts = [_text(LEFT, self.top - 12, title, "title")]
        for y_value in (10.0**power for power in range(self.powers[0], self.powers[1] + 1)):
            parts.append(_line("grid", (LEFT, self.y(y_value)), (RIGHT, self.y(y_value))))
            label = tokens(y_value) if y_value > 100 else f"{y_value:g}"
            parts.append(_text(LEFT - 8, self.y(y_value) + 4, label, "tick", "end"))
        for x_value in (10**power for power in range(5, 12)):
            parts.append(_line("grid", (x_of(x_value), self.top), (x_of(x_value), self.top + HEIGHT)))
            parts.append(_text(x_of(x_value), self.top + HEIGHT + 18, tokens(x_value), "tick", "middle"))
        return parts

    def marks(self) -> list[str]:
        """The points with their intervals; modelled ones are joined to the largest measured."""
        modelled_from = [p for p in self.known if p[0].is_measured][-1:]
        joined = modelled_from + [p for p in self.known if not p[0].is_measured]
        path = " ".join(f"{x_of(s.parameters)},{self.y(q.estimate)}" for s, q in joined)
        parts = [f'<polyline class="foretold" points="{path}"/>']
        for size, q in self.known:
            x = x_of(size.parameters)
            parts.append(_line("range", (x, self.y(q.low)), (x, self.y(q.high))))
            parts.append(_dot("measured" if size.is_measured else "modelled", x, self.y(q.estimate)))
        return parts


def x_of(parameters: float) -> float:
    """The position of a parameter count in pixels."""
    return round(LEFT + (RIGHT - LEFT) * (math.log10(parameters) - DECADES[0]) / (DECADES[1] - DECADES[0]), 1)


def _line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line class="{kind}" x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"/>'


def _dot(kind: str, x: float, y: float) -> str:
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="5"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def main() -> None:
    """Measure or read, model, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="75s", help="of the search of each size")
    parser.add_argument("--quick", action="store_true", help="three sizes, half a minute each")
    parser.add_argument("--from-json", type=Path, help="what an earlier run measured")
    options = parser.parse_args()
    if options.from_json:
        known = from_json(Measurements, json.loads(options.from_json.read_text(encoding="utf-8")))
    else:
        shapes = MEASURED[:3] if options.quick else MEASURED
        known = measure(shapes, 35.0 if options.quick else parse_duration(options.budget))
    folder = Path(tempfile.mkdtemp(prefix="sizes-")) if options.quick else DOCS
    sizes = [*known.sizes, *(modelled(gpt, known) for gpt in MODELLED)]
    (folder / "sizes.json").write_text(json.dumps(to_json(known), indent=1) + "\n", encoding="utf-8")
    (folder / "sizes.md").write_text(page(known, sizes), encoding="utf-8")
    (folder / "sizes.svg").write_text(figure(sizes), encoding="utf-8")
    print(f"{page(known, sizes)}\nWritten to {folder}.")


if __name__ == "__main__":
    main()
