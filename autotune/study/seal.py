"""The seal of a study's file: the study it belongs to, and a checksum over all else.

A flipped bit mostly leaves valid JSON, with another number in it; a file of another study is valid, too. Both are
noticed here. Studies of version 0.1 before it have no seals, and an empty id; their files are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_STUDY, _SUM = "study", "sha256"


class Broken(ValueError):
    """A file is not what was written; the text says how."""


def sealed(plain: Mapping[str, Any], study_id: str, *, indent: int | None = None) -> str:
    """The text of a file with the object `plain`, sealed for the study of that id."""
    body = {**plain, _STUDY: study_id}
    return json.dumps({**body, _SUM: _body_sum(body)}, indent=indent) + "\n"


def unsealed(text: bytes, study_id: str | None) -> dict[str, Any]:
    """The object in a file of the study of that id; None accepts any study's.

    Raises:
        Broken: it is no JSON object, has changed since it was written, or belongs to another study.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        raise Broken(f"it is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Broken("it is no JSON object")
    if _SUM not in body:
        if study_id:
            raise Broken("it has no checksum")
        return body
    found = body.pop(_SUM)
    if found != _body_sum(body):
        raise Broken("it has changed since it was written: its checksum differs")
    if body.pop(_STUDY, "") != (study_id or "") and study_id is not None:
        raise Broken("it belongs to another study")
    return body


def sum_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _body_sum(body: Mapping[str, Any]) -> str:
    """SHA-256 of the object in its order, without the blanks between its parts."""
    return sum_of(json.dumps(body, separators=(",", ":")))
