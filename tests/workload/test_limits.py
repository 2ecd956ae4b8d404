"""Which values of its knobs a machine cannot run or cannot gain from, as the built-in GPT has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from autotune.simulation.executor import MACHINE
from autotune.space.knobs import Choice, Dimension, IntRange, KnobValue
from autotune.space.limits import Limits
from autotune.space.shipped import shipped_spaces
from autotune.workload.gpt import GPTWorkload
from autotune.workload.gpt_knobs import KNOBS
from autotune.workload.space import SearchSpace, load_space
from autotune_model.config import TrainingConfig

SPACE = load_space(shipped_spaces()["techniques"])
STRATEGIES = ("ddp", "fsdp", "tensor", "pipeline")


def limits_of(space: SearchSpace, *, vocab_size: int, environment: Mapping[str, str]) -> Limits:
    """On a machine that was found to lack nothing."""
    corpus = replace(MACHINE.corpus, vocab_size=vocab_size)
    machine = replace(MACHINE, corpus=corpus, environment=environment, limits={})
    return space.workload.limits(machine, space.values)


def with_baseline(space: SearchSpace, **knobs: KnobValue) -> SearchSpace:
    """The same space with another baseline."""
    assert isinstance(space.workload, GPTWorkload)
    training = TrainingConfig(**space.baseline.with_values(knobs))  # type: ignore[arg-type]
    return replace(space, workload=replace(space.workload, training=training))


@pytest.mark.parametrize(("vocab_size", "expected"), [(2_000, {"128": "2048"}), (2_048, {"64": "2048", "128": "2048"})])
def test_padding_that_changes_nothing_and_threads_without_cores_are_of_no_use(
    vocab_size: int, expected: dict[str, str]
) -> None:
    found = limits_of(SPACE, vocab_size=vocab_size, environment={"logical_cores": "1"})
    assert found["threads"] == {"2": "exceeds the number of logical cores (1)"}
    assert {v: reason.split()[7] for v, reason in found["vocab_multiple"].items()} == expected


@pytest.mark.parametrize(
    ("environment", "sizes"),
    [
        ({"device": "cpu", "logical_cores": "1"}, "exceeds the number of logical cores (1)"),
        ({"device": "cuda", "logical_cores": "64", "devices": "1"}, "exceeds the number of devices (1)"),
        ({"device": "cpu", "logical_cores": "2"}, ""),
        ({}, ""),
    ],
)
def test_without_processes_there_is_nothing_to_share_out(environment: dict[str, str], sizes: str) -> None:
    found = limits_of(SPACE, vocab_size=2_000, environment=environment)
    assert found.get("world_size", {}) == ({"2": sizes} if sizes else {})
    assert found.get("parallelism", {}) == (dict.fromkeys(STRATEGIES, sizes) if sizes else {})


def ranged(name: str, low: int, high: int, **baseline: KnobValue) -> SearchSpace:
    """A space with one dimension, a range of whole numbers."""
    dimension = Dimension(knob=KNOBS[name], domain=IntRange(low=low, high=high))
    return replace(with_baseline(SPACE, **baseline), dimensions=(dimension,))


@pytest.mark.parametrize(
    ("space", "kept", "gone"),
    [
        (ranged("threads", 0, 8), IntRange(low=0, high=4), ["5-8"]),
        (ranged("threads", 0, 5), IntRange(low=0, high=4), ["5"]),
        (ranged("threads", 0, 4), IntRange(low=0, high=4), []),
        (ranged("threads", 1, 8, threads=6), IntRange(low=1, high=6), ["7-8"]),
        (ranged("threads", 5, 8, threads=6), None, ["5", "7-8"]),
        (ranged("world_size", 1, 8), IntRange(low=1, high=4), ["5-8"]),
    ],
)
def test_a_range_ends_at_the_cores_or_at_the_baseline_beyond_them(
    space: SearchSpace, kept: IntRange | None, gone: list[str]
) -> None:
    limits = limits_of(space, vocab_size=2_048, environment={"logical_cores": "4", "device": "cpu"})
    left, pruned = space.pruned(limits)
    assert [d.domain for d in left.dimensions] == [kept] * (kept is not None)
    assert [p.value for p in pruned] == gone
    assert {p.reason for p in pruned} <= {"exceeds the number of logical cores (4)"}


@pytest.mark.parametrize(("cores", "gone"), [("4", []), ("1", ["ddp", "fsdp"])])
def test_strategies_stay_where_a_range_has_processes_for_them(cores: str, gone: list[str]) -> None:
    strategies = Dimension(knob=KNOBS["parallelism"], domain=Choice(values=("none", "ddp", "fsdp")))
    space = ranged("world_size", 1, 3)
    space = replace(space, dimensions=(strategies, *space.dimensions))
    limits = limits_of(space, vocab_size=2_048, environment={"logical_cores": cores, "device": "cpu"})
    assert [p.value for p in space.pruned(limits)[1] if p.knob == "parallelism"] == gone


@pytest.mark.parametrize(
    ("knobs", "baseline", "attempts"),
    [
        ({"attention": ("math", "flex"), "compile": ("off", "regional")}, {}, ("compile", "flex")),
        ({"attention": ("math", "sdpa"), "compile": ("off", "default")}, {}, ("compile",)),
        ({"attention": ("math", "flex")}, {"compile": "default"}, ("flex",)),
        (
            {"attention": ("math", "flex"), "compile": ("off", "default")},
            {"attention": "flex", "compile": "default"},
            (),
        ),
        ({"attention": ("math", "flash"), "compile": ("off",)}, {}, ()),
        ({}, {}, ()),
    ],
)
def test_compiling_is_tried_where_the_space_has_it(
    knobs: dict[str, tuple[KnobValue, ...]], baseline: dict[str, KnobValue], attempts: tuple[str, ...]
) -> None:
    dimensions = tuple(Dimension(knob=KNOBS[n], domain=Choice(values=v)) for n, v in knobs.items())
    space = replace(with_baseline(SPACE, **baseline), dimensions=dimensions)
    assert space.workload.examination(space.values).payload["attempts"] == list(attempts)


def test_what_the_machine_was_found_to_lack_is_kept_beside_what_follows() -> None:
    """Also of knobs that the space does not search: the baseline may need them."""
    found = {"attention": {"cudnn": "no viable backend"}, "threads": {"0": "found by trying"}, "compile": {}}
    machine = replace(MACHINE, environment={"logical_cores": "1"}, limits=found)
    limits = SPACE.workload.limits(machine, {"threads": (0, 2)})
    assert limits == {
        "attention": {"cudnn": "no viable backend"},
        "threads": {"0": "found by trying", "2": "exceeds the number of logical cores (1)"},
    }


def test_an_examination_names_the_text_and_the_device_of_the_workload() -> None:
    order = SPACE.workload.with_corpus("/texts").examination({})
    assert isinstance(SPACE.workload, GPTWorkload)
    assert order.payload["device"] == SPACE.workload.device
    assert order.payload["data"] == SPACE.workload.data.to_mapping() | {"corpus": "/texts"}
    assert order.payload["attempts"] == []
