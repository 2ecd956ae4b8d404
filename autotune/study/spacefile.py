"""The copy of its space file that a study keeps. It may be edited, so it has no seal."""

from __future__ import annotations

from dataclasses import replace

from autotune.errors import StoreDamaged
from autotune.space.document import SpaceDocument, parse_document
from autotune.study.folder import Folder, Unreadable
from autotune.study.info import StudyInfo, written_corpus
from autotune.workload.space import Read, SearchSpace, space_of
from autotune_model.encodings import decoded

SPACE = "space.toml"


def space_text(files: Folder) -> str:
    """The text of the study's space file.

    Raises:
        StoreDamaged: it cannot be read.
    """
    try:
        text = files.read(SPACE)
        if text is None:
            raise Unreadable("it is missing")
        return decoded(text)
    except ValueError as error:  # UnicodeDecodeError is one
        path = files.path / SPACE
        raise StoreDamaged(f"a study needs its space file; {path} cannot be read ({error}): restore it") from None


def document_of(files: Folder, info: StudyInfo) -> SpaceDocument:
    """The study's space file."""
    path = files.path / SPACE
    return parse_document(space_text(files), name=info.space_name, source=str(path), folder=files.path.absolute())


def read_space(files: Folder, info: StudyInfo, read: Read) -> SearchSpace:
    """The study's search space: the file's, with the study's own budget and text."""
    document = document_of(files, info)
    space = replace(space_of(document, read), budget_seconds=info.budget_seconds)
    if written_corpus(document) != info.corpus_as_written:
        return space  # edited since, so an earlier --data no longer applies
    return space.with_corpus(info.corpus)
