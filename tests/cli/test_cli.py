"""The command line: what it offers, what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import typer
from small_space import SPACE

from autotune import api
from autotune.cli import main, names
from autotune.cli.app import app
from autotune.errors import BadInput, EnvironmentProblem, ExitCode, NothingFeasible
from autotune.measure.lab import Lab
from autotune.simulation.executor import MACHINE
from autotune.study.store import FORMAT, Study, StudyInfo
from autotune.workload.builtin import KNOBS


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


def make_study(root: Path, space_file: Path, name: str, *, created_at: str = "2026-02-03T04:05:06") -> Path:
    """A study that was created and never searched."""
    info = StudyInfo(
        format=FORMAT,
        created_at=f"{created_at}+00:00",
        space_name=space_file.stem,
        corpus="stdlib",
        corpus_as_written="stdlib",
        budget_seconds=600.0,
        identity={},
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


def test_the_commands_and_their_options() -> None:
    group: Any = typer.main.get_command(app)
    own = {"--install-completion", "--show-completion"}

    def options_of(command: Any) -> set[str]:
        return {name for p in command.params if p.param_type_name == "option" for name in p.opts} - own

    assert options_of(group) == {"--version", "--root", "--json"}
    assert {name: options_of(command) for name, command in group.commands.items()} == {
        "search": {"--data", "--study", "--budget", "--baseline-log", "--executor", "--dry-run", "--root", "--json"},
        "resume": {"--fork", "--space", "--budget", "--baseline-log", "--executor", "--root", "--json"},
        "look": {"--baseline-log", "--root", "--json"},
        "report": {"--root", "--json"},
        "studies": {"--root", "--json"},
        "knobs": {"--json"},
        "doctor": {"--executor", "--root", "--json"},
        "techniques": {"--restarts", "--executor", "--json"},
    }


COMMANDS = ("search", "resume", "look", "report", "studies", "knobs", "doctor", "techniques")


def test_help_groups_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, main(["--help"]))
    places = [text.index(f"─ {group} ─") for group in ("Search", "Results", "Before a search")]
    assert places == sorted(places)
    for command in COMMANDS:
        assert re.search(rf"^│ {command} ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_of_a_command_has_examples(capsys: pytest.CaptureFixture[str], command: str, flag: str) -> None:
    text = printed(capsys, main([command, flag]))
    assert "Examples:" in text
    assert f" autotune {command}" in text.partition("Examples:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_command_can_be_parsed(command: str) -> None:
    group: Any = typer.main.get_command(app)
    examples = re.findall(r"`autotune (.*)`", group.commands[command].epilog)
    assert examples
    for example in examples:
        name, *arguments = example.split()
        assert name == command
        group.commands[command].make_context(name, arguments)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, main(["--version"])) == f"autotune {metadata.version('autotune')}\n"


def test_python_m_autotune_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autotune", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"autotune {metadata.version('autotune')}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command. See `autotune --help`."),
        (["sarch"], "Did you mean 'search'? See `autotune --help`."),
        (["search"], "Missing argument 'SPACE'. See `autotune search --help`."),
        (["search", "x.toml", "--buget", "1h"], "--budget"),
        (["studies", "mine"], "(mine). See `autotune studies --help`."),
        (["techniques", "--restarts", "few"], "'--restarts'"),
        (["techniques", "--restarts", "1"], "--restarts must be at least 2 for an interval; got 1: use 4"),
        (["search", "quickstart", "--executor", "lokal"], "got 'lokal': did you mean local?"),
    ],
)
def test_what_is_no_command_line_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refused(capsys, main(arguments), ExitCode.BAD_INPUT)


def test_a_shell_completes_commands_spaces_and_studies(root: Path, space_file: Path) -> None:
    make_study(root, space_file, "mine")

    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        environment = os.environ | words | {"_AUTOTUNE_COMPLETE": "complete_bash"}
        command = [sys.executable, "-m", "autotune"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)
        return done.stdout.split()

    assert completed("autotune se") == ["search"]
    assert completed("autotune search quick") == ["quickstart"]
    assert completed("autotune search ../mi") == ["../mine.toml"]
    assert completed("autotune report --root . m") == ["mine"]
    assert completed("autotune --root . resume m") == ["mine"]
    assert completed("autotune knobs learning_r") == ["learning_rate"]


# -- knobs -------------------------------------------------------------------------------------------


def test_every_knob_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, main(["knobs"])).splitlines()
    assert [name for name in KNOBS if not any(re.match(rf"\W*{name}\b", line) for line in lines)] == []


def test_one_knob_is_shown_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, main(["knobs", "dtype"]))
    assert "dtype" in text
    assert "micro_batch" not in text


@pytest.mark.parametrize("arguments", [["--json", "knobs"], ["knobs", "--json"]])
def test_knobs_as_json_have_their_domains(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    listed = {knob["name"]: knob for knob in json.loads(printed(capsys, main(arguments)))}
    assert list(listed) == list(KNOBS)
    assert "bf16_autocast" in listed["dtype"]["domain"]["values"]
    assert set(listed["learning_rate"]["domain"]) == {"low", "high", "log"}


def test_a_wrong_knob_is_met_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean dtype?" in refused(capsys, main(["knobs", "dtyp"]), ExitCode.BAD_INPUT)


# -- studies and reports -----------------------------------------------------------------------------


def test_without_studies_there_is_nothing_to_list(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    assert printed(capsys, main(["--root", str(root), "studies"])) == ""
    assert not root.exists()


@pytest.mark.parametrize("before", [True, False])
def test_studies_are_listed_with_their_state(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, before: bool
) -> None:
    make_study(root, space_file, "older")
    done = make_study(root, space_file, "done", created_at="2026-12-31T23:59:59")
    (done / "report.json").write_text('{"verdict": "keep_baseline"}')
    (make_study(root, space_file, "broken") / "study.json").write_text("[1]")
    where = ["--root", str(root)]
    command = [*where, "studies"] if before else ["studies", *where]
    with Study.open(root / "older"):  # listing neither waits for the owner nor disturbs it
        lines = printed(capsys, main(command)).splitlines()
    assert [line.split() for line in lines] == [
        ["broken", "damaged", "it", "is", "no", "JSON", "object"],
        ["done", "keep_baseline", "2026-12-31", "23:59", "mine"],
        ["older", "unfinished", "2026-02-03", "04:05", "mine"],
    ]
    states = {study["name"]: study["state"] for study in json.loads(printed(capsys, main([*command, "--json"])))}
    assert states == {"broken": "damaged", "done": "keep_baseline", "older": "unfinished"}


def test_a_report_is_printed_as_it_was_written(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path
) -> None:
    folder = make_study(root, space_file, "mine")
    (folder / "report.md").write_text("# Größe\n")
    (folder / "report.json").write_text('{"verdict": "adopt"}\n')
    assert printed(capsys, main(["--root", str(root), "report", "mine"])) == "# Größe\n"
    for command in (["report", "mine", "--json"], ["--json", "report", "mine"]):
        assert printed(capsys, main(["--root", str(root), *command])) == '{"verdict": "adopt"}\n'


def test_a_report_and_a_listing_cannot_control_the_terminal(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path
) -> None:
    folder = make_study(root, space_file, "mine")
    (folder / "report.md").write_text("# a\x1b]0;b\x07\tc\n\u202ed\n")
    (folder / "report.json").write_text('{"verdict": "\\u001b[2Jadopt", "x": "\u202e\x9b"}\n')
    folder.rename(root / "mi\x1b[2J\nne")
    folder = make_study(root, space_file, "mine")
    (folder / "report.md").write_text("# a\x1b]0;b\x07\tc\n\u202ed\n")
    (folder / "report.json").write_text('{"verdict": "adopt", "x": "\u202e\x9b"}\n')
    where = ["--root", str(root)]
    assert printed(capsys, main([*where, "report", "mine"])) == "# a\\u001b]0;b\\u0007\tc\n\\u202ed\n"
    out = printed(capsys, main([*where, "report", "mine", "--json"]))
    assert json.loads(out) == {"verdict": "adopt", "x": "\u202e\x9b"}
    assert out.isascii()
    lines = printed(capsys, main([*where, "studies"])).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["mi\\u001b[2J\\u000ane", "\\u001b[2Jadopt"],
        ["mine", "adopt"],
    ]
    err = refused(capsys, main([*where, "report", "m\x1bine"]), ExitCode.BAD_INPUT)
    assert err[:-1].isprintable()


def test_a_report_that_was_changed_is_not_shown(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path
) -> None:
    make_study(root, space_file, "mine")
    with Study.open(root / "mine") as study:
        study.keep_report({"report.json": '{"verdict": "keep"}\n', "report.md": "# Keep\n"})
    where = ["--root", str(root)]
    assert printed(capsys, main([*where, "report", "mine"])) == "# Keep\n"
    (root / "mine" / "report.md").write_text("# Keel\n")
    err = refused(capsys, main([*where, "report", "mine"]), ExitCode.STORE_DAMAGED)
    assert err.endswith("report.md has changed since it was written: `autotune resume mine` writes it anew\n")
    (root / "mine" / "report.json").unlink()
    (study,) = json.loads(printed(capsys, main([*where, "studies", "--json"])))
    assert study["state"] == "damaged"
    assert study["reason"] == "report.json is missing: `autotune resume mine` writes it anew"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unfinished_study_has_no_report_yet(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, flags: list[str]
) -> None:
    make_study(root, space_file, "mine")
    err = refused(capsys, main(["--root", str(root), "report", "mine", *flags]), ExitCode.BAD_INPUT)
    assert err.endswith("'mine' is not finished: `autotune resume mine` continues it\n")


@pytest.mark.parametrize("command", ["report", "resume"])
def test_a_wrong_study_is_met_with_the_right_one(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, command: str
) -> None:
    assert "`autotune search` starts one" in refused(
        capsys, main(["--root", str(root), command, "mnie"]), ExitCode.BAD_INPUT
    )
    make_study(root, space_file, "mine")
    err = refused(capsys, main(["--root", str(root), command, "mnie"]), ExitCode.BAD_INPUT)
    assert "there is no 'mnie': did you mean mine?" in err


# -- searching ---------------------------------------------------------------------------------------


class Examiner:
    """An executor that has examined a machine, and opens nothing."""

    slots = 1
    machine = MACHINE

    def examine(self, _order: object, *, limit_seconds: float = 0.0) -> Any:
        return self.machine

    def load(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Examiner:
    """The machine that every executor finds."""
    examiner = Examiner()
    monkeypatch.setattr(api, "open_executor", lambda _name: examiner)
    return examiner


@pytest.mark.usefixtures("machine")
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


@pytest.mark.usefixtures("machine")
def test_a_shipped_space_is_found_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a folder of that name is no space
    assert json.loads(printed(capsys, main(["search", "quickstart", "--dry-run", "--json"])))["space"] == "quickstart"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("quikstart", "quickstart"),
        ("mine.tml", "mine.toml"),
        ("folder/mnie.toml", "folder/mine.toml"),
    ],
)
@pytest.mark.parametrize("command", ["search", "doctor", "techniques"])
def test_a_wrong_space_is_met_with_the_right_one(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    space_file: Path,
    command: str,
    name: str,
    meant: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.toml").write_text(SPACE)
    err = refused(capsys, main([command, name]), ExitCode.BAD_INPUT)
    assert err.endswith(f"there is no {name!r}: did you mean {meant}?\n")


def test_every_option_of_a_search_reaches_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path, space_file: Path
) -> None:
    calls: list[tuple[str, Any, dict[str, Any]]] = []
    folder = make_study(root, space_file, "n")
    (folder / "report.json").write_text('{"verdict": "adopt"}\n')

    def called(name: str) -> Any:
        def stand_in(subject: Any, **options: Any) -> SimpleNamespace:
            assert len(options.pop("listeners")) == 1
            calls.append((name, subject, options))
            return SimpleNamespace(folder=folder)

        return stand_in

    monkeypatch.chdir(space_file.parent)
    monkeypatch.setattr(api, "search", called("search"))
    monkeypatch.setattr(api, "resume", called("resume"))
    for command in (
        "search mine.toml --json",
        "--root r search mine.toml --data d --study n --budget 90s --executor ray --json",
        "--json resume n --root root",
        "--root r resume n --root root --fork f --space mine.toml --budget 2h --executor ray --json",
        "--root root resume n --budget 20m --json",
    ):
        assert printed(capsys, main(command.split())) == '{"verdict": "adopt"}\n'
    usual = {"budget_seconds": 0.0, "executor": "local"}
    usual |= {"baseline_log": ""}
    search, resume = {"data": "", "study": ""} | usual, {"fork": "", "space_path": ""} | usual
    assert calls == [
        ("search", Path("mine.toml"), search | {"root": Path("reports")}),
        (
            "search",
            Path("mine.toml"),
            search | {"data": "d", "study": "n", "budget_seconds": 90.0, "root": Path("r"), "executor": "ray"},
        ),
        ("resume", "n", resume | {"root": Path("root")}),
        (
            "resume",
            "n",
            resume
            | {
                "fork": "f",
                "space_path": Path("mine.toml"),
                "budget_seconds": 7200.0,
                "root": Path("root"),
                "executor": "ray",
            },
        ),
        ("resume", "n", resume | {"root": Path("root"), "budget_seconds": 1200.0}),
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("search folder", "a space is a readable TOML file; got 'folder' (Is a directory)"),
        ("search bad.toml", "bad.toml:1: a search space needs a table"),
        ("search bad.toml --dry-run", "bad.toml:1: a search space needs a table"),
        ("search mine.toml --budget soon", "a duration is a number with s, m, h or d; got 'soon'"),
        ("search mine.toml --budget 0s", "a duration is a number with s, m, h or d; got '0s'"),
        ("search mine.toml --study ../up", "a study's name is at most 60 letters"),
        ("search mine.toml --study ../up --dry-run", "a study's name is at most 60 letters"),
        ("resume old --fork x --budget soon", "a duration is a number with s, m, h or d; got 'soon'"),
        ("resume old --fork ../up", "a study's name is at most 60 letters"),
        ("resume old --fork old", "a new study needs a new name; got 'old', which exists"),
        ("resume old --space mine.toml", "--space is for a fork; got it without --fork: add --fork NEW"),
        ("resume ../old", "there is no '../old'"),
        ("report ../root/old", "there is no '../root/old'"),
    ],
)
def test_bad_input_is_one_line_and_creates_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    root: Path,
    space_file: Path,
    command: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("# nothing\n")
    (tmp_path / "folder").mkdir()
    make_study(root, space_file, "old")

    def files() -> list[Path]:
        return sorted(path for path in tmp_path.rglob("*") if path.name not in ("lock", "events.jsonl"))

    before = files()
    assert said in refused(capsys, main(["--root", "root", *command.split()]), ExitCode.BAD_INPUT)
    assert files() == before


def test_a_study_that_is_owned_is_busy(capsys: pytest.CaptureFixture[str], root: Path, space_file: Path) -> None:
    make_study(root, space_file, "mine")
    with Study.open(root / "mine"):
        err = refused(capsys, main(["--root", str(root), "resume", "mine"]), ExitCode.STUDY_BUSY)
    assert f"'mine' is owned by process {os.getpid()}: wait for it or stop it" in err


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"verd', b"\xff"])
def test_a_damaged_study_is_named_and_not_resumed(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, content: bytes
) -> None:
    folder = make_study(root, space_file, "mine")
    (folder / "study.json").write_bytes(content)
    err = refused(capsys, main(["--root", str(root), "resume", "mine"]), ExitCode.STORE_DAMAGED)
    assert str(folder / "study.json") in err


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (NothingFeasible("not even the baseline fits"), ExitCode.NOTHING_FEASIBLE, "not even the baseline fits"),
        (EnvironmentProblem("no torch"), ExitCode.ENVIRONMENT, "no torch"),
        (PermissionError(13, "Permission denied", "/root/x"), ExitCode.ENVIRONMENT, "Permission denied: '/root/x'"),
        (OSError(28, "No space left on device"), ExitCode.ENVIRONMENT, "No space left on device"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (MemoryError(), ExitCode.ENVIRONMENT, "autotune needs more memory than there is"),
        (BadInput("a \x1b[2J key\n\u202e"), ExitCode.BAD_INPUT, "a \\u001b[2J key\\u000a\\u202e"),
    ],
)
def test_every_kind_of_end_has_its_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    space_file: Path,
    problem: BaseException,
    code: ExitCode,
    said: str,
) -> None:
    def search(*_: object, **__: object) -> NoReturn:
        raise problem

    monkeypatch.setattr(api, "search", search)
    assert said in refused(capsys, main(["search", str(space_file)]), code)


def test_the_exit_codes_are_those_that_are_documented() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0,
        "BAD_INPUT": 2,
        "NOTHING_FEASIBLE": 3,
        "STUDY_BUSY": 4,
        "STORE_DAMAGED": 5,
        "ENVIRONMENT": 6,
        "BUG": 70,
        "INTERRUPTED": 75,
    }


@pytest.mark.parametrize("problem", [KeyError("x\x1b"), RecursionError("deep"), ExceptionGroup("several", [OSError()])])
def test_a_bug_is_one_line_and_its_traceback_is_kept(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    space_file: Path,
    problem: Exception,
) -> None:
    def search(*_: object, **__: object) -> NoReturn:
        raise problem

    monkeypatch.setattr(api, "search", search)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    err = refused(capsys, main(["search", str(space_file)]), ExitCode.BUG)
    (kept,) = tmp_path.glob("autotune-bug-*.txt")
    assert err.startswith(f"autotune: this is a bug ({type(problem).__name__}: ")
    assert f"test_cli.py:{search.__code__.co_firstlineno + 1})" in err
    assert err.endswith(f"its traceback is in {kept}: please report it with that file\n")
    assert "Traceback (most recent call last)" in kept.read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert "could not be kept (No such file or directory)" in refused(
        capsys, main(["search", str(space_file)]), ExitCode.BUG
    )


# -- going on ----------------------------------------------------------------------------------------


@pytest.fixture
def killed(machine: Examiner, monkeypatch: pytest.MonkeyPatch) -> list[Lab]:
    """Every search is killed as it begins; what it was about to run on."""
    labs: list[Lab] = []

    def run_search(lab: Lab) -> NoReturn:
        labs.append(lab)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal ends the search")

    monkeypatch.setattr(api, "run_search", run_search)
    return labs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_many_interrupts_are_one(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    space_file: Path,
    machine: Examiner,
    number: signal.Signals,
) -> None:
    class Impatient(Lab):
        def close(self) -> None:
            for _ in range(3):
                os.kill(os.getpid(), number)
            super().close()

    def run_search(_lab: Lab) -> NoReturn:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal ends the search")

    monkeypatch.setattr(api, "run_search", run_search)
    monkeypatch.setattr(api, "Lab", Impatient)
    signal.signal(number, signal.default_int_handler)  # a job in the background begins with some of them ignored
    code = main(["--root", str(root), "search", str(space_file)])
    assert code == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.endswith("`autotune resume mine` continues it\n")


def test_what_is_ignored_stays_ignored(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        monkeypatch.setattr(names, "did_you_mean", lambda *_: os.kill(os.getpid(), signal.SIGHUP) or "go on")
        assert "go on" in refused(capsys, main(["knobs", "dtyp"]), ExitCode.BAD_INPUT)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_search_that_is_killed_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, killed: list[Lab]
) -> None:
    for command in (["search", str(space_file)], ["search", str(space_file)], ["resume", "mine"]):
        code = main(["--root", str(root), *command])
        out, err = capsys.readouterr()
        assert (code, out) == (ExitCode.INTERRUPTED, "")
        last = err.splitlines()[-1]
        assert last == "autotune: the search was interrupted, nothing is lost: `autotune resume mine` continues it"
    assert [path.name for path in root.iterdir()] == ["mine"]
    assert len(killed) == 3
    lines = (root / "mine" / "events.jsonl").read_text().splitlines()
    assert len(lines) == 4, "a search that has measured nothing makes way for another one; the third goes on with it"
    Study.open(root / "mine").close()  # it was given back


def test_a_budget_is_raised_without_a_fork(root: Path, space_file: Path, killed: list[Lab]) -> None:
    main(["--root", str(root), "search", str(space_file), "--budget", "10m"])
    main(["--root", str(root), "resume", "mine", "--budget", "20m"])
    main(["--root", str(root), "resume", "mine"])
    assert [lab.budget.total_seconds for lab in killed] == [600.0, 1200.0, 1200.0]


def test_another_machine_is_named_and_a_fork_starts_a_new_study(
    capsys: pytest.CaptureFixture[str], root: Path, space_file: Path, machine: Examiner, killed: list[Lab]
) -> None:
    where = ["--root", str(root)]
    main([*where, "search", str(space_file)])
    machine.machine = replace(MACHINE, environment={"device": "cpu", "device_name": "another"})
    capsys.readouterr()
    err = refused(capsys, main([*where, "resume", "mine"]), ExitCode.BAD_INPUT)
    assert f"hardware.device_name was {MACHINE.environment['device_name']}, is another" in err
    assert "`autotune resume mine --fork NEW` starts a new study from it" in err

    assert main([*where, "resume", "mine", "--fork", "new"]) == ExitCode.INTERRUPTED
    assert "`autotune resume new` continues it" in capsys.readouterr().err
    assert main([*where, "resume", "new"]) == ExitCode.INTERRUPTED, "a fork is a study like any other"


def test_a_fork_takes_the_space_that_is_given(root: Path, space_file: Path, killed: list[Lab]) -> None:
    where = ["--root", str(root)]
    main([*where, "search", str(space_file)])
    space_file.write_text(SPACE.replace("[2, 4, 8]", "[2, 8]"))
    main([*where, "resume", "mine", "--fork", "old-space"])
    main([*where, "resume", "mine", "--fork", "new-space", "--space", str(space_file)])
    assert [len(lab.space.values["micro_batch"]) for lab in killed] == [3, 3, 2]


@pytest.mark.parametrize("flag", [["--help"], ["knobs"]])
def test_a_reader_that_has_gone_away_is_no_error(flag: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "autotune", *flag]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("columns", ["0", "00", "-4", "wide", ""])
def test_a_terminal_that_says_it_has_no_size_shows_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["knobs", "dtype"]) == 0
    assert "bf16_autocast" in capsys.readouterr().out
