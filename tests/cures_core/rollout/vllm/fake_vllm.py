"""A server that speaks vLLM's HTTP and generates with the embedded engine's decoder: the same protocol, no start-up.

It answers as vLLM 0.32 does, fails on demand, and keeps what it was asked.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch

from cures_core.config.rollout import HfRolloutConfig
from cures_core.policy.accounting import load_weights
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.decoding import Decoder, Job
from cures_core.rollout.hf.eager_rows import EagerRows
from cures_core.rollout.stopping import StopRule
from cures_core.rollout.vllm.probe import probe_logprobs


class FakeVllm:
    """One server on loopback. Set the attributes to make it misbehave."""

    def __init__(self, model: Any, tokenizer: Any, *, mode: str = "processed_logprobs", context: int = 256) -> None:
        self._first, self.tokenizer, self.mode, self.context = model, tokenizer, mode, context
        self.lock, self.count = threading.Lock(), threading.Lock()
        self.asked: list[tuple[str, Any]] = []
        self.in_flight = self.most_in_flight = self.answered = 0
        self.delay_s = 0.0
        self.busy = self.broken = 0
        """How many of the next completions are answered with 429 and with 500."""
        self.hangs = self.deaf = False
        """Completions never end; nothing is answered any more, but the socket stays open."""
        self.loses_weights = False
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """With the weights of the beginning, whatever it was given since."""
        self.model, self.asleep, self.stopped = self._first, False, threading.Event()
        fake = self

        class Handler(_Handler):
            server_of = fake

        self.http = _Server(("127.0.0.1", self.port), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """Every connection breaks, and nobody listens any more."""
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()
        self.http.break_connections()

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def answer(self, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        match path:
            case "/health":
                return 200, None
            case "/v1/models":
                return 200, {"data": [{"id": "tiny", "max_model_len": self.context}]}
            case "/server_info" if not self.mode:
                return 500, {"error": "no pip"}
            case "/server_info":
                return 200, {"vllm_config": {"model_config": {"logprobs_mode": self.mode}}}
            case "/v1/completions":
                return self.completions(body)
            case "/collective_rpc":
                assert body["method"] == "reload_weights"
                return self.reload(Path(body["kwargs"]["weights_path"]))
            case "/sleep":
                self.asleep = True
            case "/wake_up":
                self.asleep = self.asleep and query.get("tags") == ["weights"]
            case "/pause" | "/resume" | "/reset_prefix_cache":
                pass
            case _:
                return 404, {"error": "no such route"}
        return 200, {}

    def reload(self, folder: Path) -> tuple[int, Any]:
        if not folder.is_dir():
            return 500, {"error": {"message": f"no weights in {folder}"}}
        if not self.loses_weights:
            self.model = load_weights(folder).eval()
        return 200, {"results": [None]}

    def completions(self, body: Any) -> tuple[int, Any]:
        if body.get("prompt_logprobs") is not None:
            with self.lock:
                values = probe_logprobs(self.model, body["prompt"])
            rows = [None, *({str(t): {"logprob": float(v)}} for t, v in zip(body["prompt"][1:], values, strict=True))]
            return 200, {"choices": [{"index": 0, "prompt_logprobs": rows}]}
        with self.count:
            if self.busy > 0:
                self.busy -= 1
                return 429, {"error": "busy"}
            if self.broken > 0:
                self.broken -= 1
                return 500, {"error": "broken"}
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            while (self.hangs or self.asleep) and not self.stopped.is_set():
                time.sleep(0.02)
            self.stopped.wait(self.delay_s)
            with self.lock:
                return 200, {"choices": self.sample(body)}
        finally:
            with self.count:
                self.in_flight -= 1
                self.answered += 1

    def sample(self, body: Any) -> list[dict[str, Any]]:
        """Completion i follows from the prompt and seed + i, as in vLLM."""
        lm = CausalLM(self.model, torch.device("cpu"))
        stop = StopRule(self.tokenizer, body["stop_token_ids"], body["stop"] or (), lm.vocab_size)
        cfg = HfRolloutConfig(max_new_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"])
        identities = [(body["seed"] + i, "", 0) for i in range(body["n"])]
        with lm.evaluating():
            jobs = [Job(tuple(body["prompt"]), identities, 0)]
            made = Decoder(lm, stop, cfg, jobs, lambda rows, _: EagerRows(lm, cfg, rows)).run(None)
        choices = [
            {
                "index": i,
                "token_ids": list(one.token_ids),
                "logprobs": {"token_logprobs": list(one.logprobs)},
                "finish_reason": one.reason.value,
            }
            for i, one in enumerate(made)
        ]
        return choices[::-1]  # the order is nobody's promise


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def break_connections(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: FakeVllm

    def do_GET(self) -> None:
        self._do(None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._do(json.loads(self.rfile.read(length)) if length else None)

    def _do(self, body: Any) -> None:
        fake, parts = self.server_of, urlsplit(self.path)
        fake.asked.append((self.path, body))
        while fake.deaf and not fake.stopped.is_set():
            time.sleep(0.02)
        status, answer = fake.answer(parts.path, parse_qs(parts.query), body)
        if fake.stopped.is_set():
            self.close_connection = True
            return
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def fake_servers(count: int, model: Any, tokenizer: Any, **options: Any) -> Iterator[list[FakeVllm]]:
    servers = [FakeVllm(model, tokenizer, **options) for _ in range(count)]
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()
