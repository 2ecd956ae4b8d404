"""What a study is: its folder's name, the content of its text, and the conditions it was measured in."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from simulated_machine import MACHINE, TINY, SimulatedMachine, stop_after_a_trial

import autotune
from autotune import api
from autotune.cli import main
from autotune.errors import BadInput
from autotune.study import identity
from autotune.study.events import Event, StudyMended
from autotune.study.store import Study
from autotune.workload.base import WorkerOrder
from autotune.workload.machine import Machine


def text_of(path: Path, folder: Path) -> str:
    """A space file at `path` with a text beside it; the name of the text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text").mkdir(exist_ok=True)
    path.write_text(TINY.replace("[workload]", '[workload]\ncorpus = "text"'))
    return "text"


class ReadsText(SimulatedMachine):
    """A machine on which a text's identity is its place's content: a file `what` in it."""

    def examine(self, order: WorkerOrder, *, limit_seconds: float = math.inf) -> Machine:
        machine = super().examine(order, limit_seconds=limit_seconds)
        what = Path(order.payload["data"]["corpus"]) / "what"
        found = what.read_text() if what.exists() else ""
        return replace(machine, corpus=replace(machine.corpus, content_sha256=sha256(found.encode()).hexdigest()))


def interrupted_in(folder: Path) -> Path:
    """A study interrupted after a trial, in `folder/reports`, with a space file and its text beside it."""
    text_of(folder / "mine.toml", folder)
    (folder / "text" / "what").write_text("prose")
    with pytest.raises(autotune.errors.Interrupted):
        autotune.search(
            folder / "mine.toml", root=folder / "reports", executor=ReadsText(), listeners=[stop_after_a_trial]
        )
    return folder / "reports"


def corpus_of(study: Path) -> str:
    with Study.open(study) as opened:
        return opened.info.corpus


def test_a_study_goes_on_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    interrupted_in(Path())
    monkeypatch.chdir(tmp_path)
    assert autotune.resume("mine", root="work/reports", executor=ReadsText()).recommendation.trials
    assert corpus_of(tmp_path / "work/reports/mine") == str(tmp_path / "work" / "text")


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_tree_that_is_moved_whole_goes_on_with_the_text_beside_it(tmp_path: Path, how: str) -> None:
    interrupted_in(tmp_path / "a")
    if how == "move":
        (tmp_path / "a").rename(tmp_path / "b")
    else:
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        (tmp_path / "a" / "text" / "what").write_text("another text by now")
    assert autotune.resume("mine", root=tmp_path / "b/reports", executor=ReadsText()).recommendation.trials
    assert corpus_of(tmp_path / "b/reports/mine") == str(tmp_path / "b/text")


def test_a_root_that_is_moved_alone_goes_on_with_the_text_where_it_was(tmp_path: Path) -> None:
    interrupted_in(tmp_path / "a").rename(tmp_path / "reports")
    assert autotune.resume("mine", root=tmp_path / "reports", executor=ReadsText()).recommendation.trials
    assert corpus_of(tmp_path / "reports/mine") == str(tmp_path / "a/text")


def test_a_text_that_is_gone_is_named_and_may_be_named_anew(tmp_path: Path) -> None:
    root = interrupted_in(tmp_path)
    (tmp_path / "text").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput) as refused:
        autotune.resume("mine", root=root, executor=ReadsText())
    assert str(refused.value) == (
        f"a study needs its text; there is none at '{tmp_path / 'text'}': put it back, or say where it is with "
        f"`autotune search {root / 'mine' / 'space.toml'} --study mine --data PATH`"
    )
    space, data = root / "mine" / "space.toml", str(tmp_path / "elsewhere")
    finished = autotune.search(space, study="mine", root=root, data=data, executor=ReadsText())
    assert finished.recommendation.trials


def test_another_text_is_not_taken_for_the_study_s(tmp_path: Path) -> None:
    root = interrupted_in(tmp_path)
    (tmp_path / "text" / "what").write_text("verse")
    prose, verse = (sha256(what).hexdigest() for what in (b"prose", b"verse"))
    with pytest.raises(BadInput, match=rf"text was {prose}, is {verse}: `autotune resume mine --fork NEW`"):
        autotune.resume("mine", root=root, executor=ReadsText())


def test_a_finished_study_is_found_again_by_the_content_of_its_text(tmp_path: Path) -> None:
    text_of(tmp_path / "a" / "mine.toml", tmp_path / "a")
    first = autotune.search(tmp_path / "a/mine.toml", root=tmp_path / "a/reports", executor=ReadsText())
    (tmp_path / "a").rename(tmp_path / "b")
    again = autotune.search(tmp_path / "b/mine.toml", root=tmp_path / "b/reports", executor=ReadsText())
    assert again.recommendation == first.recommendation
    (tmp_path / "b").rename(tmp_path / "c")
    (tmp_path / "c" / "text" / "what").write_text("verse")
    with pytest.raises(BadInput, match="'mine' differs: text was "):
        autotune.search(tmp_path / "c/mine.toml", root=tmp_path / "c/reports", executor=ReadsText())


def test_the_name_of_a_copy_is_in_its_report_and_advice(
    search: Callable[..., api.Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = search()
    shutil.copytree(first.folder, first.folder.with_name("copy"))
    for flags in ([], ["--json"]):
        assert main(["--root", str(tmp_path / "root"), "report", "copy", *flags]) == 0
        out = capsys.readouterr().out
        assert "copy" in out
        assert "resume mine" not in out
        assert "root/mine" not in out
    assert json.loads((first.folder / "report.json").read_text())["study"] == "mine"


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"OMP_NUM_THREADS": "1"}, "process.OMP_NUM_THREADS was not set, is 1"),
        ({"MKL_NUM_THREADS": "x" * 300}, f"process.MKL_NUM_THREADS was not set, is {'x' * 300}"),
    ],
)
def test_the_threads_of_the_process_belong_to_a_measurement(
    search: Callable[..., api.Finished], monkeypatch: pytest.MonkeyPatch, change: dict[str, str], clause: str
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(autotune.errors.Interrupted):
        search(listeners=[stop_after_a_trial])
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput) as refused:
        search()
    assert clause in str(refused.value)


def test_the_cores_of_the_process_belong_to_a_measurement_and_its_memory_does_not(
    search: Callable[..., api.Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(autotune.errors.Interrupted):
        search(listeners=[stop_after_a_trial])
    conditions = identity.conditions()
    with monkeypatch.context() as pinned:
        pinned.setattr(identity, "conditions", lambda: {**conditions, "cores": "7"})
        with pytest.raises(BadInput, match=rf"process\.cores was {conditions['cores']}, is 7"):
            search()
    more = MACHINE.environment | {"device_memory_bytes": "25276502017", "memory_bytes": "25276502017"}
    assert search(SimulatedMachine(replace(MACHINE, environment=more))).recommendation.trials


def test_a_study_without_a_trial_does_not_block_a_search_of_its_name(
    search: Callable[..., api.Finished], space_file: Path
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(autotune.errors.Interrupted):
        search(listeners=[stop])
    space_file.write_text(TINY.replace("layers = 2", "layers = 3"))
    assert search().recommendation.trials


def test_a_damaged_trial_is_a_row_of_the_table(search: Callable[..., api.Finished], tmp_path: Path) -> None:
    first = search()
    shutil.copytree(first.folder / "trials" / "0000", first.folder / "trials" / "0001")
    table = autotune.load_study("mine", root=tmp_path / "root").set_index("number")
    assert table["outcome"].to_dict() == {0: "completed", 1: "damaged"}
    assert table["reason"].to_dict() == {0: "", 1: "it belongs to trial 0"}


def test_what_was_mended_is_told_to_every_listener(search: Callable[..., api.Finished]) -> None:
    first = search()
    (first.folder / "elapsed.json").write_text("{")
    events: list[Event] = []
    assert search(listeners=[events.append]).recommendation == first.recommendation
    told = [e.what.text for e in events if isinstance(e.what, StudyMended)]
    assert len(told) == 1
    assert told[0].startswith("elapsed.json was damaged (")
