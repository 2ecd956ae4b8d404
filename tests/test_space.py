"""The question a study asks: membership of domains, and what makes two questions the same."""

from __future__ import annotations

import math
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
from autotune_model.config import DataConfig, GPTConfig, SessionConfig, TrainingConfig
from autotune_model.knobs import KnobClass, KnobValue
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.space.load import parse_space
from autotune.space.space import Choice, Domain, FloatRange, IntRange, SearchSpace, contains

TABLES = {
    "workload": [
        'corpus = "text.txt"',
        'text_field = "text"',
        'tokenizer = "bytes"',
        "holdout_fraction = 0.1",
        "layers = 2",
        "heads = 2",
        "width = 64",
        "sequence_length = 128",
        "horizon_tokens = 40_000",
        "evaluation_tokens = 8_192",
        'device = "cpu"',
    ],
    "plan": [
        "tokens = 20_000_000",
        "runs = 3",
        "devices = 1",
        "device_hour_usd = 0.1",
        "engineer_hour_usd = 10.0",
        "owned = true",
        "kwh_usd = 0.3",
        "pue = 1.1",
        "device_watts = 65.0",
    ],
    "baseline": ["micro_batch = 4", "global_batch = 8", "learning_rate = 1e-3", "weight_decay = 0.1"],
    "knobs": [
        "micro_batch = [2, 4]",
        "learning_rate = { low = 3e-4, high = 1e-2, log = true }",
        'schedule = ["linear", "cosine"]',
        'dtype = ["fp32", "bf16_autocast"]',
        "threads = [0, 1]",
    ],
}


def read(text: str, *, name: str = "mine") -> SearchSpace:
    return parse_space(text, name=name, source="mine.toml", folder=Path("/folder"))


def written(tables: dict[str, list[str]]) -> str:
    return "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in tables.items())


SPACE = read(written(TABLES))


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Choice(values=(0, 2)), [0, 2], [1, 0.0, 2.0, False, "0", "2"]),
        (Choice(values=(False, True)), [False, True], [0, 1, "True"]),
        (Choice(values=(0.0, 1.0)), [0.0, 1.0], [0, 1, False, 0.5, math.nan]),
        (Choice(values=("fp32",)), ["fp32"], ["FP32", "", 32]),
        (IntRange(low=0, high=8), [0, 1, 8], [-1, 9, 1.0, True, False, "1", math.nan]),
        (FloatRange(low=0.0, high=1.0), [0.0, 0.5, 1.0], [-0.1, 1.1, 0, 1, True, math.nan, math.inf, "0.5"]),
    ],
)
def test_a_domain_contains_its_values_by_type(
    domain: Domain, inside: list[KnobValue], outside: list[KnobValue]
) -> None:
    assert all(contains(domain, value) for value in inside)
    assert not any(contains(domain, value) for value in outside)


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_layout_comments_and_order_leave_the_fingerprint_alone(order: random.Random, roomy: bool) -> None:
    tables = {name: order.sample(TABLES[name], k=len(TABLES[name])) for name in order.sample(list(TABLES), k=4)}
    text = written(tables)
    if roomy:
        text = text.replace(" = ", "  =\t").replace("\n", "  # layers = 99\n\n")
    assert read(text).fingerprint == SPACE.fingerprint


def test_name_and_budget_are_no_part_of_the_question() -> None:
    text = written(TABLES) + '\n[search]\nbudget = "3h"'
    assert read(text, name="another").fingerprint == SPACE.fingerprint


OTHER_VALUES = [
    ('"text.txt"', '"other.txt"'),
    ('"text"', '"body"'),
    ('"bytes"', '"bpe:300"'),
    ("holdout_fraction = 0.1", "holdout_fraction = 0.2"),
    ("layers = 2", "layers = 3"),
    ("heads = 2", "heads = 4"),
    ("width = 64", "width = 66"),
    ("sequence_length = 128", "sequence_length = 64"),
    ("horizon_tokens = 40_000", "horizon_tokens = 40_001"),
    ("evaluation_tokens = 8_192", "evaluation_tokens = 8_193"),
    ('"cpu"', '"auto"'),
    ("tokens = 20_000_000", "tokens = 20_000_001"),
    ("tokens = 20_000_000", "target_loss = 3.0"),
    ("runs = 3", "runs = 4"),
    ("devices = 1", "devices = 2"),
    ("device_hour_usd = 0.1", "device_hour_usd = 0.2"),
    ("engineer_hour_usd = 10.0", "engineer_hour_usd = 11.0"),
    ("owned = true", "owned = false"),
    ("kwh_usd = 0.3", "kwh_usd = 0.4"),
    ("pue = 1.1", "pue = 1.2"),
    ("device_watts = 65.0", "device_watts = 66.0"),
    ("micro_batch = 4", "micro_batch = 2"),
    ("learning_rate = 1e-3", "learning_rate = 2e-3"),
    ("weight_decay = 0.1", "weight_decay = 0.2"),
    ("[2, 4]", "[2, 4, 8]"),
    ("[2, 4]", "[4, 2]"),
    ("[2, 4]", "{ low = 2, high = 4 }"),
    ("[2, 4]", "{ low = 2, high = 4, log = true }"),
    ("low = 3e-4", "low = 2e-4"),
    ("high = 1e-2", "high = 2e-2"),
    ("log = true", "log = false"),
    ("threads = [0, 1]", "attention = ['math', 'sdpa']"),
]


def test_every_value_is_part_of_the_question() -> None:
    text = written(TABLES)
    prints = {SPACE.fingerprint}
    for old, new in OTHER_VALUES:
        changed = read(text.replace(old, new, 1)).fingerprint
        assert changed not in prints, (old, new)
        prints.add(changed)


def test_a_session_carries_everything_of_workload_and_trial() -> None:
    data = DataConfig(corpus="/text", text_field="body", tokenizer="bytes", holdout_fraction=0.2)
    gpt = GPTConfig(layers=3, heads=2, width=32, sequence_length=64)
    workload = replace(SPACE.workload, gpt=gpt, data=data, evaluation_tokens=777, device="cuda")
    config = TrainingConfig(micro_batch=2, global_batch=6, dtype="bf16_autocast", threads=3)
    session = replace(SPACE, workload=workload).session(config, seed=5, horizon_tokens=9_999)
    assert session == SessionConfig(
        gpt=gpt,
        data=data,
        training=config,
        seed=5,
        horizon_tokens=9_999,
        evaluation_tokens=777,
        device="cuda",
    )
    plain = SessionConfig(gpt=SPACE.workload.gpt, data=DataConfig(), training=SPACE.baseline, seed=0, horizon_tokens=1)
    assert all(getattr(session, f.name) != getattr(plain, f.name) for f in fields(SessionConfig)), "nothing by default"


def test_dimensions_are_told_apart_by_what_they_change() -> None:
    def names(*classes: KnobClass) -> list[str]:
        return [d.knob.name for d in SPACE.of_class(*classes)]

    assert names(KnobClass.LEARNING) == ["learning_rate", "schedule"]
    assert names(KnobClass.SYSTEM, KnobClass.NUMERICS) == ["micro_batch", "threads", "dtype"]
    assert names() == []
