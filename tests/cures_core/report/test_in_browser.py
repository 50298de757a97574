"""Our pages in a browser: nothing to complain of for axe-core and for the console, on a phone as on a desk."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from cures_core.report.comparison_page import ComparedRun, Comparison, render_comparison
from cures_core.report.prompts_page import prompts_page
from tests.browser import chromium
from tests.cures_core.report.test_report import full
from tests.cures_core.report.test_stories import page as with_stories
from tests.cures_core.report.test_stories import story

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def comparison() -> str:
    runs = [
        ComparedRun(run=name, status="completed", scores=full().scores, cost=full().cost) for name in ("a-1", "b-2")
    ]
    return render_comparison(Comparison(runs=tuple(runs), settings={"seed": ("1", "2")}))


def prompt_set() -> str:
    prompts = PromptSet.of([make_prompt(f"What is {i} and 1?", str(i + 1)) for i in range(20)])
    return prompts_page("train.jsonl", prompts, {"source": {"made": 20}})


def report() -> str:
    return with_stories(story("f00d", "a" * 900 + " " + "so it is 15\n" * 20), story("other"))


PAGES = {"report": report, "comparison": comparison, "prompts": prompt_set}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_it_is_accessible_fits_and_is_quiet(name: str, width: int, scheme: str, browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(PAGES[name](), encoding="utf-8")
    assert file.stat().st_size < 5e6
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) >= 10
    assert said == []
    page.close()


def test_a_prompt_of_a_table_leads_to_what_was_written(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(report(), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = !one.closest('[id]'))")
    page.evaluate("document.getElementById('prompt-1').closest('details').open = false")
    page.locator("a[href='#prompt-1']").first.click()
    assert page.locator("#prompt-1").is_visible()
    assert page.evaluate("document.getElementById('prompt-1').getBoundingClientRect().top") < 800
    page.close()
