"""What a study is: its description in `study.json`, its name, and where its text lies."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune.errors import BadInput, StoreDamaged
from autotune.space.configuration import Configuration
from autotune.space.document import SpaceDocument
from autotune.study.folder import Folder, Unreadable
from autotune.study.seal import Broken, sealed, unsealed
from autotune.trial.codec import from_json, to_json

FORMAT = 3
FILE = "study.json"
NO_PATH = "stdlib"  # a corpus that lies nowhere
_LONGEST_NAME = 60  # characters: file systems allow 255 bytes
_NAME_RULE = (
    f"a study's name is at most {_LONGEST_NAME} letters, digits, '.', '_' and '-', and must not start with '.' or '-'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInfo:
    """The description of a study. Its name is its folder's name, so it can be moved, renamed and copied.

    `corpus` is the text trained on, `corpus_beside` the same from the study's folder, for a tree that is moved whole.
    `corpus_as_written` is the text named in its copy of the space, which `--data` may override. `identity` holds, by
    key, all that its measurements depend on: model, text, code and hardware, but not plan, prices or budget.
    `warm_start` are configurations of the study it was forked from, best first. `id` is random and in each of its
    files. `space_sha256` is that of `space.toml` as the study wrote it. Both are empty in studies made before them.
    """

    format: int
    created_at: str
    space_name: str
    corpus: str
    corpus_as_written: str
    budget_seconds: float
    identity: Mapping[str, str]
    forked_from: str = ""
    warm_start: tuple[Configuration, ...] = ()
    id: str = ""
    corpus_beside: str = ""
    space_sha256: str = ""


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """One clause per key in which two identities differ, with both values in full."""
    return tuple(
        f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    )


def check_name(name: str) -> str:
    """Return `name` if it is a legal name of a study.

    Raises:
        BadInput: it is not.
    """
    is_legal = 0 < len(name) <= _LONGEST_NAME and name[0] not in ".-" and all(c.isalnum() or c in "._-" for c in name)
    if not is_legal:
        raise BadInput(f"{_NAME_RULE}; got {name!r}: try 'my-study'")
    return name


def read_info(folder: Folder) -> StudyInfo:
    """The description of the study in `folder`.

    Raises:
        BadInput: there is none, or it is of another version.
        StoreDamaged: it cannot be read.
    """
    path = folder.path / FILE
    try:
        text = folder.read(FILE)
        if text is None:
            raise no_study(folder.path)
        plain = unsealed(text, None)
        found = plain.get("format")
        if isinstance(found, int) and found != FORMAT:
            raise BadInput(
                f"this version resumes studies of format {FORMAT}; got format {found} in {folder.path.name!r}, of "
                "another version: it can be read (`autotune report`); to search again, use its space.toml under a new "
                "name"
            )
        info = from_json(StudyInfo, plain)
        if info.id:
            unsealed(text, info.id)
        return info
    except (Unreadable, Broken, ValueError) as error:
        raise StoreDamaged(
            f"a study's files must be valid; {path} is not ({error}): restore it from a copy, or start a new study"
        ) from None


def id_of(folder: Folder) -> str | None:
    """The id in the study's files; None if it cannot be known."""
    try:
        found = unsealed(folder.read(FILE) or b"", None).get("id", "")
    except (Unreadable, Broken):
        return None
    return found if isinstance(found, str) else None


def no_study(folder: Path) -> BadInput:
    """The error for a folder that holds no study."""
    return BadInput(f"a study is a folder with {FILE}; got {str(folder)!r}: see `autotune studies`")


def write_info(folder: Folder, info: StudyInfo) -> None:
    """Write the description of the study in `folder`."""
    folder.write(FILE, sealed(to_json(info), info.id, indent=1))


def written_corpus(document: SpaceDocument) -> str:
    """The corpus as the space file spells it; empty if it names none."""
    return str(document.tables.get("workload", {}).get("corpus", ""))


def beside(corpus: str, folder: Path) -> str:
    """The path of `corpus` from the study's folder; empty if it lies nowhere."""
    return "" if corpus in ("", NO_PATH) else os.path.relpath(corpus, folder.absolute())


def places_of_text(info: StudyInfo, folder: Path) -> tuple[str, ...]:
    """Where the study's text may lie now, the likeliest first: in a tree that was moved whole, and where it was.

    Which of them it is, its content says. Empty if nothing is left in either place.
    """
    if info.corpus in ("", NO_PATH):
        return (info.corpus,)
    moved = os.path.normpath(folder.absolute() / info.corpus_beside) if info.corpus_beside else info.corpus
    return tuple(place for place in dict.fromkeys((info.corpus, moved)) if _is_there(place))


def _is_there(corpus: str) -> bool:
    return Path(corpus).exists() or any(True for _ in glob.iglob(corpus, recursive=True))  # noqa: PTH207 - any root
