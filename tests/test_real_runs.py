"""Logs of real runs: `--baseline-log`, `autotune look`, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scripted_study import SPACE
from test_api import SimulatedMachine

import autotune
from autotune import cli
from autotune.analysis.decision import Expected, Look, RaceInRun
from autotune.analysis.look import Looked
from autotune.api import look
from autotune.errors import BadInput, ExitCode
from autotune.simulation.example import ExampleWorld, LognormalNoise
from autotune.study.store import Study

PLAN = 80_000_000
TEXT = SPACE
QUIET = LognormalNoise(moment=0.05, own=0.01, process=0.005)


class Machine(SimulatedMachine):
    """A quiet one, on which a higher rate learns better."""

    def __init__(self) -> None:
        super().__init__()
        self._world = ExampleWorld(noise=QUIET)


def written(path: Path, final: float, *, step_tokens: int, plan: int = PLAN, config: str = "") -> Path:
    """A log of a run that falls from 7 to `final` over the plan."""
    lines = [f"# {config}"] if config else []
    last = plan // step_tokens
    steps = sorted({round(last * 1.6**-part) for part in range(20)} | {last * part // 10 for part in range(1, 11)})
    lines += ["step,val_loss", *(f"{s},{final + 0.38 * math.log(steps[-1] / s):.4f}" for s in steps)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return path


def step_tokens_of(study: Path) -> int:
    with Study.open(study) as opened:
        return opened.space.workload.cost(opened.space.baseline).tokens


def test_a_baseline_log_spares_a_run_and_the_look_decides(space: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    without = autotune.search(space, root=root, study="without", executor=Machine(), budget_seconds=5_000.0)
    step = step_tokens_of(root / "without")
    log = written(tmp_path / "baseline.csv", 3.65, step_tokens=step)
    given = autotune.search(
        space, root=root, study="given", executor=Machine(), budget_seconds=5_000.0, baseline_log=log
    )
    assert without.recommendation.candidate == given.recommendation.candidate, "it changes no claim"
    decision, spared = without.recommendation.decision, given.recommendation.decision
    assert isinstance(decision, Expected | RaceInRun)
    assert isinstance(spared, Expected | RaceInRun)
    assert decision.guard == Look(needs_run=True)
    assert spared.guard == Look(needs_run=False)
    assert spared.cost < decision.cost
    better = written(tmp_path / "better.csv", 3.55, step_tokens=step)
    worse = written(tmp_path / "worse.csv", 3.75, step_tokens=step)
    found = look("given", better, root=root, executor=Machine())
    assert isinstance(found, Looked)
    assert found.is_kept
    assert not look("given", worse, root=root, executor=Machine()).is_kept
    assert look("without", better, baseline_log=log, root=root, executor=Machine()).is_kept
    with pytest.raises(BadInput, match="no log of the baseline"):
        look("without", better, root=root, executor=Machine())


def test_a_study_takes_the_log_when_it_goes_on_and_so_does_its_fork(space: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    autotune.search(space, root=root, study="first", executor=Machine(), budget_seconds=5_000.0)
    log = written(tmp_path / "baseline.csv", 3.65, step_tokens=step_tokens_of(root / "first"))
    again = autotune.resume("first", root=root, executor=Machine(), baseline_log=log).recommendation
    fork = autotune.resume("first", fork="second", root=root, executor=Machine(), baseline_log=log).recommendation
    for found in (again, fork):
        assert isinstance(found.decision, Expected | RaceInRun)
        assert found.decision.guard == Look(needs_run=False)
    wrong = written(tmp_path / "wrong.csv", math.nan, step_tokens=2_048)
    with pytest.raises(BadInput, match="finite"):
        autotune.resume("first", fork="third", root=root, executor=Machine(), baseline_log=wrong)
    assert not (root / "third").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"plan": PLAN // 2}, "use a run of the whole plan"),
        ({"config": "learning_rate = 0.5"}, "learning_rate"),
        ({"config": "corpus_sha256 = abc"}, "corpus_sha256"),
        ({"final": math.nan}, "finite"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused_and_nothing_is_created(
    space: Path, tmp_path: Path, change: dict[str, object], why: str
) -> None:
    usual: dict[str, object] = {"final": 3.65, "step_tokens": 2_048}
    log = written(tmp_path / "baseline.csv", **usual | change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=why):
        autotune.search(space, root=tmp_path / "root", executor=Machine(), baseline_log=log)
    assert not (tmp_path / "root").exists()


def test_a_log_that_this_model_cannot_have_is_told_and_spares_nothing(space: Path, tmp_path: Path) -> None:
    log = written(tmp_path / "baseline.csv", 0.5, step_tokens=2_048)
    found = autotune.search(
        space, root=tmp_path / "root", executor=Machine(), budget_seconds=5_000.0, baseline_log=log
    ).recommendation
    assert "BaselineLogUnfit" in {type(c).__name__ for c in found.caveats}
    if isinstance(found.decision, Expected | RaceInRun):
        assert found.decision.guard == Look(needs_run=True)


def test_the_command_prints_what_run_1_decides(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    log = written(tmp_path / "baseline.csv", 3.65, step_tokens=2_048)
    autotune.search(space, root=root, executor=Machine(), budget_seconds=5_000.0, baseline_log=log)
    better = written(tmp_path / "better.csv", 3.55, step_tokens=2_048)
    monkeypatch.setattr("autotune.api.open_executor", lambda _: Machine())
    assert cli.main(["look", "mine", str(better), "--root", str(root)]) == ExitCode.DONE
    assert "Keep it for the other runs" in capsys.readouterr().out
    assert cli.main(["look", "mine", str(better), "--root", str(root), "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["is_kept"] is True
    assert cli.main(["look", "mine", str(tmp_path / "none.csv"), "--root", str(root)]) == ExitCode.BAD_INPUT
    assert "readable file" in capsys.readouterr().err
