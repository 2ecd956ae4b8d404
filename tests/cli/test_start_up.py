"""What starting costs: commands that only read, and importing the package, bring nothing heavy along."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

HEAVY = {"torch", "pandas", "scipy", "optuna", "ray", "numpy"}


def fresh(code: str, folder: Path) -> str:
    """What `code` prints on stdout in a new process, which works in `folder`."""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(code: str, folder: Path) -> set[str]:
    """The top-level modules that a new process has after running `code`."""
    told = fresh(f"{code}\nimport sys; print('\\nmodules', *sys.modules)", folder).splitlines()[-1]
    return {name.split(".")[0] for name in told.split()[1:]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["search", "--help"],
        ["studies"],
        ["studies", "--json"],
        ["knobs"],
        ["knobs", "--json"],
        ["report", "none"],
        ["sarch"],
        ["search", "quikstart"],
    ],
)
def test_what_only_reads_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    modules = imported_by(f"from autotune.cli import main; main({arguments})", tmp_path)
    assert "typer" in modules
    assert modules & HEAVY == set()


def test_importing_the_package_imports_nothing_but_itself(tmp_path: Path) -> None:
    code = "import autotune; autotune.studies(); autotune.__version__"
    new = imported_by(code, tmp_path) - imported_by("from importlib import metadata", tmp_path)
    assert new - set(sys.stdlib_module_names) == {"autotune"}


def test_a_driver_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    modules = imported_by("import autotune.api", tmp_path)
    assert "optuna" in modules
    assert modules.isdisjoint({"torch", "ray"})


# -- the public names --------------------------------------------------------------------------------


def test_search_is_the_function_before_and_after_its_folder_is_imported(tmp_path: Path) -> None:
    code = """
import autotune
from autotune import search
assert autotune.search is search and callable(search)
from autotune.search.common import begin
import autotune.search.race
from autotune import search as again
assert autotune.search is search is again
import sys
assert sys.modules["autotune.search"].common.begin is begin
try:
    autotune.search("none.toml")
except autotune.errors.BadInput as error:
    print(error)
"""
    assert "none.toml" in fresh(code, tmp_path)


def test_the_public_functions_are_those_of_the_api() -> None:
    import autotune
    from autotune import api

    assert set(autotune.__all__) <= set(api.__all__)
    for name in autotune.__all__:
        public, own = inspect.signature(getattr(autotune, name)), inspect.signature(getattr(api, name))
        told = [(p.name, p.kind, p.annotation, str(p.default)) for p in public.parameters.values()]
        assert told == [(p.name, p.kind, p.annotation, str(p.default)) for p in own.parameters.values()]
        assert public.return_annotation == own.return_annotation
        assert getattr(autotune, name).__doc__


def test_the_documented_examples_use_what_there_is() -> None:
    import autotune

    used = re.findall(r"autotune\.(\w+)\(", autotune.__doc__ or "")
    assert set(used) <= set(autotune.__all__)
    assert {"search", "load_study", "studies"} <= set(used)


def test_the_version_is_that_of_the_package() -> None:
    import autotune

    assert autotune.__version__ == metadata.version("autotune")
    with pytest.raises(AttributeError, match="no attribute 'sarch'"):
        autotune.sarch  # noqa: B018 - asking for it is the test
