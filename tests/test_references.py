"""What code, tests and pages refer to is in the repository: files, numbered sections, modules, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("autotune", "model", "tests", "benchmarks", "docs", "search_spaces")
SUFFIXES = {".py", ".md", ".toml", ".j2", ".css"}
FILES = sorted(
    path
    for path in (
        *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES),
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "Makefile")),
    )
    if path != Path(__file__)
)

ELSEWHERE = re.compile(r"\bMETHOD\b|\bFIELD_NOTES\b|\bDESIGN\b|\bSTYLE\.md\b|\bSOURCE\.md\b|\b[Tt]he source's\b")
NUMBER = r"\d+(?:\.\d+)?"
SECTIONS = re.compile(rf"\b(?:docs/)?(\w+\.md)`?, (?=\d)((?:{NUMBER}(?:, | and | to )?)+)")
HEADING = re.compile(rf"^#+ ({NUMBER})\b", re.MULTILINE)
PATH = re.compile(rf"(?<![\w./<-])(?:{'|'.join(FOLDERS)})/[\w./-]*(?:\.\w+|/)(?![\w*])")
IN_THE_WHEEL = ("autotune/search_spaces/", "search_spaces/")  # a wheel has it there, a checkout beside the package
MADE_UP = {"tests/test_x.py", "benchmarks/x.py"}  # of a tree that a test builds a wheel from
LINK = re.compile(r"\]\(([^)\s]+)\)")
DOTTED = re.compile(r"`(autotune(?:_model)?(?:\.\w+)+)`")


def dangling(text: str, folder: Path) -> Iterator[str]:
    """The references of a text in `folder` that lead nowhere, or out of the repository."""
    words = re.sub(r"\s*\n\s*(?:#\s+)?", " ", text)  # a reference may be wrapped
    yield from ELSEWHERE.findall(words)
    for name, numbers in SECTIONS.findall(words):
        known = sections_of(ROOT / "docs" / name)
        yield from (f"{name}, {number}" for number in re.findall(NUMBER, numbers) if number not in known)
    for path in PATH.findall(words):
        if path not in MADE_UP and not (ROOT / path.replace(*IN_THE_WHEEL)).exists():
            yield path
    for name in DOTTED.findall(words):
        if not is_defined(name):
            yield name


def broken_links(text: str, folder: Path) -> Iterator[str]:
    """The relative links of a Markdown page in `folder` that lead nowhere."""
    for target in LINK.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        page = folder / path if path else folder
        if not page.exists() or (anchor and anchor not in anchors_of(page)):
            yield target


@lru_cache
def sections_of(page: Path) -> frozenset[str]:
    """The numbers of a page's sections; none where there is no such page."""
    return frozenset(HEADING.findall(page.read_text(encoding="utf-8")) if page.is_file() else ())


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or a name that one of our modules has."""
    first, *parts = dotted.split(".")
    place = ROOT / "model" / first if first == "autotune_model" else ROOT / first
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    module = place / f"{parts[0]}.py" if parts else place
    if module.exists():
        parts = parts[1:]
    else:
        module = place / "__init__.py"
    return not parts or re.search(rf"\b{parts[0]}\b", module.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_reference_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(dangling(text, path.parent)) == []
    if path.suffix == ".md":
        assert list(broken_links(text, path.parent)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as METHOD 3.4 says", ["METHOD"]),
        ("Tune would tell them as failures (FIELD_NOTES).", ["FIELD_NOTES"]),
        ("see DESIGN.md", ["DESIGN"]),
        ("the claims of the source's 3.1", ["the source's"]),
        ("(docs/method.md, 3.9)", ["method.md, 3.9"]),
        ("(docs/method.md, 4.4, 6.7, 7)", ["method.md, 6.7"]),
        ("(docs/method.md, 5 and\n    17)", ["method.md, 17"]),
        ("as in docs/rules.md, 1", ["rules.md, 1", "docs/rules.md"]),
        ("see `autotune/stages/race.py`", ["autotune/stages/race.py"]),
        ("see `autotune.space.load`", ["autotune.space.load"]),
        ("see `autotune.space.knobs.Nob`", ["autotune.space.knobs.Nob"]),
    ],
)
def test_a_reference_that_leads_nowhere_is_found(text: str, found: list[str]) -> None:
    assert list(dangling(text, ROOT)) == found


def test_references_that_lead_somewhere_are_left_alone() -> None:
    text = (
        "docs/method.md, 3, 3.4 and 6.2; docs/techniques.md, 3.1 to 3.9; `docs/method.md`, 8; autotune/space/plan.py; "
        "tests/; `autotune.space.knobs`; `autotune.space.knobs.Knob`; `autotune_model.config`; _DESIGN_QUEUED"
    )
    assert list(dangling(text, ROOT)) == []


def test_a_broken_link_is_found() -> None:
    page = "[a](method.md) [b](method.md#7-roi) [c](https://x.org/y) [d](none.md) [e](method.md#none)"
    assert list(broken_links(page, ROOT / "docs")) == ["none.md", "method.md#none"]
