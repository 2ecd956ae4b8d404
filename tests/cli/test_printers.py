"""What the commands print on stdout."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from report.examples import EXAMPLES, expected
from report.search_examples import CREATED_AT, WORKLOAD, claimed, interval
from rich.console import Console

from autotune.cli.printers import print_alignment, print_examination, print_knobs, print_recommendation
from autotune.measure.alignment import Alignment, Answer, Finding
from autotune.quantity import Unknown
from autotune.report import build_view
from autotune.simulation.executor import MACHINE
from autotune.space.knobs import Choice, members
from autotune.space.limits import Pruned


def plain_console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def flat(console: Console) -> str:
    return " ".join(shown(console).split())


def conclusion(name: str, width: int = 80) -> str:
    console = plain_console(width)
    view = build_view(EXAMPLES[name](), study="s [red]", created_at=CREATED_AT, folder="reports/s [red]")
    print_recommendation(view, console)
    return shown(console)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_conclusion_fits_the_terminal(name: str, width: int) -> None:
    text = conclusion(name, width)
    *lines, path = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in text
    assert path == "Report: reports/s [red]/report.html (and report.md, report.json)"  # whole, for copying


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_conclusion_says_the_words_of_the_report(name: str) -> None:
    view = build_view(EXAMPLES[name](), study="s [red]", created_at=CREATED_AT)
    text = " ".join(conclusion(name).split())
    assert view.headline in text
    for sentence in (*view.why, *(c.text for c in view.caveats)):
        assert sentence in text
    for part in (*view.parts, *view.unused):
        for sentence in (part.title, *part.text, part.guard):
            assert sentence in text
        for turn in part.turns:
            assert f"{turn.knob} {turn.old} -> {turn.new}" in text
        for figure in part.figures:
            assert figure.label in text
            assert figure.shown.value in text
    for change in view.changes:
        assert change.knob in text
    for technique in view.techniques:
        assert technique.verdict in text
        assert technique.speed.value in text


def test_every_key_figure_stands_in_the_conclusion_once() -> None:
    view = build_view(claimed(), study="s", created_at=CREATED_AT)
    figures = [*view.carried, *(f for group in view.groups for f in group.figures)]
    assert len({f.label for f in figures}) == len(figures)
    text = " ".join(conclusion("claimed", 200).split())
    for figure in figures:
        assert f"{figure.label} {figure.shown.text}" in text


def test_what_is_expected_comes_after_what_is_shown_and_in_another_colour() -> None:
    view = build_view(expected(), study="s", created_at=CREATED_AT)
    coloured = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    print_recommendation(view, coloured)
    text = shown(coloured)
    assert text.index("\x1b[1;32mShown") < text.index("\x1b[1;35mExpected, not shown") < text.index("Key figures")


def test_what_is_not_known_is_named_with_its_reason_once() -> None:
    text = " ".join(conclusion("not_informative", 200).split())
    assert text.count(": the budget ended before the confirmation") == 2, "the headline and the table"
    assert "Speed-up to the same loss, Throughput, Token efficiency" in text


def test_colour_is_used_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    view = build_view(claimed(), study="s", created_at=CREATED_AT)
    coloured = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    print_recommendation(view, coloured)
    assert "\x1b[1;32m" in shown(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    grey = Console(file=io.StringIO(), width=80, force_terminal=True)
    print_recommendation(view, grey)
    assert "32m" not in shown(grey)


def test_the_table_of_knobs_names_every_knob_with_its_values() -> None:
    console = plain_console()
    print_knobs(WORKLOAD.knobs, console)
    text = flat(console)
    for knob in WORKLOAD.knobs.values():
        assert knob.name in text
        assert f"technique {knob.technique}" in text
        if isinstance(knob.domain, Choice) and knob.kind is str:
            for value in members(knob.domain):
                assert str(value) in text
    assert "int from 1 to 1,048,576" in text
    assert "float from 1e-08 to 10" in text
    assert "float from 0 to 1,000,000" in text
    assert "false | true" in text
    assert all(len(line) <= 80 for line in shown(console).splitlines())


def test_an_examination_names_machine_rates_and_what_is_skipped() -> None:
    console = plain_console()
    gone = Pruned(knob="attention", value="cudnn", reason="no [bold]backend\x1b[31m")
    machine = replace(MACHINE, environment={"logical_cores": "2"}, peak_flops={"fp32": 60e9, "bf16": 90e9})
    print_examination(machine, [gone], "", console)
    text = flat(console)
    assert "tokens 100,000,000 to train on, 1,000,000 held out (0.99 %)" in text
    assert "logical cores 2" in text
    assert "fp32 matmul 60.0 GFLOP/s" in text
    assert "bf16 matmul 90.0 GFLOP/s, 1.50x fp32" in text
    assert "studies folder writable" in text
    assert "attention = cudnn no [bold]backend [31m" in text


def test_an_examination_that_finds_nothing_to_skip_says_so() -> None:
    console = plain_console()
    print_examination(replace(MACHINE, peak_flops={"bf16": 90e9}), [], "reports is a file", console)
    assert "bf16 matmul 90.0 GFLOP/s" in flat(console)
    assert "studies folder reports is a file" in flat(console)
    assert flat(console).endswith("This machine can run every value in the space.")


def test_alignment_is_told_with_its_noise_floor() -> None:
    console = plain_console()
    finding = Finding(claim="64 over 62", ratio=interval(1.21, 1.17, 1.25), answer=Answer.TRUE)
    print_alignment(Alignment(floor=0.021, findings=(finding,)), console)
    assert "64 over 62 1.21x true here 1.17-1.25" in flat(console)
    assert flat(console).endswith("Noise floor: 2.1 %.")
    unsure = plain_console()
    print_alignment(Alignment(floor=Unknown(reason="one restart"), findings=()), unsure)
    assert flat(unsure).endswith("Noise floor: not known: one restart.")


def test_printing_needs_no_statistics() -> None:
    code = "import sys, autotune.cli.printers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    heavy = {"torch", "pandas", "scipy", "optuna", "ray", "numpy"}
    assert heavy.isdisjoint(name.split(".")[0] for name in done.stdout.split())
