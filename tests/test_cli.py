"""The command line: what it offers, what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from autotune_model.knobs import KNOBS
from small_space import SPACE

from autotune import api
from autotune.cli import main
from autotune.errors import EnvironmentProblem, ExitCode, NothingFeasible
from autotune.measure.lab import Lab
from autotune.simulation.study import MACHINE
from autotune.space.load import load_space
from autotune.study.store import FORMAT, Study, StudyInfo


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """The command takes SIGTERM for itself; the test process has it back afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of all studies; nothing has made it yet."""
    return tmp_path / "root"


def make_study(root: Path, space_file: Path, name: str = "mine", *, created_at: str = "2026-02-03T04:05:06") -> Path:
    """A study as a search on the imagined machine starts it."""
    space = load_space(space_file)
    info = StudyInfo(
        format=FORMAT,
        name=name,
        created_at=f"{created_at}+00:00",
        space_name=space.name,
        corpus=space.workload.data.corpus,
        budget_seconds=space.budget_seconds,
        fingerprint=api.fingerprint_of(space, MACHINE),
    )
    Study.create(root / name, info, space_file.read_text()).close()
    return root / name


def refused(capsys: pytest.CaptureFixture[str], code: int, expected: ExitCode) -> str:
    """The one line on stderr that a refusal is."""
    out, err = capsys.readouterr()
    assert code == expected, err
    assert out == ""
    assert err.startswith("autotune: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err


def printed(capsys: pytest.CaptureFixture[str], code: int) -> str:
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


# -- what there is -----------------------------------------------------------------------------------


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"^  (-\S+)", text, flags=re.MULTILINE)) - {"-h,"}


def test_the_commands_and_their_flags(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = help_of(capsys)
    commands = re.findall(r"^    (\w+)(?: |$)", text, flags=re.MULTILINE)
    offered = {command: flags_in(help_of(capsys, command)) for command in commands}
    assert offered == {
        "search": {"--data", "--study", "--budget", "--dry-run", "--json"},
        "resume": {"--fork", "--budget", "--json"},
        "report": {"--json"},
        "studies": set(),
        "knobs": set(),
        "doctor": {"--json"},
        "techniques": {"--restarts", "--json"},
    }
    assert flags_in(text) == {"--version", "--root"}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"autotune {metadata.version('autotune')}\n"


@pytest.mark.parametrize("arguments", [[], ["sarch"], ["search"], ["search", "x.toml", "--fast"], ["knobs", "dtype"]])
def test_what_is_no_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == ExitCode.BAD_INPUT
    assert "usage: autotune" in capsys.readouterr().err


def test_every_knob_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, main(["knobs"])).splitlines()
    assert [name for name in KNOBS if not any(re.match(rf"\W*{name}\b", line) for line in lines)] == []


# -- studies and reports -----------------------------------------------------------------------------


def test_without_studies_there_is_nothing_to_list(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    assert printed(capsys, main(["--root", str(root), "studies"])) == ""
    assert not root.exists()


def test_studies_are_listed_with_their_state(capsys: pytest.CaptureFixture[str], root: Path, space_file: Path) -> None:
    make_study(root, space_file, "older")
    done = make_study(root, space_file, "done", created_at="2026-12-31T23:59:59")
    (done / "report.json").write_text('{"verdict": "keep_baseline"}')
    (root / "no-study").mkdir()
    with Study.open(root / "older"):  # listing neither waits for the owner nor disturbs it
        lines = printed(capsys, main(["--root", str(root), "studies"])).splitlines()
    assert [line.split() for line in lines] == [
        ["done", "keep_baseline", "2026-12-31", "23:59", "mine"],
        ["older", "unfinished", "2026-02-03", "04:05", "mine"],
    ]


def test_a_report_is_printed_as_it_was_written(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path
) -> None:
    folder = make_study(root, space_file)
    (folder / "report.md").write_text("# Größe\n")
    (folder / "report.json").write_text('{"verdict": "adopt"}\n')
    assert printed(capsys, main(["--root", str(root), "report", "mine"])) == "# Größe\n"
    assert printed(capsys, main(["--root", str(root), "report", "mine", "--json"])) == '{"verdict": "adopt"}\n'


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unfinished_study_has_no_report_yet(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, flags: list[str]
) -> None:
    make_study(root, space_file)
    err = refused(capsys, main(["--root", str(root), "report", "mine", *flags]), ExitCode.BAD_INPUT)
    assert err.endswith("got 'mine' without one: `autotune resume mine`\n")


# -- searching ---------------------------------------------------------------------------------------


def test_a_dry_run_prints_and_creates_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, space_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    command = ["search", str(space_file), "--dry-run", "--budget", "1h30m", "--data", "text", "--study", "x"]
    assert "at most 5400 s" in printed(capsys, main(command))
    facts = json.loads(printed(capsys, main([*command, "--json"])))
    assert (facts["space"], facts["budget_seconds"]) == ("mine", 5400.0)
    assert sorted(tmp_path.rglob("*")) == before


def test_every_flag_of_a_search_reaches_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, Any, dict[str, Any]]] = []
    (tmp_path / "report.json").write_text('{"verdict": "adopt"}\n')

    def called(name: str) -> Any:
        def stand_in(subject: Any, **options: Any) -> SimpleNamespace:
            assert len(options.pop("listeners")) == 1
            calls.append((name, subject, options))
            return SimpleNamespace(folder=tmp_path)

        return stand_in

    monkeypatch.setattr(api, "search", called("search"))
    monkeypatch.setattr(api, "resume", called("resume"))
    commands = [
        "search s.toml --json",
        "--root r search s.toml --data d --study n --budget 90s --json",
        "resume n --json",
        "--root r resume n --fork f --budget 2h --json",
    ]
    for command in commands:
        assert printed(capsys, main(command.split())) == '{"verdict": "adopt"}\n'
    assert calls == [
        ("search", Path("s.toml"), {"data": "", "study": "", "budget_seconds": 0.0, "root": Path("reports")}),
        ("search", Path("s.toml"), {"data": "d", "study": "n", "budget_seconds": 90.0, "root": Path("r")}),
        ("resume", "n", {"fork": "", "budget_seconds": 0.0, "root": Path("reports")}),
        ("resume", "n", {"fork": "f", "budget_seconds": 7200.0, "root": Path("r")}),
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("search none.toml", "a space is a readable TOML file; got 'none.toml' (No such file or directory)"),
        ("search bad.toml", "bad.toml:1: a search space needs a table [baseline]; got none"),
        ("search bad.toml --dry-run", "bad.toml:1: a search space needs a table [baseline]; got none"),
        ("search mine.toml --budget soon", "a duration is a number with s, m, h or d; got 'soon'"),
        ("search mine.toml --budget 0s", "a duration is a number with s, m, h or d; got '0s'"),
        ("search mine.toml --study ../up", "a study's name is at most 60 letters"),
        ("resume none", "a study is a folder with study.json; got 'root/none': see `autotune studies`"),
        ("resume ../up", "a study's name is at most 60 letters"),
        ("resume none --budget 1h", "a study keeps its budget; got another without --fork: add --fork NEW"),
        ("resume none --fork x --budget soon", "a duration is a number with s, m, h or d; got 'soon'"),
        ("report ../up", "a study's name is at most 60 letters"),
        ("report none", "a finished study has a report; got 'none' without one"),
    ],
)
def test_bad_input_is_one_line_and_creates_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    space_file: Path,
    command: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("# nothing\n")
    before = sorted(tmp_path.rglob("*"))
    assert said in refused(capsys, main(["--root", "root", *command.split()]), ExitCode.BAD_INPUT)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_study_that_is_owned_is_busy(capsys: pytest.CaptureFixture[str], root: Path, space_file: Path) -> None:
    with Study.open(make_study(root, space_file)):
        err = refused(capsys, main(["--root", str(root), "resume", "mine"]), ExitCode.STUDY_BUSY)
    assert f"'mine' is owned by process {os.getpid()}: wait for it or stop it" in err


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("study.json", "resume mine"),
        ("report.json", "studies"),
        ("stages.json", "resume mine"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"[1]", b'{"verd', b"\xff"])
def test_a_damaged_file_is_named(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, file: str, command: str, content: bytes
) -> None:
    folder = make_study(root, space_file)
    (folder / file).write_bytes(content)
    err = refused(capsys, main(["--root", str(root), *command.split()]), ExitCode.STORE_DAMAGED)
    assert str(folder / file) in err


def test_a_damaged_study_does_not_hide_the_others(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path
) -> None:
    (make_study(root, space_file, name="broken") / "study.json").write_text("[1]")
    make_study(root, space_file, name="whole")
    lines = printed(capsys, main(["--root", str(root), "studies"])).splitlines()
    assert [line.split()[:2] for line in lines] == [["broken", "damaged"], ["whole", "unfinished"]]


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (NothingFeasible("not even the baseline fits"), ExitCode.NOTHING_FEASIBLE, "not even the baseline fits"),
        (EnvironmentProblem("no torch"), ExitCode.ENVIRONMENT, "no torch"),
        (PermissionError(13, "Permission denied", "/root/x"), ExitCode.ENVIRONMENT, "Permission denied: '/root/x'"),
        (OSError(28, "No space left on device"), ExitCode.ENVIRONMENT, "No space left on device"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
    ],
)
def test_every_kind_of_end_has_its_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException,
    code: ExitCode,
    said: str,
) -> None:
    def search(*_: object, **__: object) -> NoReturn:
        raise problem

    monkeypatch.setattr(api, "search", search)
    assert said in refused(capsys, main(["search", "s.toml"]), code)


def test_the_exit_codes_are_those_that_are_documented() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "BAD_INPUT": 2,
        "NOTHING_FEASIBLE": 3,
        "STUDY_BUSY": 4,
        "STORE_DAMAGED": 5,
        "ENVIRONMENT": 6,
        "INTERRUPTED": 75,
    }


# -- going on ----------------------------------------------------------------------------------------


@pytest.fixture
def _on_the_imagined_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corpus and machine as any study here was started with; the search itself is killed as it begins."""

    def run_search(lab: Lab) -> NoReturn:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal ends the search")

    monkeypatch.setattr(api, "prepare", lambda data, **_: MACHINE)
    monkeypatch.setattr(api, "run_search", run_search)


@pytest.mark.usefixtures("_on_the_imagined_machine")
def test_a_search_that_is_killed_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path
) -> None:
    for command in (["search", str(space_file)], ["search", str(space_file)], ["resume", "mine"]):
        code = main(["--root", str(root), *command])
        out, err = capsys.readouterr()
        assert (code, out) == (ExitCode.INTERRUPTED, "")
        last = err.splitlines()[-1]
        assert last == "autotune: the search was interrupted, nothing is lost: `autotune resume mine` goes on"
    assert [path.name for path in root.iterdir()] == ["mine"]
    assert (root / "mine" / "space.toml").read_text() == SPACE
    events = [json.loads(line) for line in (root / "mine" / "events.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in events] == ["sitting_started"] * 3
    Study.open(root / "mine").close()  # it was given back


@pytest.mark.usefixtures("_on_the_imagined_machine")
@pytest.mark.parametrize("edited", ["the file", "the study"])
def test_another_space_is_another_study(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, edited: str
) -> None:
    folder = make_study(root, space_file)
    other = SPACE.replace("[2, 4, 8]", "[2, 8]")
    (space_file if edited == "the file" else folder / "space.toml").write_text(other)
    command = ["search", str(space_file)] if edited == "the file" else ["resume", "mine"]
    err = refused(capsys, main(["--root", str(root), *command]), ExitCode.BAD_INPUT)
    assert re.search(r"'mine' differs: space was \w{16}, is \w{16}: `autotune resume mine --fork NEW` starts", err)
    space_file.write_text("# another remark\n" + SPACE)
    (folder / "space.toml").write_text(SPACE + "# and one more\n")
    assert main(["--root", str(root), *command]) == ExitCode.INTERRUPTED, "layout is no difference"


@pytest.mark.usefixtures("_on_the_imagined_machine")
def test_another_machine_is_another_study_and_a_fork_starts_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path, space_file: Path
) -> None:
    folder = make_study(root, space_file)
    now = replace(MACHINE, environment={"device": "cpu", "device_name": "another"})
    monkeypatch.setattr(api, "prepare", lambda data, **_: now)
    err = refused(capsys, main(["--root", str(root), "resume", "mine"]), ExitCode.BAD_INPUT)
    assert "hardware was device_name imagined; " in err
    assert "is device_name another; " in err

    refused(capsys, main(["--root", str(root), "resume", "mine", "--fork", "../up"]), ExitCode.BAD_INPUT)
    refused(capsys, main(["--root", str(root), "resume", "mine", "--fork", "mine"]), ExitCode.BAD_INPUT)
    assert list(root.iterdir()) == [folder]

    assert main(["--root", str(root), "resume", "mine", "--fork", "new"]) == ExitCode.INTERRUPTED
    assert "`autotune resume new` goes on" in capsys.readouterr().err
    with Study.open(root / "new") as fork:
        assert (fork.info.name, fork.info.forked_from) == ("new", "mine")
        assert fork.info.fingerprint == api.fingerprint_of(fork.space, now)
        assert fork.space.budget_seconds == load_space(space_file).budget_seconds
    assert main(["--root", str(root), "resume", "new"]) == ExitCode.INTERRUPTED, "a fork is a study like any other"

    assert main(["--root", str(root), "resume", "mine", "--fork", "longer", "--budget", "2h"]) == ExitCode.INTERRUPTED
    with Study.open(root / "longer") as fork:
        assert fork.space.budget_seconds == 7200.0


def test_a_reader_that_has_gone_away_is_no_error(space_file: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "autotune.cli", "search", str(space_file), "--dry-run"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
