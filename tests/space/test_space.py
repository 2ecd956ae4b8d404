"""The question a study asks: membership of domains, and what of it a measurement depends on."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.space.document import parse_document
from autotune.space.knobs import Choice, Domain, FloatRange, IntRange, KnobClass, KnobValue, contains
from autotune.workload.space import SearchSpace, space_of
from autotune_model.config import SessionConfig

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
    return space_of(parse_document(text, name=name, source="mine.toml", folder=Path("/folder")))


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
def test_layout_comments_and_order_leave_the_identity_alone(order: random.Random, roomy: bool) -> None:
    tables = {name: order.sample(TABLES[name], k=len(TABLES[name])) for name in order.sample(list(TABLES), k=4)}
    text = written(tables)
    if roomy:
        text = text.replace(" = ", "  =\t").replace("\n", "  # layers = 99\n\n")
    assert read(text).identity() == SPACE.identity()


NO_MEASUREMENT_DEPENDS_ON = [
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
]


@pytest.mark.parametrize(("old", "new"), NO_MEASUREMENT_DEPENDS_ON)
def test_the_plan_is_read_and_is_no_part_of_the_identity(old: str, new: str) -> None:
    changed = read(written(TABLES).replace(old, new, 1))
    assert changed.plan != SPACE.plan
    assert changed.identity() == SPACE.identity()


def test_name_folder_and_budget_are_no_part_of_the_identity() -> None:
    text = written(TABLES) + '\n[search]\nbudget = "3h"'
    assert read(text, name="another").identity() == SPACE.identity()
    elsewhere = parse_document(text, name="mine", source="mine.toml", folder=Path("/elsewhere"))
    assert space_of(elsewhere).identity() == SPACE.identity()


MEASURED = [
    ('"text"', '"body"', {"workload.text_field"}),
    ('"bytes"', '"bpe:300"', {"workload.tokenizer"}),
    ("holdout_fraction = 0.1", "holdout_fraction = 0.2", {"workload.holdout_fraction"}),
    ("layers = 2", "layers = 3", {"workload.layers"}),
    ("heads = 2", "heads = 4", {"workload.heads"}),
    ("width = 64", "width = 66", {"workload.width"}),
    ("sequence_length = 128", "sequence_length = 64", {"workload.sequence_length"}),
    ("horizon_tokens = 40_000", "horizon_tokens = 40_001", {"workload.horizon_tokens"}),
    ("evaluation_tokens = 8_192", "evaluation_tokens = 8_193", {"workload.evaluation_tokens"}),
    ('"cpu"', '"auto"', {"workload.device"}),
    ("micro_batch = 4", "micro_batch = 2", {"baseline.micro_batch"}),
    ("learning_rate = 1e-3", "learning_rate = 2e-3", {"baseline.learning_rate"}),
    ("weight_decay = 0.1", "weight_decay = 0.2", {"baseline.weight_decay"}),
    ("[2, 4]", "[2, 4, 8]", {"knobs.micro_batch"}),
    ("[2, 4]", "[4, 2]", {"knobs.micro_batch"}),
    ("[2, 4]", "{ low = 2, high = 4 }", {"knobs.micro_batch"}),
    ("low = 3e-4", "low = 2e-4", {"knobs.learning_rate"}),
    ("high = 1e-2", "high = 2e-2", {"knobs.learning_rate"}),
    ("log = true", "log = false", {"knobs.learning_rate"}),
    ("threads = [0, 1]", "attention = ['math', 'sdpa']", {"knobs.threads", "knobs.attention"}),
]


@pytest.mark.parametrize(("old", "new", "keys"), MEASURED)
def test_what_a_measurement_depends_on_is_told_by_the_key_of_the_file(old: str, new: str, keys: set[str]) -> None:
    changed = read(written(TABLES).replace(old, new, 1)).identity()
    known = SPACE.identity()
    assert {key for key in known | changed if known.get(key) != changed.get(key)} == keys


def test_a_session_carries_everything_of_workload_and_trial() -> None:
    text = written(TABLES)
    for old, new in (
        ('"text.txt"', '"/text"'),
        ('"text"', '"body"'),
        ("evaluation_tokens = 8_192", "evaluation_tokens = 777"),
        ("layers = 2", "layers = 3"),
        ('"cpu"', '"cuda"'),
    ):
        text = text.replace(old, new, 1)
    space = read(text)
    order = space.workload.order(
        space.turned(space.baseline, {"dtype": "bf16_autocast", "threads": 3}), seed=5, horizon_tokens=9_999
    )
    session = SessionConfig.from_mapping(order.payload)
    assert (session.seed, session.horizon_tokens, session.evaluation_tokens, session.device) == (5, 9_999, 777, "cuda")
    assert (session.data.corpus, session.data.text_field, session.data.tokenizer) == ("/text", "body", "bytes")
    assert (session.gpt.layers, session.gpt.heads, session.gpt.width, session.gpt.sequence_length) == (3, 2, 64, 128)
    training = session.training.to_mapping()
    assert {name: value for name, value in training.items() if value != space.baseline[name]} == {
        "dtype": "bf16_autocast",
        "threads": 3,
    }


def test_dimensions_are_told_apart_by_what_they_change() -> None:
    def names(*classes: KnobClass) -> list[str]:
        return [d.knob.name for d in SPACE.of_class(*classes)]

    assert names(KnobClass.LEARNING) == ["learning_rate", "schedule"]
    assert names(KnobClass.SYSTEM, KnobClass.NUMERICS) == ["micro_batch", "threads", "dtype"]
    assert names() == []
