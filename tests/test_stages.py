"""What the stages decide by themselves: whether noise is worth measuring, what a fork starts from, when to give up."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from scripted_study import SPACE, ScriptedStudy

from autotune.measure.lab import Lab
from autotune.search.calibrate import calibrate
from autotune.search.common import warm_start
from autotune.search.expert import expert_within
from autotune.simulation.executor import MACHINE
from autotune.space.configuration import Configuration
from autotune.space.document import parse_document
from autotune.space.knobs import KnobClass
from autotune.study.events import IncumbentFound
from autotune.study.store import Study
from autotune.trial.types import Stage, StageEnd
from autotune.workload.space import SearchSpace, space_of


def space_with(knobs: str, text: str = SPACE) -> SearchSpace:
    """The scripted space with those knobs alone."""
    text = text[: text.index("[knobs]")] + f"[knobs]\n{knobs}\n"
    return space_of(parse_document(text, name="s", source="s", folder=Path()))


# -- the gradient's noise ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "measured"),
    [
        ("global_batch = [8, 16, 32]", True),
        ("global_batch = [4, 16]\nmicro_batch = [4, 8]", True),  # 4 takes a smaller micro-batch along
        ("global_batch = { low = 8, high = 64 }", True),
        ("micro_batch = [4, 8, 16]", False),  # of a pass, not of a step
        ("learning_rate = { low = 3e-4, high = 1e-2, log = true }\ntied_head = [false, true]", False),
    ],
)
def test_noise_is_measured_where_a_learning_knob_sets_the_tokens_of_a_step(
    tmp_path: Path, knobs: str, measured: bool
) -> None:
    text = SPACE[: SPACE.index("[knobs]")] + f"[knobs]\n{knobs}\n"
    study = ScriptedStudy(folder=tmp_path / "study", text=text)
    with study.open() as opened:
        calibration = calibrate(study.lab(opened, optuna.storages.InMemoryStorage()))
    assert bool(calibration.noise_scales) == measured
    assert {scale.batch for scale in calibration.noise_scales} <= {16}, "in sequences of one step"


# -- the hand-tuned default --------------------------------------------------------------------------


def test_the_hand_tuned_default_turns_only_what_the_space_searches() -> None:
    wished = {"dtype": "bf16_autocast", "attention": "sdpa", "optimizer_kernel": "fused", "tied_head": True}
    whole = space_with(SPACE.split("[knobs]\n")[1])
    assert whole.changed(expert_within(whole, MACHINE)) == wished
    some = space_with('attention = ["math", "sdpa"]\noptimizer_kernel = ["for_loop", "foreach"]')
    assert some.changed(expert_within(some, MACHINE)) == {"attention": "sdpa"}, "fused is not searched"
    slow = replace(MACHINE, peak_flops={"fp32": 1e11, "bf16": 1e11})
    assert "dtype" not in whole.changed(expert_within(whole, slow)), "bf16 gains nothing here"


# -- what a fork starts from -------------------------------------------------------------------------


def lab_of(study: ScriptedStudy, opened: Study) -> Lab:
    return study.lab(opened, optuna.storages.InMemoryStorage())


def test_a_fork_starts_from_what_it_still_searches_of_the_old_studys_best(tmp_path: Path) -> None:
    study = ScriptedStudy(folder=tmp_path / "study")
    with study.open() as opened:
        best = opened.space.baseline.with_values({"dtype": "bf16_autocast", "micro_batch": 32, "tied_head": True})
        opened.info = replace(opened.info, warm_start=(best, Configuration({"attention": "sdpa"})))
        lab = lab_of(study, opened)
        dimensions = lab.space.of_class(KnobClass.SYSTEM, KnobClass.NUMERICS)
        first, second = warm_start(lab, lab.space.baseline, dimensions)
    assert lab.space.changed(first) == {"dtype": "bf16_autocast"}, "32 is not searched, a tied head is another stage's"
    assert lab.space.changed(second) == {"attention": "sdpa"}, "what the old study did not know stays"


# -- when to give up ---------------------------------------------------------------------------------


def test_a_stage_ends_where_no_time_is_left_to_compile_whatever_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proposal that is not tried takes no time, so the clock alone would never end the stage."""
    explore = importlib.import_module("autotune.search.explore")
    monkeypatch.setattr(explore, "compile_seconds", lambda _: math.inf)
    knobs = 'compile = ["default", "max-autotune-no-cudagraphs"]\nthreads = { low = 0, high = 64 }'
    text = SPACE[: SPACE.index("[knobs]")] + f'compile = "default"\n\n[knobs]\n{knobs}\n'
    study = ScriptedStudy(folder=tmp_path / "study", text=text)
    storage = optuna.storages.InMemoryStorage()
    with study.open() as opened:
        lab = study.lab(opened, storage)
        explore.explore_system(lab, calibrate(lab))
        mark = opened.stage(Stage.EXPLORE_SYSTEM)
        assert mark is not None
        assert mark.reason is StageEnd.BUDGET
        assert not opened.of_stage(Stage.EXPLORE_SYSTEM)
    (proposed,) = (s for s in optuna.get_all_study_summaries(storage) if s.study_name == "explore_system")
    trials = optuna.load_study(study_name=proposed.study_name, storage=storage).trials
    told = [t.user_attrs.get("infeasible", "") for t in trials]
    assert 1 <= told.count("no time is left for it") <= 20


def test_what_compiles_is_tried_last_and_on_the_best_of_the_others(tmp_path: Path) -> None:
    text = SPACE.replace("[knobs]", '[knobs]\ncompile = ["off", "default", "max-autotune-no-cudagraphs"]')
    study = ScriptedStudy(folder=tmp_path / "study", text=text, budget_seconds=5_000.0)
    explore = importlib.import_module("autotune.search.explore")
    with study.open() as opened:
        lab = study.lab(opened, optuna.storages.InMemoryStorage())
        explore.explore_system(lab, calibrate(lab))
        tried = [record.spec.config for record in opened.of_stage(Stage.EXPLORE_SYSTEM)]
    first = next(number for number, config in enumerate(tried) if config["compile"] != "off")
    assert first >= 8, "every other value was tried before"
    assert {config["compile"] for config in tried[first:]} >= {"default", "max-autotune-no-cudagraphs"}
    compiled = tried[first]
    assert (compiled["dtype"], compiled["attention"]) == ("bf16_autocast", "sdpa"), "the fastest of the world"


# -- what is told ------------------------------------------------------------------------------------


def test_the_best_so_far_is_told_with_its_speed_up(tmp_path: Path) -> None:
    study = ScriptedStudy(folder=tmp_path / "study")
    study.sit()
    found = [event.what for event in study.events if isinstance(event.what, IncumbentFound)]
    for stage in (Stage.EXPLORE_SYSTEM, Stage.EXPLORE_LEARNING):
        speedups = [what.speedup for what in found if what.stage is stage]
        assert speedups == sorted(set(speedups)), "each is better than the last"
        assert all(speedup > 1.0 for speedup in speedups)
    best = max(found, key=lambda what: what.speedup)
    assert best.speedup > 1.5
    assert best.changes["dtype"] == "bf16_autocast"
