"""The files of a report. The study writes them into its folder."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.analysis.recommendation import Recommendation
from autotune.report.html_ import render_html
from autotune.report.json_ import render_json
from autotune.report.markdown import render_markdown
from autotune.report.view import View


def render_report(recommendation: Recommendation, view: View) -> Mapping[str, str]:
    """The text of `report.json`, `report.md` and `report.html`; `view` is the recommendation in words."""
    return {
        "report.json": render_json(recommendation, view),
        "report.md": render_markdown(view),
        "report.html": render_html(view),
    }
