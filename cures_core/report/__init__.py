"""One self-contained HTML page about a run: no network, no scripts, readable on a phone and without colour."""

from __future__ import annotations

from cures_core.report.page import render, render_live
from cures_core.report.run_data import ReportData

__all__ = ["ReportData", "render", "render_live"]
