"""Requests to a Prefect server: who asks, and what a refusal says."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cures_core.errors import RunIncomplete, ServerRefused, ServerUnavailable
from tasks import prefect_api
from tasks.ci.announce import wait_for_run
from tasks.prefect_api import answers, call, require_server


@pytest.fixture
def server() -> Iterator[tuple[str, list[str | None]]]:
    """Address of a server that refuses everything with the caller's login, and the logins it has seen."""
    seen: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(204 if self.path == "/empty" else 401)
            self.end_headers()
            self.wfile.write(b"" if self.path == "/empty" else f"not for {seen[-1]}".encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", seen
        running.shutdown()


@pytest.mark.parametrize(
    ("variable", "value", "sent"),
    [
        ("PREFECT_API_KEY", "key-of-the-cloud", "Bearer key-of-the-cloud"),
        ("PREFECT_API_AUTH_STRING", "admin:a-password", "Basic YWRtaW46YS1wYXNzd29yZA=="),
    ],
)
def test_the_login_is_sent_and_not_told(
    server: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sent: str
) -> None:
    url, seen = server
    for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    assert call(url, "/empty", {}) is None
    monkeypatch.setenv(variable, value)
    with pytest.raises(ServerRefused, match="answered 401: not for") as refused:
        call(url, "/automations/", {})
    assert seen == [None, sent]
    assert sent.split()[1] not in str(refused.value)


def test_nobody_there_can_be_tried_again() -> None:
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9.*Try again"):
        call("http://127.0.0.1:9/api", "/events", [])


class Busy:
    """A server that is busy `times` times, and the requests it has heard. `how`: a status, or 0 for a connection that
    breaks."""

    def __init__(self, times: float, how: int) -> None:
        self.left, self.how, self.heard, self.url = times, how, list[str](), ""
        self.answer: object = {}

    @contextmanager
    def running(self) -> Iterator[Busy]:
        busy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                busy.heard.append(f"{self.command} {self.path}")
                busy.left -= 1
                if busy.left >= 0 and busy.how == 0:
                    self.close_connection = True
                    return
                self.send_response(busy.how if busy.left >= 0 else 200)
                self.end_headers()
                self.wfile.write(b"database is locked" if busy.left >= 0 else json.dumps(busy.answer).encode())

            do_GET = do_PUT = do_PATCH = do_POST  # noqa: N815  (the names that the base looks for)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield self
            server.shutdown()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(prefect_api, "_LONGEST_PAUSE_S", 0.02)


HOWS = pytest.mark.parametrize("how", [503, 429, 502, 504, 0])


@HOWS
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/deployments/name/a/b"),
        ("POST", "/flow_runs/filter"),
        ("PATCH", "/deployments/1"),
        ("PUT", "/automations/1"),
    ],
)
@pytest.mark.usefixtures("short_pauses")
def test_a_busy_server_is_asked_again(how: int, method: str, path: str) -> None:
    with Busy(2, how).running() as server:
        server.answer = {"id": 1}
        assert call(server.url, path, {}, method) == {"id": 1}
        assert server.heard == [f"{method} {path}"] * 3


@HOWS
@pytest.mark.usefixtures("short_pauses")
def test_what_would_be_made_twice_is_asked_for_once_and_what_to_look_at_is_said(how: int) -> None:
    with Busy(2, how).running() as server:
        with pytest.raises(ServerUnavailable, match=r"/automations/: .*; look into the UI$"):
            call(server.url, "/automations/", {}, look="look into the UI")
        assert server.heard == ["POST /automations/"]
    with Busy(2, how).running() as server:
        assert call(server.url, "/events", [], repeatable=True) == {}
        assert len(server.heard) == 3


@HOWS
@pytest.mark.usefixtures("short_pauses")
def test_a_server_that_stays_busy_is_told_in_one_sentence(how: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.3)
    with Busy(float("inf"), how).running() as server:
        with pytest.raises(
            ServerUnavailable, match=r"also after 0 s\. Try again when the server is less busy$"
        ) as told:
            call(server.url, "/flow_runs/filter", {})
        assert ("answered" if how else "the connection was lost") in str(told.value)
        assert not answers(server.url)


@HOWS
@pytest.mark.usefixtures("short_pauses")
def test_a_busy_server_is_a_server(how: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Busy(2, how).running() as server:
        assert require_server(server.url) == server.url
        assert answers(server.url)
    with Busy(2, how).running() as server:
        assert answers(server.url, 10)
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.3)
    with Busy(float("inf"), 503).running() as server:
        assert require_server(server.url) == server.url
    with pytest.raises(ServerUnavailable, match=r"no Prefect server answers at http://127\.0\.0\.1:9"):
        require_server("http://127.0.0.1:9")


@pytest.mark.usefixtures("short_pauses")
def test_who_waits_for_a_run_waits_through_an_outage_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    monkeypatch.setattr("tasks.ci.announce._POLL_S", 0.01)
    with Busy(3, 503).running() as server:
        server.answer = [
            {"id": 1, "name": "r", "state_name": "Done", "state_type": "COMPLETED", "parameters": {"key": "k"}}
        ]
        assert wait_for_run(server.url, "k", 30)["id"] == 1
        assert len(server.heard) == 4
    with Busy(float("inf"), 503).running() as server, pytest.raises(RunIncomplete, match=r"after 0 s .*answered 503"):
        wait_for_run(server.url, "k", 0.3)
