"""Writing a report into a study's folder: all three forms, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from autotune.analysis.recommendation import Recommendation
from autotune.files import write_atomically
from autotune.report.html_ import render_html
from autotune.report.json_ import render_json
from autotune.report.markdown import render_markdown
from autotune.report.view import View


def write_report(recommendation: Recommendation, view: View, *, folder: Path) -> None:
    """Write `report.json`, `report.md` and `report.html` into `folder`; `view` is the recommendation in words.

    All are rendered before the first is written, and each is replaced atomically, so a failure
    leaves the previous report as it was.
    """
    files = {
        "report.json": render_json(recommendation, view),
        "report.md": render_markdown(view),
        "report.html": render_html(view),
    }
    for name, text in files.items():
        write_atomically(folder / name, text)
