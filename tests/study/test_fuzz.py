"""Study folders damaged in any way: an error of ours or success, and never silently another answer."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_machine import TINY, SimulatedMachine, stop_after_a_trial

import autotune
from autotune.analysis.recommendation import Recommendation
from autotune.cli import main
from autotune.errors import AutotuneError, ExitCode, Interrupted
from autotune.study.events import Event, StudyMended
from autotune.study.reading import DamagedTrial, read_all_records, read_records
from autotune.trial.types import TrialRecord

NAMES = ("finished", "interrupted")
OURS = {code for code in ExitCode if code is not ExitCode.BUG}


@dataclass(frozen=True, slots=True)
class Originals:
    """A finished and an interrupted study in `root`, what the first recommends, and the trials of both."""

    root: Path
    recommendation: Recommendation
    records: dict[str, tuple[TrialRecord, ...]]
    files: dict[str, list[str]]


@pytest.fixture(scope="module")
def originals() -> Iterator[Originals]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        space = Path(name) / "space.toml"
        space.write_text(TINY)
        finished = autotune.search(space, study="finished", root=root, executor=SimulatedMachine())
        with pytest.raises(Interrupted):
            autotune.search(
                space, study="interrupted", root=root, executor=SimulatedMachine(), listeners=[stop_after_a_trial]
            )
        yield Originals(
            root=root,
            recommendation=finished.recommendation,
            records={name: read_records(root / name) for name in NAMES},
            files={
                name: sorted(str(p.relative_to(root / name)) for p in (root / name).rglob("*") if p.is_file())
                for name in NAMES
            },
        )


Damage = Callable[[Path], None]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Something that happens to a file."""
    kind = draw(st.sampled_from(["flip", "flip", "cut", "delete", "replace", "link", "pipe", "folder"]))
    where = draw(st.floats(0.0, 1.0, exclude_max=True))
    bit = draw(st.integers(0, 7))
    content = draw(st.sampled_from([b"", b"{}", b"[]", b"null", b"0", b'"x"', b"\xff\x00\x1b[2J", b"[" * 5_000]))

    def damage(path: Path) -> None:
        whole = path.read_bytes()
        at = int(where * len(whole))
        if kind in ("delete", "link", "pipe", "folder"):
            path.unlink()
        match kind:
            case "flip" if whole:
                path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            case "cut":
                path.write_bytes(whole[:at])
            case "replace":
                path.write_bytes(content)
            case "link":
                path.symlink_to(next(p for p in path.parents if p.name == "root").with_name("outside"))
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()

    return damage


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_study_is_never_silently_another(
    originals: Originals, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(NAMES))
    file = data.draw(st.sampled_from(originals.files[name]))
    damage = data.draw(damages())
    with tempfile.TemporaryDirectory() as temporary:
        root, outside = Path(temporary) / "root", Path(temporary) / "outside"
        shutil.copytree(originals.root, root)
        outside.write_text("mine")
        damage(root / name / file)

        listed = {study.name: study for study in autotune.studies(root)}
        assert listed.keys() >= set(NAMES) - ({name} if file == "study.json" else set())
        for command in ("studies", f"report {name}", f"report {name} --json"):
            assert main(["--root", str(root), *command.split()]) in OURS
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        before = {r.spec.number: r for r in originals.records[name]}
        for found in read_all_records(root / name) if (root / name / "trials").is_dir() else ():
            assert isinstance(found, DamagedTrial) or found == before[found.spec.number]

        events: list[Event] = []
        try:
            finished = autotune.resume(name, root=root, executor=SimulatedMachine(), listeners=[events.append])
        except AutotuneError:
            pass
        else:
            mended = [event.what for event in events if isinstance(event.what, StudyMended)]
            after = {r.spec.number: r for r in read_records(root / name)}
            gone = {number for number, record in before.items() if after.get(number) != record}
            assert gone <= {number for what in mended for number in what.lost_trials}
            if name == "finished" and not mended:
                assert finished.recommendation == originals.recommendation
        assert outside.read_text() == "mine"
