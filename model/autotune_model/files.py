"""Finding the files of a corpus: a file, a folder, a glob, or the standard library.

Only regular files are text. A folder may hold anything else (links to nothing, pipes, devices, folders that cannot be
read): each is counted with its reason. Linked folders are not entered, so no loop of links has an end to miss.
"""

from __future__ import annotations

import os
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune_model.config import InvalidConfiguration
from autotune_model.left_out import WORDS, LeftOut, Reason, Tally

_NOT_OURS = frozenset({"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"})
"""Folders of the standard library that hold tests, or packages that differ between machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The regular files of a corpus, sorted, and what is none. A file that was `named` by itself must be text."""

    paths: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]
    named: bool


def find_files(corpus: str) -> Files:
    """The files that `corpus` names.

    Raises:
        InvalidConfiguration: it names no file, or something that is no regular file or folder.
    """
    tally = Tally()
    if corpus == "stdlib":
        below = _walk(Path(sysconfig.get_path("stdlib")), Tally(), _NOT_OURS)
        return _found([path for path in below if path.suffix == ".py"], tally, corpus)
    path = Path(corpus).expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null byte is a ValueError
        if path.is_symlink():
            raise refusal(path, Reason.BROKEN_LINK) from None
        return _found([match for match in _matches(path) if _is_text_file(match, tally)], tally, corpus)
    except OSError as error:
        raise InvalidConfiguration(
            f"corpus must name a path that can be looked at; got {corpus!r} ({error.strerror}): check path and access"
        ) from None
    if stat.S_ISDIR(mode):
        return _found(_walk(path.resolve(), tally), tally, corpus)
    if not stat.S_ISREG(mode):
        raise refusal(path, Reason.NOT_REGULAR)
    return Files(paths=(path.resolve(),), left_out=(), named=True)


def refusal(path: Path, reason: Reason) -> InvalidConfiguration:
    """The error for a path that was named by itself, and cannot be used."""
    words, remedy = WORDS[reason]
    return InvalidConfiguration(
        f"a corpus must be text in regular files; got {str(path)!r}, which is {words}: {remedy}"
    )


def _found(paths: list[Path], tally: Tally, corpus: str) -> Files:
    if not paths:
        rows = tally.rows()
        seen = f", only what is {WORDS[rows[0].reason][0]} ({rows[0].examples[0]})" if rows else ""
        raise InvalidConfiguration(
            f'corpus must name a text file, a folder, a glob or "stdlib"; got {corpus!r}, where no file is{seen}: '
            "check the path"
        )
    return Files(paths=tuple(sorted(paths)), left_out=tally.rows(), named=False)


def _matches(pattern: Path) -> Iterator[Path]:
    """What a glob matches, hidden names only where it spells the point. `**` enters no linked folder."""
    parts = pattern.absolute().parts
    if parts[-1] == "**":
        parts = (*parts, "*")
    spelt = sum(part.startswith(".") for part in parts)
    try:
        found = sorted(Path(parts[0]).glob(str(Path(*parts[1:]))))
    except (OSError, ValueError):  # a name too long, or a pattern that is none
        return
    for path in found:
        if sum(part.startswith(".") for part in path.parts) <= spelt and not path.is_dir():
            yield path.parent.resolve() / path.name


def _walk(folder: Path, tally: Tally, passed_over: frozenset[str] = frozenset()) -> list[Path]:
    """All regular files below a folder; hidden ones and linked folders are counted, not read."""
    found: list[Path] = []
    pending = [folder]
    while pending:
        parent = pending.pop()
        try:
            with os.scandir(parent) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            tally.add(Reason.UNREADABLE, parent, None)
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                tally.add(Reason.HIDDEN, path, None)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in passed_over:
                    pending.append(path)
            elif _is_text_file(path, tally):
                found.append(path)
    return found


def _is_text_file(path: Path, tally: Tally) -> bool:
    """Whether a path is a regular file with something in it; else it is counted."""
    try:
        state = path.stat()
    except OSError:
        reason = Reason.BROKEN_LINK if path.is_symlink() else Reason.UNREADABLE
        tally.add(reason, path, 0 if reason is Reason.BROKEN_LINK else None)
        return False
    if stat.S_ISDIR(state.st_mode):
        tally.add(Reason.LINKED_FOLDER, path, None)
    elif not stat.S_ISREG(state.st_mode):
        tally.add(Reason.NOT_REGULAR, path, 0)
    elif state.st_size == 0:
        tally.add(Reason.EMPTY, path, 0)
    else:
        return True
    return False
