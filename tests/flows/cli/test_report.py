"""A run looked at while it goes on: in lines, and as a page that is served."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.run import RunConfig
from cures_core.errors import CorruptArtifact
from cures_core.files import canonical_json
from cures_core.report import ReportData
from flows.cli import report as report_commands
from flows.cli.report import page_server, watch, watch_text
from tasks.storage.lease import Lease
from tasks.storage.local import LocalStore
from tests.browser import chromium


def data(status: str = "running", **more: object) -> ReportData:
    return ReportData.model_validate({"run": "demo-1", "status": status, **more})


@contextmanager
def served(pages: list[ReportData | Exception]) -> Iterator[str]:
    def current() -> ReportData:
        page = pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page

    with page_server(current, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_page_is_made_anew_and_refreshes_itself_until_the_run_is_over() -> None:
    step = {"step": 3, "reward_mean": 0.5, "rollouts_total": 96}
    with served([data(), data(steps=[step]), data("completed")]) as url:
        first, second, last = read(url), read(url), read(url)
    assert "No training step" in first
    assert "No training step" not in second
    assert ["data-refresh" in page for page in (first, second, last)] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "status"), [("localhost:9", 200), ("127.0.0.1", 200), ("evil.example:8765", 421), ("", 421)]
)
def test_the_page_is_for_who_asks_this_machine_by_its_name(name: str, status: int) -> None:
    """Not for a page whose site's name leads here (DNS rebinding)."""
    with served([data(trouble="what nobody else may read")]) as url:
        asked = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        asked.putrequest("GET", "/", skip_host=True)
        if name:
            asked.putheader("Host", name)
        asked.endheaders()
        answer = asked.getresponse()
        assert answer.status == status
        assert (b"what nobody else" in answer.read()) == (status == 200)
        asked.close()


@pytest.mark.end_to_end
def test_a_browser_shows_what_is_new_and_keeps_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_commands, "REFRESH_S", 1)
    steps = [{"step": i, "reward_mean": 0.5, "loss": 0.1, "rollouts_total": 32 * i} for i in range(1, 5)]
    trouble = CorruptArtifact("resume to do it again")
    pages = [data(steps=steps[:3]), trouble, data(steps=steps), data("completed", steps=steps, notices=["all done"])]
    asked: list[str] = []
    with served(pages) as url, chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        table = page.locator("figure details").first
        table.locator("summary").click()
        page.get_by_text("128").first.wait_for()
        assert table.get_attribute("open") is not None
        page.get_by_text("all done").wait_for()
        assert table.get_attribute("open") is not None
        assert page.locator("details[open]").count() == 2  # and the curves
        page.wait_for_timeout(2500)
    assert asked == [f"{url}/"] * 4  # and then no more


def until(page: Any, expression: str) -> None:
    """Wait until it is true. Playwright's own waiting evaluates text, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


@pytest.mark.end_to_end
def test_curves_tell_values_at_the_mouse_and_keep_their_zoom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_commands, "REFRESH_S", 1)
    steps: list[dict[str, object]] = [
        {"step": i, "reward_mean": 0.5, "entropy": 1 / i, "odd<b>": 3.0, "reason": "complete", "rollouts_total": 32 * i}
        for i in range(1, 41)
    ]
    steps[20].pop("entropy")  # a mean over nothing
    pages: list[ReportData | Exception] = [data(steps=steps[:30]), *[data(steps=steps)] * 9]
    said: list[str] = []
    with served(pages) as url, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        titles = page.locator("#curves .u-title").all_inner_texts()
        assert titles == ["rollouts so far", "reward", "entropy, nats a token", "odd<b>"]
        entropy = page.locator("#curves > div", has_text="entropy")
        plot = entropy.locator(".u-over")
        box = plot.bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 1, middle)
        legends = page.locator("#curves .u-legend").all_inner_texts()
        assert ["1" in "".join(text.split("step")[1].split()[:1]) for text in legends] == [True] * 4  # all of them
        page.mouse.move(box["x"] + 0.25 * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=4)
        page.mouse.up()
        zoom = "[...curves.values()].map(one => [Math.round(one.scales.x.min), Math.round(one.scales.x.max)])"
        zoomed = page.evaluate(zoom)
        assert zoomed == [zoomed[0]] * 4
        assert 5 < zoomed[0][0] < zoomed[0][1] < 20
        until(page, "curves.get('entropy').data[0].length === 40")
        assert page.evaluate(zoom) == zoomed
        plot.dblclick()
        assert page.evaluate(zoom) == [[1, 40]] * 4
        page.set_viewport_size({"width": 390, "height": 800})
        until(page, "document.documentElement.scrollWidth <= 390 && curves.get('entropy').width <= 390")
    assert said == []


def test_trouble_with_the_store_is_told_and_the_next_look_succeeds() -> None:
    with served([CorruptArtifact("resume to do it again"), data()]) as url:
        with pytest.raises(urllib.error.HTTPError, match="503") as told:
            read(url)
        assert told.value.read() == b"resume to do it again\n"
        assert "demo-1" in read(url)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            read(f"{url}/../secret")


def test_a_run_that_died_says_so_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.model_validate(
        {"data": {"path": "t"}, "rollout": {"max_new_tokens": 1}, "training": {"learning_rate": 1}}
    )
    store = LocalStore(tmp_path)
    store.put("runs/demo-1/run.json", canonical_json({"config": config.model_dump(mode="json")}))
    store.put("runs/demo-1/status.json", b'{"status":"running","at":"","error":""}')
    Lease(store, "demo-1", 60).close()
    watch("demo-1", str(tmp_path), 0.1)
    said = capsys.readouterr().out
    assert "demo-1: died (its process is gone (nobody); go on with: cures run --resume demo-1)" in " ".join(
        said.split()
    )
    assert said.endswith(")\n")
    held = Lease(store, "demo-1", 60)  # elsewhere, as far as anyone here can see: it gives no sign of life
    monkeypatch.setattr("tasks.storage.lease.Pulse.stopped", lambda _: True)
    watch("demo-1", str(tmp_path), 0.1)
    held.close()
    assert "no sign of life for 60 s" in " ".join(capsys.readouterr().out.split())


def test_lines_tell_stages_the_last_step_and_scores() -> None:
    steps = [{"step": i, "reward_mean": i / 10, "rollouts_total": 32 * i} for i in (1, 2)]
    text = watch_text(data(steps=steps, stages=[{"name": "train_epoch", "label": "1", "key": "k", "seconds": 3.25}]))
    assert text.splitlines() == [
        "demo-1: running",
        "  train_epoch 1: 3.2 s",
        "  step 2: reward 0.200, 64 rollouts paid",
    ]
    assert watch_text(data(steps=[{"step": 3, "rollouts_total": 96}])).endswith("step 3: no verdict, 96 rollouts paid")
