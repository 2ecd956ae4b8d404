"""A knob that cannot be turned by itself takes along what it depends on, and no more than that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from small_space import SPACE as TEXT

from autotune.analysis.techniques import label_without, without
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.space.knobs import Choice, Dimension, KnobValue
from autotune.workload.design import one_at_a_time
from autotune.workload.space import SearchSpace, space_of


def space_from(text: str) -> SearchSpace:
    return space_of(parse_document(text, name="moves", source="moves", folder=Path()))


SPACE = space_from(
    TEXT.replace("micro_batch = 8\nglobal_batch = 16", "micro_batch = 16\nglobal_batch = 16\nclip_norm = 0.0").replace(
        "[2, 4, 8]", "[4, 8, 16]"
    )
)
ALONE = SPACE.baseline
STRATEGIES = ("none", "ddp", "fsdp", "tensor", "pipeline")
COMPANIONS: dict[str, list[KnobValue]] = {
    "micro_batch": [8, 4],
    "threads": [1, 2],
    "parallelism": [*STRATEGIES[1:]],
    "world_size": [2],
}


def turn(
    config: Configuration, name: str, value: KnobValue, companions: Mapping[str, Sequence[KnobValue]]
) -> Iterator[Configuration]:
    return SPACE.turn(config, name, value, companions)


def test_what_is_possible_by_itself_takes_nothing_along() -> None:
    assert [c.difference(ALONE) for c in turn(ALONE, "micro_batch", 4, COMPANIONS)] == [{"micro_batch": 4}]


def test_a_strategy_takes_processes_and_a_micro_batch_that_they_can_share() -> None:
    first = next(turn(ALONE, "parallelism", "ddp", COMPANIONS))
    assert first.difference(ALONE) == {"micro_batch": 8, "parallelism": "ddp", "world_size": 2}
    changes = [c.difference(ALONE) for c in turn(ALONE, "parallelism", "tensor", COMPANIONS)]
    assert changes == [{"parallelism": "tensor", "world_size": 2}], "the fewest: the micro-batch need not move"


def test_there_may_be_no_way() -> None:
    assert list(turn(ALONE, "parallelism", "ddp", {"threads": [1], "world_size": [32]})) == []


def test_a_design_tries_every_strategy() -> None:
    listed = {"micro_batch": (4, 8, 16), "parallelism": STRATEGIES, "world_size": (1, 2)}
    knobs = SPACE.workload.knobs
    dimensions = [Dimension(knob=knobs[name], domain=Choice(values=values)) for name, values in listed.items()]
    tried = list(one_at_a_time(replace(SPACE, dimensions=tuple(dimensions)), ALONE, dimensions))
    assert {(c["parallelism"], c["world_size"]) for c in tried if c["parallelism"] != "none"} == {
        (s, 2) for s in STRATEGIES[1:]
    }


def test_what_depends_on_each_other_is_left_out_together_and_once() -> None:
    shared = ALONE.with_values({"parallelism": "ddp", "world_size": 2, "micro_batch": 8, "attention": "sdpa"})
    variants = without(SPACE, shared)
    assert {label: v.difference(ALONE) for label, v in variants.items()} == {
        "without attention": {"micro_batch": 8, "parallelism": "ddp", "world_size": 2},
        "without micro_batch": {"attention": "sdpa"},
        "without parallelism": {"micro_batch": 8, "attention": "sdpa"},
    }, "two processes cannot be without their halves of the batch, and one can have them"
    assert label_without(SPACE, shared, "world_size") == "without parallelism"


_VALUES: dict[str, list[KnobValue]] = {
    "micro_batch": [4, 8, 16],
    "parallelism": list(STRATEGIES),
    "world_size": [1, 2, 4],
    "tied_head": [False, True],
    "weight_decay": [0.0, 0.1],
    "weight_decay_schedule": ["constant", "linear"],
    "clip_norm": [0.0, 1.0],
    "optimizer_in_backward": [False, True],
}


@given(st.lists(st.tuples(st.sampled_from(sorted(_VALUES)), st.integers(0, 4)), max_size=6))
def test_turning_back_leads_to_the_baseline(changes: list[tuple[str, int]]) -> None:
    config = ALONE
    for name, index in changes:
        config = next(turn(config, name, _VALUES[name][index % len(_VALUES[name])], _VALUES), config)
    for name in config.difference(ALONE):
        for back in SPACE.turned_back(config, name):
            assert back[name] == ALONE[name]
            assert set(back.difference(ALONE)) < set(config.difference(ALONE)), "nothing else has changed"


def test_the_system_part_is_valid_where_a_batch_took_the_micro_batch_along() -> None:
    space = space_from(TEXT[: TEXT.index("[knobs]")] + "[knobs]\nglobal_batch = [16, 24]\nmicro_batch = [8, 12]\n")
    found = space.turned(space.baseline, {"global_batch": 24, "micro_batch": 12})  # 12 does not divide 16
    assert space.system_part(found) == space.baseline
    kept = space.turned(space.baseline, {"global_batch": 24, "attention": "sdpa"})
    assert space.changed(space.system_part(kept)) == {"attention": "sdpa"}
