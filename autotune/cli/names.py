"""Looks up the spaces, studies and knobs that a user names. For a wrong name it suggests the closest one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotune.errors import BadInput
from autotune.space.keys import did_you_mean
from autotune.space.knobs import Knob
from autotune.space.shipped import shipped_spaces
from autotune.study.listing import studies


def find_space(name: str) -> Path:
    """The space file at the path `name`, else the shipped space of that name.

    Raises:
        BadInput: it is neither. An existing path is not read.
    """
    path, shipped = Path(name), shipped_spaces()
    if path.is_file() or (path.exists() and name not in shipped):
        return path
    if name in shipped:
        return shipped[name]
    beside = [str(p) for p in sorted(path.parent.glob("*.toml"))]
    known = (*shipped, *beside) if path.name == name else (*beside, *shipped)
    raise BadInput(f"a space is a TOML file or a shipped space; there is no {name!r}: {did_you_mean(name, known)}")


def find_study(name: str, root: Path) -> str:
    """`name` itself if `root` has a study of that name.

    Raises:
        BadInput: there is none.
    """
    known = [study.name for study in studies(root)]
    if name not in known:
        remedy = did_you_mean(name, known) if known else "`autotune search` starts one"
        raise BadInput(f"a study is a folder with study.json in {str(root)!r}; there is no {name!r}: {remedy}")
    return name


def find_knob(name: str, knobs: Mapping[str, Knob]) -> Knob:
    """The knob of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in knobs:
        raise BadInput(f"a knob is one of those of `autotune knobs`; there is no {name!r}: {did_you_mean(name, knobs)}")
    return knobs[name]


def spaces_like(incomplete: str) -> list[str]:
    """Shell completions for a space: shipped spaces, and paths of TOML files and folders."""
    folder = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    near = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [f"{path}/" if path.is_dir() else str(path) for path in near if path.is_dir() or path.suffix == ".toml"]
    return [name for name in (*shipped_spaces(), *files) if name.startswith(incomplete)]


def studies_like(incomplete: str, root: Path) -> list[str]:
    """Shell completions for a study."""
    names = [study.name for study in studies(root)]
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]
