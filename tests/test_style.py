"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("autotune", "model") for path in (ROOT / package).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


def broken_rules(source: str) -> Iterator[str]:
    """What a source does that none of ours may: run data as code, use a shell, time with a clock that can jump."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                imported = {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                imported = {module.split(".")[0]}
                if module == "time" and any(alias.name == "time" for alias in names):
                    yield "time.time"
            case _:
                imported = set()
        yield from imported & UNSAFE_MODULES
        match node:
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen" as name)):
                yield f"os.{name}"
            case ast.Attribute(value=ast.Name(id="time"), attr="time"):
                yield "time.time"
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                yield "shell=True"
            case ast.keyword(arg="weights_only", value=ast.Constant(value=False)):
                yield "weights_only=False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_runs_data_or_shells_or_times_by_the_calendar(path: Path) -> None:
    assert list(broken_rules(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("eval('1')", "eval"),
        ("exec('1')", "exec"),
        ("subprocess.run('ls', shell=True)", "shell=True"),
        ("os.system('ls')", "os.system"),
        ("import time\nbegan = time.time()", "time.time"),
        ("from time import time", "time.time"),
        ("torch.load(path, weights_only=False)", "weights_only=False"),
    ],
)
def test_the_rules_are_noticed_when_broken(source: str, rule: str) -> None:
    assert list(broken_rules(source)) == [rule]


def test_what_only_looks_like_a_broken_rule_is_none() -> None:
    assert list(broken_rules("model.eval()\nre.compile('x')\ntime.monotonic()\nrun(shell=False)")) == []


def imported_by(module: str) -> set[str]:
    """The top-level modules that importing `module` brings into a fresh process."""
    code = f"import sys; had = set(sys.modules); import {module}; print(*(set(sys.modules) - had))"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_driver_shares_only_the_standard_library_part_of_the_model() -> None:
    modules = imported_by("autotune_model.config")
    assert "autotune_model" in modules
    assert modules - sys.stdlib_module_names == {"autotune_model"}
