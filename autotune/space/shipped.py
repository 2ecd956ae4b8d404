"""The spaces that come with autotune: TOML files to copy and edit, or to search by name."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = (_PACKAGE / "search_spaces", _PACKAGE.parent / "search_spaces")
"""Inside the package if it was installed from a wheel, beside it in a checkout."""


def shipped_spaces() -> dict[str, Path]:
    """Path of every shipped space by name, sorted by name."""
    folder = next((f for f in _FOLDERS if f.is_dir()), _FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
