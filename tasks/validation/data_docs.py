"""Knows how to make Great Expectations' Data Docs open without a network: own style, no scripts, no addresses."""

from __future__ import annotations

import html
import re
import shutil
from importlib import resources
from pathlib import Path

_OUTSIDE = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<a\b[^>]*href=\"https?://[^>]*>(.*?)</a>|<footer\b.*?</footer>",
    re.DOTALL | re.IGNORECASE,
)
# Text of prompts is shown on these pages: nothing in it may run or call out, whatever the renderer lets through.
_POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
_STYLE = re.compile(r"<style\b.*?</style>", re.DOTALL | re.IGNORECASE)


def make_self_contained(site: Path) -> None:
    """Rewrite every page below `site` to stand alone, drop fonts and images, and write an index of the pages."""
    style = resources.files("tasks.validation").joinpath("data_docs.css").read_text(encoding="utf-8")
    pages = sorted(page for page in site.rglob("*.html") if page.parent != site)
    for page in pages:
        text = _OUTSIDE.sub(lambda m: m[1] or "", page.read_text(encoding="utf-8"))
        text = _STYLE.sub("", text).replace("<head>", f"<head>{_POLICY}<style>{style}</style>", 1)
        page.write_text(text, encoding="utf-8")
    shutil.rmtree(site / "static", ignore_errors=True)
    (site / "index.html").write_text(_index(site, pages, style), encoding="utf-8")


def _index(site: Path, pages: list[Path], style: str) -> str:
    title = "Prompt set: expectations"
    links = ""
    for page in reversed(pages):
        place = page.relative_to(site)
        name = "Results" if place.parts[0] == "validations" else "What is expected"
        links += f'<li><a href="{html.escape(place.as_posix())}">{name}</a></li>'
    head = f'<head>{_POLICY}<meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
    return f'<!DOCTYPE html>\n<html lang="en">{head}<body><h1>{title}</h1><ul>{links}</ul></body></html>\n'
