"""A recommendation in words and figures: one view model, and writers for JSON, Markdown and HTML."""

from autotune.report.build import build_view
from autotune.report.view import View
from autotune.report.writers import render_report

__all__ = ["View", "build_view", "render_report"]
