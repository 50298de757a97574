"""Whether trackers answer is known before a run does any work."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cures_core.config.tracking import TrackingConfig
from cures_core.errors import ConfigError, MissingExtra
from tasks.tracking.probing import probe_trackers


@contextmanager
def serving(status: int) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Address of a server that answers all alike, and what it was asked: path and login."""
    seen: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", seen
        running.shutdown()


def nobody() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("status", [200, 302, 401, 404, 503])
def test_whatever_an_mlflow_server_says_is_an_answer(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with serving(status) as (url, seen):
        assert probe_trackers(TrackingConfig(mlflow=url)) == "mlflow"
    assert [login for _, login in seen] == [None]  # which nobody is told who only looks


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"tracking\.mlflow: .* does not answer.*Start it"):
        probe_trackers(TrackingConfig(mlflow=nobody()))


def test_a_folder_of_mlflow_is_its_client_s_to_make(tmp_path: Path) -> None:
    assert probe_trackers(TrackingConfig(mlflow=f"file://{tmp_path / 'mlruns'}")) == "mlflow"
    assert not any(tmp_path.iterdir())


def test_tensorboard_must_be_able_to_write(tmp_path: Path) -> None:
    assert probe_trackers(TrackingConfig(tensorboard=str(tmp_path / "new" / "events"))) == "tensorboard"
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"tracking\.tensorboard: .*file is a file"):
        probe_trackers(TrackingConfig(tensorboard=str(tmp_path / "file" / "events")))


@pytest.mark.parametrize(("mode", "refused"), [("online", True), ("offline", False), ("disabled", False)])
def test_wandb_s_server_is_asked_unless_it_is_offline(
    mode: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B is no dependency of the tests: what is asked of it here is `setup`, whose settings name server and mode."""
    settings = SimpleNamespace(mode=mode, base_url=nobody())
    wandb = SimpleNamespace(setup=lambda: SimpleNamespace(settings=settings))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    if refused:
        with pytest.raises(ConfigError, match=r"tracking\.wandb: .* does not answer.*WANDB_MODE=offline"):
            probe_trackers(TrackingConfig(wandb="project"))
        with serving(403) as (settings.base_url, _):
            probe_trackers(TrackingConfig(wandb="project"))
    else:
        assert probe_trackers(TrackingConfig(wandb="project")) == "wandb"


def test_a_missing_wandb_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"cures\[wandb\]"):
        probe_trackers(TrackingConfig(wandb="project"))
