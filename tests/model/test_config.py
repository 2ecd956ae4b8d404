"""The table of knobs and the configurations that are checked against it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_model.config import DataConfig, GPTConfig, InvalidConfiguration, SessionConfig, TrainingConfig
from autotune_model.knobs import KNOBS, Knob, KnobValue

GPT = {"layers": 2, "heads": 2, "width": 64, "sequence_length": 128}
SESSION = {"gpt": GPT, "data": {}, "training": {}, "seed": 0, "horizon_tokens": 10_000}


def legal_values(knob: Knob) -> st.SearchStrategy[KnobValue]:
    """Everything that the table allows."""
    if knob.kind is bool:
        return st.booleans()
    if knob.kind is int:
        return st.integers(min_value=int(knob.low), max_value=int(knob.high))
    if knob.kind is float:
        return st.floats(min_value=knob.low, max_value=knob.high)
    return st.sampled_from(knob.values)


@st.composite
def configs(draw: st.DrawFn) -> TrainingConfig:
    """Any configuration that can exist."""
    micro_batch = draw(st.integers(min_value=1, max_value=512))
    config = TrainingConfig(
        micro_batch=micro_batch, global_batch=micro_batch * draw(st.integers(min_value=1, max_value=64))
    )
    for name in draw(st.permutations(sorted(KNOBS))):
        with contextlib.suppress(InvalidConfiguration):  # what was drawn before excludes it
            config = config.with_knobs({name: draw(legal_values(KNOBS[name]))})
    return config


def test_every_knob_is_a_field_of_the_configuration_and_the_reverse() -> None:
    hints = get_type_hints(TrainingConfig)
    assert {f.name: hints[f.name] for f in dataclasses.fields(TrainingConfig)} == {
        name: knob.kind for name, knob in KNOBS.items()
    }


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.name)
def test_a_row_of_the_table_is_consistent(knob: Knob) -> None:
    assert knob.problem_with(getattr(TrainingConfig(), knob.name)) == ""
    is_number = knob.kind in (int, float)
    assert is_number == (math.isfinite(knob.low) and math.isfinite(knob.high) and knob.low < knob.high)
    assert (knob.kind is str) == bool(knob.values)
    assert len(set(knob.values)) == len(knob.values)
    assert all(type(value) is knob.kind for value in knob.values)


def test_the_table_cannot_be_changed_by_those_who_read_it() -> None:
    with pytest.raises(TypeError):
        KNOBS["depth"] = KNOBS["dtype"]  # type: ignore[index]


@settings(deadline=None)
@given(configs())
def test_plain_values_give_the_configuration_back(config: TrainingConfig) -> None:
    assert TrainingConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


@settings(deadline=None)
@given(configs())
def test_a_session_survives_json_whole(training: TrainingConfig) -> None:
    session = SessionConfig(
        gpt=GPTConfig(layers=3, heads=2, width=64, sequence_length=32),
        data=DataConfig(corpus="/text", text_field="body", tokenizer="bytes", holdout_fraction=0.2, cache_dir="/c"),
        training=training,
        seed=7,
        horizon_tokens=12_345,
        evaluation_tokens=321,
        device="cuda",
    )
    assert SessionConfig.from_mapping(json.loads(json.dumps(session.to_mapping()))) == session


@settings(deadline=None)
@given(configs(), configs())
def test_the_difference_is_all_that_leads_from_one_to_the_other(one: TrainingConfig, other: TrainingConfig) -> None:
    difference = other.difference(one)
    assert one.with_knobs(difference) == other
    assert all(getattr(one, name) != value for name, value in difference.items())


def test_an_int_stands_for_a_float_in_plain_values_only() -> None:
    assert type(TrainingConfig.from_mapping({"clip_norm": 2}).clip_norm) is float
    with pytest.raises(InvalidConfiguration, match=r"^clip_norm must be float; got 2: write 2\.0$"):
        TrainingConfig(clip_norm=2)


@pytest.mark.parametrize(
    ("kind", "plain", "message"),
    [
        (TrainingConfig, {"micro_batch": 0}, "micro_batch must be in [1, 65536]; got 0: choose a value in the range"),
        (TrainingConfig, {"micro_batch": True}, "TrainingConfig.micro_batch must be int; got True: write a int"),
        (TrainingConfig, {"micro_batch": 4.0}, "TrainingConfig.micro_batch must be int; got 4.0: write a int"),
        (TrainingConfig, {"clip_norm": True}, "TrainingConfig.clip_norm must be float; got True: write a float"),
        (TrainingConfig, {"tied_head": 1}, "TrainingConfig.tied_head must be bool; got 1: write a bool"),
        (
            TrainingConfig,
            {"learning_rate": "fast"},
            "TrainingConfig.learning_rate must be float; got 'fast': write a float",
        ),
        (
            TrainingConfig,
            {"attention": "flashy"},
            "attention must be one of math, sdpa, flash, efficient, cudnn, flex; got 'flashy': choose one of them",
        ),
        (
            TrainingConfig,
            {"micro_batch": 6, "global_batch": 16},
            "global_batch must be a multiple of micro_batch; got '16 with micro_batch 6': try global_batch 18",
        ),
        (
            TrainingConfig,
            {"micro_batch": 16},
            "global_batch must be a multiple of micro_batch; got '8 with micro_batch 16': try global_batch 16",
        ),
        (
            TrainingConfig,
            {"optimizer": "adafactor", "beta2": 0.9},
            "beta2 belongs to optimizer adamw or muon; got '0.9 with adafactor': leave beta2 at 0.95",
        ),
        (
            TrainingConfig,
            {"weight_decay": 0, "weight_decay_schedule": "linear"},
            (
                "weight_decay_schedule needs a weight_decay above 0; got 'linear with weight_decay 0': "
                "leave weight_decay_schedule at constant"
            ),
        ),
        (
            TrainingConfig,
            {"weight_decay": 0, "decay_groups": "all"},
            "decay_groups needs a weight_decay above 0; got 'all with weight_decay 0': leave decay_groups at matrices",
        ),
        (TrainingConfig, {"dropout": 1.0}, "dropout must be in [0, 0.9]; got 1.0: choose a value in the range"),
        (
            TrainingConfig,
            {"dropout_schedule": "rising"},
            "dropout_schedule needs a dropout above 0; got 'rising with dropout 0': leave dropout_schedule at constant",
        ),
        (
            TrainingConfig,
            {"dropout": 0.1, "dropout_schedule": "falling", "compile": "default"},
            (
                "dropout_schedule needs compile off, for a compiled graph has the rate built in; "
                "got 'falling with compile default': leave one of them out"
            ),
        ),
        (
            GPTConfig,
            GPT | {"depth": 3, "breadth": 2},
            "GPTConfig has no field of that name; got 'breadth, depth': use layers, heads, width, sequence_length",
        ),
        (GPTConfig, {"layers": 2}, "GPTConfig needs every field; got 'no heads, sequence_length, width': add it"),
        (GPTConfig, GPT | {"layers": 0}, "layers must be at least 1; got 0: use 1 or more"),
        (
            GPTConfig,
            GPT | {"heads": 3},
            "width must be a multiple of heads; got '64 with 3 heads': try width 63",
        ),
        (
            GPTConfig,
            GPT | {"heads": 128},
            "width must be a multiple of heads; got '64 with 128 heads': try width 128",
        ),
        (DataConfig, {"corpus": ""}, "corpus must name a text; got '': use a path or \"stdlib\""),
        (DataConfig, {"tokenizer": ""}, 'tokenizer must be named; got \'\': use "bpe:2048", "bytes" or "gpt2"'),
        (
            DataConfig,
            {"tokenizer": "bpe:256"},
            "tokenizer bpe:<vocabulary> needs a size between 257 and 1000000; got 'bpe:256': try \"bpe:2048\"",
        ),
        (
            DataConfig,
            {"tokenizer": "bpe:many"},
            "tokenizer bpe:<vocabulary> needs a size between 257 and 1000000; got 'bpe:many': try \"bpe:2048\"",
        ),
        (DataConfig, {"holdout_fraction": 0}, "holdout_fraction must be in (0, 0.5]; got 0.0: try 0.1"),
        (DataConfig, {"holdout_fraction": 0.6}, "holdout_fraction must be in (0, 0.5]; got 0.6: try 0.1"),
        (SessionConfig, SESSION | {"seed": -1}, "seed must not be negative; got -1: use 0 or more"),
        (SessionConfig, SESSION | {"horizon_tokens": 0}, "horizon_tokens must be positive; got 0: try 50000"),
        (SessionConfig, SESSION | {"evaluation_tokens": 0}, "evaluation_tokens must be positive; got 0: try 16384"),
        (SessionConfig, SESSION | {"device": "tpu"}, "device must be known; got 'tpu': use \"auto\""),
        (SessionConfig, SESSION | {"gpt": 3}, "SessionConfig.gpt must be a table; got 3: give its fields"),
    ],
)
def test_what_cannot_be_is_refused_with_rule_value_and_remedy(kind: Any, plain: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        kind.from_mapping(plain)
    assert str(refused.value) == message


@pytest.mark.parametrize("name", [name for name, knob in KNOBS.items() if knob.kind is float])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_not_finite_gets_in(name: str, value: float) -> None:
    with pytest.raises(InvalidConfiguration, match=rf"^{name} must be in .*; got {value}"):
        TrainingConfig.from_mapping({name: value})


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=64), st.integers(min_value=1, max_value=64), st.integers(1, 10**6))
def test_steps_and_tokens_follow_from_the_batch(micro_batch: int, passes: int, horizon_tokens: int) -> None:
    training = TrainingConfig(micro_batch=micro_batch, global_batch=micro_batch * passes)
    session = SessionConfig.from_mapping(
        SESSION | {"training": training.to_mapping(), "horizon_tokens": horizon_tokens}
    )
    assert training.accumulation_steps == passes
    assert session.tokens_per_step == micro_batch * passes * 128
    assert session.horizon_steps >= 1
    if session.horizon_steps > 1:
        assert 0 <= horizon_tokens - session.horizon_steps * session.tokens_per_step < session.tokens_per_step


@pytest.mark.parametrize(
    ("knobs", "rule"),
    [
        ({"world_size": 2}, "parallelism must be none for one process"),
        ({"parallelism": "ddp"}, "parallelism must be none for one process"),
        (
            {"parallelism": "fsdp", "world_size": 3, "micro_batch": 4},
            r"micro_batch \* world_size; .*: try global_batch 12",
        ),
        (
            {"parallelism": "pipeline", "world_size": 2, "tied_head": True},
            "tied_head True must not meet parallelism pipeline",
        ),
        (
            {"parallelism": "pipeline", "world_size": 2, "dtype": "fp16_autocast"},
            "dtype fp16_autocast must not meet parallelism pipeline",
        ),
    ],
)
def test_processes_that_cannot_train_together(knobs: dict[str, KnobValue], rule: str) -> None:
    with pytest.raises(InvalidConfiguration, match=rule):
        TrainingConfig.from_mapping(knobs)


@pytest.mark.parametrize(
    ("parallelism", "rule"),
    [("tensor", "heads must be a multiple"), ("pipeline", "layers must be at least world_size")],
)
def test_a_model_that_cannot_be_shared_out(parallelism: str, rule: str) -> None:
    training = TrainingConfig(parallelism=parallelism, world_size=7).to_mapping()
    with pytest.raises(InvalidConfiguration, match=rule):
        SessionConfig.from_mapping(SESSION | {"training": training})


@pytest.mark.parametrize(("parallelism", "passes"), [("ddp", 2), ("fsdp", 2), ("tensor", 4), ("pipeline", 4)])
def test_ranks_that_share_the_batch_need_fewer_passes(parallelism: str, passes: int) -> None:
    training = TrainingConfig(parallelism=parallelism, world_size=2, micro_batch=2, global_batch=8)
    assert training.accumulation_steps == passes
