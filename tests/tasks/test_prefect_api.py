"""Requests to a Prefect server: who asks, and what a refusal says."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from cures_core.errors import CuresError, ServerUnavailable
from tasks.prefect_api import call


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
    with pytest.raises(CuresError, match="answered 401: not for") as refused:
        call(url, "/automations/", {})
    assert seen == [None, sent]
    assert sent.split()[1] not in str(refused.value)


def test_nobody_there_can_be_tried_again() -> None:
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9.*Try again"):
        call("http://127.0.0.1:9/api", "/events", [])
