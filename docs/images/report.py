"""Takes quickstart.png, learning.png and calibration.png of a run's page: `python docs/images/report.py REPORT.json`,
with the report.json that the run has made. Needs Chromium."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from cures_core.report import ReportData, render
from tests.browser import chromium

_WIDTH, _EDGE, _COLORS = 940, 16, 32
_HERE = Path(__file__).parent
_SHORT = "dl, h2:has(+ dl), details, p.soft + .wide, figure:nth-of-type(1), figure:nth-of-type(n + 4) { display: none }"
"""For the README: without what was asked, lengths, what is folded, and all charts but two."""


def take(page: Any, name: str, first: str, after: str) -> None:
    """The part of the page from one heading to another; empty: from its top."""
    top = _top(page, first) - _EDGE if first else 0
    clip = {"x": 0, "y": top, "width": _WIDTH, "height": _top(page, after) - 2 * _EDGE - top}
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
    picture.quantize(_COLORS).save(_HERE / f"{name}.png", optimize=True)


def _top(page: Any, heading: str) -> float:
    return float(page.get_by_role("heading", name=heading, exact=True).bounding_box()["y"])


def main() -> None:
    data = ReportData.model_validate_json(Path(sys.argv[1]).read_bytes())
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file = Path(folder) / "report.html"
        file.write_text(render(data), encoding="utf-8")
        page = browser.new_page(viewport={"width": _WIDTH, "height": 900}, color_scheme="light")
        page.goto(file.as_uri())
        take(page, "learning", "Learning", "What is believed about the prompts")
        take(page, "calibration", "Were the predicted pass rates right?", "Prompts and what the policy wrote")
        page.add_style_tag(content=_SHORT)
        take(page, "quickstart", "", "The updates")


if __name__ == "__main__":
    main()
