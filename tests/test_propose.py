"""What is tried next, and what the database says of it afterwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from small_space import SPACE

from autotune.search.database import database, mirror
from autotune.search.expert import expert_within
from autotune.search.propose import Proposal, Proposer, grid_size, impossible_combinations, restore
from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.space.knobs import Choice, Dimension, Domain, FloatRange, IntRange, Knob, KnobValue, contains
from autotune.trial.types import (
    Completed,
    Costs,
    Failed,
    FailedKind,
    Infeasible,
    InfeasibleKind,
    Outcome,
    Pruned,
    Slice,
    Stage,
    StageEnd,
    TrialRecord,
    TrialSpec,
)
from autotune.workload.design import one_at_a_time
from autotune.workload.gpt import GPTWorkload
from autotune.workload.gpt_knobs import KNOBS
from autotune.workload.space import SearchSpace, space_of
from autotune_model.config import TrainingConfig

SPACE_READ = space_of(parse_document(SPACE, name="space", source="space.toml", folder=Path("/")))
DEFAULTS = Configuration(TrainingConfig().to_mapping())
BASE = DEFAULTS.with_values({"micro_batch": 4, "global_batch": 8})
STAGE = Stage.EXPLORE_SYSTEM


def dimension(name: str, domain: Domain | Sequence[KnobValue]) -> Dimension:
    values = Choice(values=tuple(domain)) if isinstance(domain, Sequence) else domain
    return Dimension(knob=KNOBS[name], domain=values)


def space_with(baseline: Configuration, dimensions: Sequence[Dimension]) -> SearchSpace:
    """The small space with another baseline and other dimensions."""
    assert isinstance(SPACE_READ.workload, GPTWorkload)
    training = TrainingConfig(**baseline)  # type: ignore[arg-type]
    workload = replace(SPACE_READ.workload, training=training)
    return replace(SPACE_READ, workload=workload, dimensions=tuple(dimensions))


GRID = (dimension("micro_batch", [2, 4, 3]), dimension("attention", ["math", "sdpa"]))  # 3 does not divide 8
POSSIBLE = {
    BASE.with_values({"micro_batch": micro_batch, "attention": attention})
    for micro_batch in (2, 4)
    for attention in ("math", "sdpa")
}
RATE = dimension("learning_rate", FloatRange(low=3e-4, high=1e-2, log=True))


@contextmanager
def proposing(
    folder: Path,
    dimensions: Sequence[Dimension] = GRID,
    *,
    base: Configuration = BASE,
    design: Sequence[Configuration] = (),
) -> Iterator[Proposer]:
    """A proposer over the database in `folder`; leaving it is a crash: nothing more is told."""
    with database(folder / "study.db") as storage:
        yield Proposer(
            storage=storage,
            space=SPACE_READ,
            stage=STAGE,
            dimensions=dimensions,
            base=base,
            design=design,
            seed=0,
        )


@contextmanager
def as_read(folder: Path, stage: Stage = STAGE) -> Iterator[optuna.Study]:
    """The database as any other program opens it."""
    url = f"sqlite:///{folder / 'study.db'}"
    storage = optuna.storages.RDBStorage(url)
    try:
        yield optuna.load_study(study_name=stage.value, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def trials(folder: Path, stage: Stage = STAGE) -> list[FrozenTrial]:
    with as_read(folder, stage) as study:
        return study.get_trials()


def all_of(proposer: Proposer) -> list[Configuration]:
    """Everything it proposes until it has no more."""
    configs = []
    while isinstance(proposal := proposer.ask(), Proposal):
        configs.append(proposal.config)
        assert len(configs) < 50, "the small spaces of these tests have an end"
        proposer.tell(proposal, score=0.01 * len(configs))
    return configs


def test_the_design_comes_first_and_in_order(tmp_path: Path) -> None:
    design = [
        BASE,
        BASE.with_values({"learning_rate": 2e-3, "schedule": "linear"}),
        BASE.with_values({"learning_rate": 1e-2}),
        BASE.with_values({"schedule": "wsd"}),
    ]
    dimensions = (RATE, dimension("schedule", ["cosine", "linear", "wsd"]))
    with proposing(tmp_path, dimensions, design=design) as proposer:
        for number, config in enumerate(design):
            proposal = proposer.ask()
            assert proposal
            assert (proposal.number, proposal.config) == (number, config)
            proposer.tell(proposal, score=0.0)
        beyond = proposer.ask()
        assert beyond
        assert beyond.config not in design
        changed = beyond.config.difference(BASE)
        assert set(changed) <= {"learning_rate", "schedule"}


def test_an_exhausted_grid_ends_the_search_with_all_that_is_possible(tmp_path: Path) -> None:
    with proposing(tmp_path, design=[BASE]) as proposer:
        configs = all_of(proposer)
        assert configs[0] == BASE
        assert len(configs) == len(POSSIBLE)
        assert set(configs) == POSSIBLE
        assert proposer.ask() is StageEnd.EXHAUSTED
    with proposing(tmp_path, design=[BASE]) as proposer:
        assert proposer.ask() is StageEnd.EXHAUSTED
    for trial in trials(tmp_path):
        assert trial.state is TrialState.COMPLETE, "no zombie steers the sampler away for ever"
        impossible = trial.params["micro_batch"] == 3
        assert trial.constraints == {"feasible": 1.0 if impossible else 0.0}
        if impossible and "repeats" not in trial.user_attrs:
            assert trial.user_attrs["infeasible"].startswith("global_batch must be a multiple of micro_batch")


def test_nothing_is_proposed_twice_not_even_by_the_next_sitting(tmp_path: Path) -> None:
    seen = []
    fused_attention = BASE.with_values({"attention": "sdpa"})
    for _ in range(3):
        with proposing(tmp_path, (RATE, *GRID), design=[BASE, BASE, fused_attention]) as proposer:
            for _ in range(4):
                proposal = proposer.ask()
                assert proposal
                seen.append(proposal.config)
                proposer.tell(proposal, score=0.0)
    assert len(set(seen)) == len(seen) == 12
    assert seen[:2] == [BASE, fused_attention]


def test_the_last_of_a_finite_space_is_found_without_asking_in_vain(tmp_path: Path) -> None:
    dimensions = (dimension("micro_batch", [1, 2, 4, 8]), dimension("optimizer_kernel", ["for_loop", "fused"]), GRID[1])
    everything = [
        BASE.with_values({"micro_batch": size, "optimizer_kernel": kernel, "attention": attention})
        for size in (1, 2, 4, 8)
        for kernel in ("for_loop", "fused")
        for attention in ("math", "sdpa")
    ]
    with proposing(tmp_path, dimensions, design=everything[1:]) as proposer:
        assert [*all_of(proposer)] == [*everything[1:], everything[0]]
    repeats = [t for t in trials(tmp_path) if "repeats" in t.user_attrs]
    assert len(repeats) <= 6, "a few for the last one, a few for the end"


def test_what_is_infeasible_is_complete_with_a_violated_constraint(tmp_path: Path) -> None:
    with proposing(tmp_path) as proposer:
        for why, score, number in (("oom: 9 GiB" + "!" * 300, None, 7), ("", 0.25, 8), ("", -9.0, None)):
            proposal = proposer.ask()
            assert proposal
            proposer.tell(proposal, score=score, infeasible=why, trial_number=number)
    told = [t for t in trials(tmp_path) if t.params["micro_batch"] != 3 and "repeats" not in t.user_attrs]
    assert [t.state for t in told] == [TrialState.COMPLETE] * 3
    assert [t.constraints["feasible"] for t in told] == [1.0, 0.0, 0.0]
    assert [t.user_attrs.get("trial") for t in told] == [7, 8, None]
    poor, good, slow = (t.value for t in told)
    assert poor is not None
    assert good == 0.25
    assert slow == poor, "no score is poorer than that of what cannot be used, and none is infinite"
    assert poor < -3
    assert told[0].user_attrs["infeasible"].startswith("oom: 9 GiB")
    assert len(told[0].user_attrs["infeasible"]) <= 200


def test_the_best_of_the_database_is_never_infeasible(tmp_path: Path) -> None:
    with proposing(tmp_path) as proposer:
        for score in (None, -0.5):
            proposal = proposer.ask()
            assert proposal
            proposer.tell(proposal, score=score, infeasible="" if score else "oom")
    with as_read(tmp_path) as study:
        assert study.best_value == -0.5


def test_a_proposal_that_a_crash_left_comes_first_again_under_its_number(tmp_path: Path) -> None:
    with proposing(tmp_path, (RATE, *GRID), design=[BASE]) as proposer:
        first = proposer.ask()
        assert first
        proposer.tell(first, score=0.0)
        lost = proposer.ask()
        assert lost
    with proposing(tmp_path, (RATE, *GRID), design=[BASE]) as proposer:
        assert proposer.ask() == lost
        assert proposer.ask() == lost, "until it is told"
        proposer.tell(lost, score=0.1)
        following = proposer.ask()
        assert following
        assert following.number > lost.number
        assert following.config != lost.config


def test_what_a_crash_left_is_given_up_at_the_end_of_a_stage(tmp_path: Path) -> None:
    with proposing(tmp_path, (RATE, *GRID), design=[BASE]) as proposer:
        lost = proposer.ask()
        assert lost
    with proposing(tmp_path, (RATE, *GRID), design=[BASE]) as proposer:
        assert proposer.pending() == [lost]
        proposer.abandon()
        assert proposer.pending() == []
    assert [t.state for t in trials(tmp_path)] == [TrialState.FAIL]


@pytest.mark.parametrize("suggested", [0, 1])
def test_a_half_made_proposal_is_completed(tmp_path: Path, suggested: int) -> None:
    design = [BASE.with_values({"attention": "sdpa", "micro_batch": 2})]
    with proposing(tmp_path, design=design):
        pass
    with as_read(tmp_path) as study:
        trial = study.ask()
        for name, values in (("micro_batch", (2, 4, 3)), ("attention", ("math", "sdpa")))[:suggested]:
            trial.suggest_categorical(name, values)
    with proposing(tmp_path, design=design) as proposer:
        proposal = proposer.ask()
        assert proposal
        assert (proposal.number, proposal.config) == (trial.number, design[0])
        proposer.tell(proposal, score=0.0)
        all_of(proposer)
    assert {t.state for t in trials(tmp_path)} == {TrialState.COMPLETE}


def test_a_half_made_proposal_without_a_design_keeps_what_was_suggested(tmp_path: Path) -> None:
    with proposing(tmp_path) as proposer:
        done = proposer.ask()
        assert done
        proposer.tell(done, score=0.0)
    with as_read(tmp_path) as study:
        trial = study.ask()
        micro_batch = trial.suggest_categorical("micro_batch", (2, 4, 3))
    with proposing(tmp_path) as proposer:
        all_of(proposer)
    completed = trials(tmp_path)[trial.number]
    assert completed.state is TrialState.COMPLETE
    assert completed.params["micro_batch"] == micro_batch
    assert set(completed.params) == {"micro_batch", "attention"}


def test_values_are_as_short_as_a_user_would_type_them_and_in_their_range(tmp_path: Path) -> None:
    domain = FloatRange(low=1.231e-3, high=1.239e-3)
    with proposing(
        tmp_path, [dimension("learning_rate", domain)], base=BASE.with_values({"learning_rate": 1.235e-3})
    ) as asked:
        rates = []
        for _ in range(2):
            proposal = asked.ask()
            assert proposal
            rates.append(proposal.config["learning_rate"])
            asked.tell(proposal, score=0.0)
    assert sorted(rates) == [1.231e-3, 1.239e-3], "three digits would be 1.23e-3 and 1.24e-3, outside"


def test_the_base_is_tried_as_the_user_typed_it(tmp_path: Path) -> None:
    base = BASE.with_values({"learning_rate": 1.23456e-3})
    design = [base, base.with_values({"schedule": "linear"})]
    dimensions = (RATE, dimension("schedule", ["cosine", "linear"]))
    with proposing(tmp_path, dimensions, base=base, design=design) as proposer:
        for config in design:
            proposal = proposer.ask()
            assert proposal
            assert proposal.config == config
            proposer.tell(proposal, score=0.0)


def test_listed_values_that_are_nearly_the_same_are_all_tried(tmp_path: Path) -> None:
    rates = [1e-3, 1.0001e-3, 1.0002e-3]
    with proposing(tmp_path, [dimension("learning_rate", rates)]) as proposer:
        assert sorted(config["learning_rate"] for config in all_of(proposer)) == rates


# -- designs -----------------------------------------------------------------------------------------


@st.composite
def domains(draw: st.DrawFn, knob: Knob) -> Domain:
    """Any domain of a knob; numbers stay small enough to be typed."""
    number: st.SearchStrategy[int | float]
    match knob.domain:
        case Choice(values=values):
            return Choice(values=tuple(draw(st.lists(st.sampled_from(values), min_size=1, unique=True))))
        case IntRange(low=least, high=most):
            number = st.integers(least, min(most, 100))
        case FloatRange(low=fleast, high=fmost):
            number = st.floats(fleast, min(fmost, 10.0))
    low, *rest = draw(st.lists(number, min_size=1, max_size=5, unique=True).map(sorted))
    if not rest or draw(st.booleans()):
        return Choice(values=tuple(draw(st.permutations([low, *rest]))))
    log = low > 0 and draw(st.booleans())
    kind = IntRange if knob.kind is int else FloatRange
    return kind(low=low, high=rest[-1], log=log)  # type: ignore[arg-type]


_BOUND = {
    "beta2",
    "decay_groups",
    "dropout_schedule",
    "loss_kernel",
    "matmul_precision",
    "micro_batch",
    "optimizer_in_backward",
    "parallelism",
    "weight_decay_schedule",
    "world_size",
}
"""Knobs some of whose values are refused beside some values of others."""


@st.composite
def centres(draw: st.DrawFn) -> tuple[Configuration, tuple[Dimension, ...]]:
    """Any dimensions of which all combinations are possible, and a configuration in them."""
    names = draw(st.lists(st.sampled_from([n for n in KNOBS if n not in _BOUND]), min_size=1, unique=True))
    dimensions = tuple(Dimension(knob=KNOBS[n], domain=draw(domains(KNOBS[n]))) for n in KNOBS if n in names)
    values: dict[str, KnobValue] = {"micro_batch": 1}
    for d in dimensions:
        match d.domain:
            case Choice(values=listed):
                values[d.knob.name] = draw(st.sampled_from(listed))
            case IntRange(low=low, high=high):
                values[d.knob.name] = draw(st.integers(low, high))
            case FloatRange(low=flow, high=fhigh):
                values[d.knob.name] = draw(st.floats(flow, fhigh))
    return DEFAULTS.with_values(values), dimensions


@settings(deadline=None)
@given(centres())
def test_one_knob_at_a_time_touches_every_knob_before_any_twice(
    case: tuple[Configuration, tuple[Dimension, ...]],
) -> None:
    centre, dimensions = case
    domains_by_name = {d.knob.name: d.domain for d in dimensions}
    changes = []
    for config in one_at_a_time(SPACE_READ, centre, dimensions):
        ((name, value),) = config.difference(centre).items()
        assert contains(domains_by_name[name], value)
        changes.append((name, value))
    assert len(set(changes)) == len(changes)
    names = [name for name, _ in changes]
    movable = [n for n, d in domains_by_name.items() if not isinstance(d, Choice) or len(d.values) > 1]
    assert names[: len(movable)] == movable
    turns = [[name for name, row in _with_turn(names) if row == turn] for turn in range(len(names))]
    assert names == list(itertools.chain(*turns))
    for name, domain in domains_by_name.items():
        if isinstance(domain, Choice):
            assert {v for n, v in changes if n == name} == set(domain.values) - {centre[name]}


def _with_turn(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name with how often it came before."""
    return [(name, names[:at].count(name)) for at, name in enumerate(names)]


def test_the_nearest_values_come_first() -> None:
    dimensions = (
        dimension("threads", [8, 1, 4, 0]),
        RATE,
        dimension("global_batch", IntRange(low=4, high=64, log=True)),
    )
    centre = DEFAULTS.with_values({"micro_batch": 1, "global_batch": 16, "threads": 1, "learning_rate": 1e-3})
    changes = [config.difference(centre) for config in one_at_a_time(SPACE_READ, centre, dimensions)]
    assert changes == [
        {"threads": 0},
        {"learning_rate": 3.16e-3},
        {"global_batch": 32},
        {"threads": 4},
        {"learning_rate": 5.48e-4},
        {"global_batch": 8},
        {"threads": 8},
    ]


def test_a_design_leaves_out_what_cannot_exist() -> None:
    configs = list(one_at_a_time(SPACE_READ, BASE, [dimension("micro_batch", [3, 4, 5, 8])]))
    assert [c["micro_batch"] for c in configs] == [8]


@pytest.mark.parametrize(
    ("peaks", "gains"),
    [({"fp32": 1e11, "bf16": 2e11}, True), ({"fp32": 1e11, "bf16": 1.05e11}, False), ({"fp32": 1e11}, False)],
)
def test_the_expert_takes_what_usually_pays(peaks: dict[str, float], gains: bool) -> None:
    expected: dict[str, KnobValue] = {"attention": "sdpa", "optimizer_kernel": "fused", "tied_head": True}
    if gains:
        expected["dtype"] = "bf16_autocast"
    expert = expert_within(SPACE_READ, replace(MACHINE, peak_flops=peaks))
    assert expert.difference(SPACE_READ.baseline) == expected


@settings(max_examples=40, deadline=None)
@given(centres(), st.booleans())
def test_the_expert_keeps_to_the_space(case: tuple[Configuration, tuple[Dimension, ...]], bf16_gains: bool) -> None:
    baseline, dimensions = case
    space = space_with(baseline, dimensions)
    machine = MACHINE if bf16_gains else replace(MACHINE, peak_flops={"fp32": 1e11, "bf16": 1e11})
    domains_by_name = {d.knob.name: d.domain for d in dimensions}
    change = expert_within(space, machine).difference(baseline)
    assert all(name in domains_by_name and contains(domains_by_name[name], value) for name, value in change.items())
    assert bf16_gains or "dtype" not in change


@pytest.mark.parametrize(
    ("dimensions", "size"),
    [
        ((), 1),
        (GRID, 6),
        ((dimension("threads", IntRange(low=0, high=7)), *GRID), 48),
        ((RATE, *GRID), math.inf),
    ],
)
def test_the_grid_is_the_product_of_its_sides(dimensions: Sequence[Dimension], size: float) -> None:
    assert grid_size(dimensions) == size


def test_a_space_too_large_to_list_is_searched_on_for_what_is_possible(tmp_path: Path) -> None:
    many = (
        dimension("micro_batch", [1, 2, 4, 8, *range(9, 69)]),
        dimension("threads", IntRange(low=0, high=400)),
        RATE,
    )
    with proposing(tmp_path, many) as proposer:
        seen = set()
        for _ in range(60):
            proposal = proposer.ask()
            assert isinstance(proposal, Proposal), "one in fifteen is possible"
            assert proposal.config not in seen
            seen.add(proposal.config)
            proposer.tell(proposal, score=0.0)


def test_giving_up_is_not_called_exhausted(tmp_path: Path) -> None:
    none = (dimension("micro_batch", list(range(9, 69))), dimension("threads", IntRange(low=0, high=400)))
    with proposing(tmp_path, none) as proposer:
        assert proposer.ask() is StageEnd.NOTHING_FOUND


def test_impossible_combinations_are_counted_by_rule() -> None:
    sizes = (dimension("micro_batch", [2, 3, 4, 16]), dimension("global_batch", [8, 12]), RATE)
    # micro_batch 3 and 16 do not divide 8, 16 does not divide 12; the range counts by its two ends
    assert impossible_combinations(space_with(BASE, sizes)) == {"global_batch must be a multiple of micro_batch": 3 * 2}
    assert impossible_combinations(space_with(BASE, [dimension("attention", ["math", "sdpa"])])) == {}
    many = dimension("micro_batch", list(range(1, 1_001)))
    assert impossible_combinations(space_with(BASE, [many, dimension("global_batch", list(range(1, 1_001)))])) is None


# -- trials of stages that propose nothing -----------------------------------------------------------


def record(number: int, outcome: Outcome, *, rounds: int, ratio: float = 1.0) -> TrialRecord:
    """A record of `rounds` pairs in which the trial is `ratio` times as fast as the reference."""

    def piece(at: int, seconds: float) -> Slice:
        return Slice(round=at, tokens=100, seconds=seconds, step_seconds=(seconds,), losses=(3.0,), peak_memory_bytes=1)

    return TrialRecord(
        spec=TrialSpec(
            number=number,
            stage=Stage.CONFIRM,
            label=f"trial {number}",
            config=BASE.with_values({"learning_rate": 1e-3 * (number + 1), "tied_head": True}),
            seed=0,
            horizon_tokens=100,
            block=0,
        ),
        outcome=outcome,
        ready=(),
        slices=tuple(piece(at, 1.0 / ratio) for at in range(rounds)),
        reference_slices=tuple(piece(at, 1.0) for at in range(rounds)),
        evaluations=(),
        costs=Costs(total_seconds=1.0),
        interleaved=True,
        started_at="",
        finished_at="",
    )


def test_the_database_shows_the_trials_of_every_stage_once(tmp_path: Path) -> None:
    records = [
        record(3, Completed(), rounds=8, ratio=2.0),
        record(5, Infeasible(kind=InfeasibleKind.OUT_OF_MEMORY, message=""), rounds=0),
        record(6, Pruned(reason="slow"), rounds=8, ratio=0.5),
        record(7, Failed(kind=FailedKind.CRASH, message=""), rounds=0),
    ]
    path = tmp_path / "study.db"
    for some in (records[:2], records, records):
        with database(path) as storage:
            mirror(storage, SPACE_READ, some)
    shown = trials(tmp_path, Stage.CONFIRM)
    assert [t.user_attrs["trial"] for t in shown] == [3, 5, 6, 7]
    assert [t.user_attrs["outcome"] for t in shown] == ["completed", "oom", "pruned", "crash"]
    assert [t.user_attrs["label"] for t in shown] == ["trial 3", "trial 5", "trial 6", "trial 7"]
    assert {t.state for t in shown} == {TrialState.COMPLETE}
    assert [t.constraints["feasible"] for t in shown] == [0.0, 1.0, 0.0, 1.0]
    values = [t.value for t in shown]
    assert values[0] == pytest.approx(math.log(2.0))
    assert values[2] == pytest.approx(-math.log(2.0))
    assert values[1] == values[3] < -3.0
    assert [t.params for t in shown] == [dict(r.spec.config) for r in records]
    with as_read(tmp_path, Stage.CONFIRM) as study:
        assert study.best_trial.user_attrs["trial"] == 3


def test_without_trials_there_is_nothing_to_show() -> None:
    storage = optuna.storages.InMemoryStorage()
    mirror(storage, SPACE_READ, [])
    assert storage.get_all_studies() == []


@pytest.mark.parametrize("end", [0, -1])
def test_the_ends_of_every_knob_fit_the_database(tmp_path: Path, end: int) -> None:
    free = DEFAULTS.with_values({"clip_norm": 0.0, "micro_batch": 1, "global_batch": 1, "dropout": 0.1})
    needs: dict[str, dict[str, KnobValue]] = {
        "parallelism": {"world_size": 2},
        "world_size": {"parallelism": "tensor"},
    }
    configs = []
    for name, knob in KNOBS.items():
        if name != "micro_batch":
            match knob.domain:
                case Choice(values=values):
                    value = values[end]
                case IntRange(low=low, high=high) | FloatRange(low=low, high=high):
                    value = (low, high)[end]
            needed = needs.get(name, {}) if value != free[name] else {}
            configs.append(free.with_values({name: value, **needed}))
    at_the_end = record(0, Completed(), rounds=8)
    records = [
        replace(at_the_end, spec=replace(at_the_end.spec, number=number, config=config))
        for number, config in enumerate(configs)
    ]
    with database(tmp_path / "study.db") as storage:
        mirror(storage, SPACE_READ, records)
    assert [t.params for t in trials(tmp_path, Stage.CONFIRM)] == [dict(config) for config in configs]


def test_a_new_storage_has_what_was_ordered_under_its_old_number() -> None:
    storage = optuna.storages.InMemoryStorage()
    at = {0: {"micro_batch": 2}, 2: {"attention": "sdpa"}, 3: {"micro_batch": 8}}  # 8 is searched no longer
    ordered = [record(number, Completed(), rounds=0).spec for number in (10, 11, 12)]
    specs = [
        replace(trial, stage=STAGE, block=block, config=BASE.with_values(knobs))
        for trial, (block, knobs) in zip(ordered, at.items(), strict=True)
    ]
    restore(storage, STAGE, GRID, specs)
    made = {"storage": storage, "space": SPACE_READ, "stage": STAGE, "dimensions": GRID, "base": BASE, "seed": 0}
    proposer = Proposer(design=[specs[1].config, BASE], **made)
    assert [(p.number, p.config) for p in proposer.pending()] == [(0, specs[0].config), (2, specs[1].config)]
    for proposal in proposer.pending():
        proposer.tell(proposal, score=0.1)
    following = proposer.ask()
    assert following is not None
    assert (following.number, following.config) == (4, BASE), "the design goes on with what was not asked yet"


def test_what_there_was_no_time_for_is_proposed_again_to_a_study_that_is_given_more(tmp_path: Path) -> None:
    with proposing(tmp_path) as proposer:
        passed = []
        while isinstance(proposal := proposer.ask(), Proposal):
            proposer.pass_over(proposal, "no time is left to compile it")
            passed.append(proposal.config)
    assert set(passed) == POSSIBLE
    assert len(passed) == len(POSSIBLE), "once in a sitting"
    with proposing(tmp_path) as proposer:
        again = proposer.ask()
        assert again is not None
        assert again.config in POSSIBLE
        proposer.tell(again, score=0.1)
        others = set()
        while isinstance(proposal := proposer.ask(), Proposal):
            proposer.tell(proposal, score=0.0)
            others.add(proposal.config)
    assert others == POSSIBLE - {again.config}
