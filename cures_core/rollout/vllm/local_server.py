"""Knows a vLLM server on this machine, as a child process that listens on the loopback interface only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from cures_core.config.rollout import AnyVllmConfig
from cures_core.extras import WITHOUT_VLLM, require_extra
from cures_core.rollout.vllm.guard import Guard
from cures_core.rollout.vllm.memory import memory_share

LOOPBACK = "127.0.0.1"
MODEL_NAME = "policy"
_STOP_S = 10.0


class LocalServer:
    """One server on one port, started and stopped as often as it takes. Raises `MissingExtra` without vllm."""

    def __init__(self, cfg: AnyVllmConfig, dtype: str, on_gpu: bool) -> None:
        require_extra("vllm", *WITHOUT_VLLM)
        self._cfg, self._dtype, self._on_gpu = cfg, dtype, on_gpu
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def logprobs_mode(self) -> str:
        return _logprobs_mode(self._cfg)

    @property
    def pid(self) -> int:
        """Process id of the server, which leads a process group of its own; 0 where none runs."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, folder: Path) -> None:
        """Start it on the weights in `folder`, and return at once. If this process is killed, it goes with it, and the
        folder above `folder` too."""
        self.stop()
        self._guard = Guard(folder.parent)
        # What the server prints goes to the error stream: a job's output stream carries its events.
        self._process = subprocess.Popen(
            server_command(self._cfg, folder, self._dtype, self._port, self._on_gpu),
            env={**os.environ, **server_environment(self._cfg, self._on_gpu)},
            stdout=sys.__stderr__,
            start_new_session=True,
        )
        self._guard.watch(-self._process.pid)

    def stop(self) -> None:
        """End it and its workers, hung or not. A killed server leaves its workers behind: the group goes as a whole."""
        if self._process is not None:
            for sign, wait_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, sign)
                if self._gone(wait_s):
                    break
            self._process = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def failure(self, limit_s: float) -> str:
        """Why it does not answer."""
        code = None if self._process is None else self._process.poll()
        how = f"did not answer within {limit_s:g} s of its start" if code is None else f"ended with exit code {code}"
        return f"the vLLM server at {self.url} {how}; its own message is in the log above"

    def _gone(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self._process is not None:
                self._process.poll()
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, 0)
                    time.sleep(0.05)
                    continue
            return True
        return False


def server_command(cfg: AnyVllmConfig, folder: Path, dtype: str, port: int, on_gpu: bool) -> list[str]:
    """The command line of a server that serves `folder` as this engine wants it."""
    options = {
        "model": str(folder),
        "served-model-name": MODEL_NAME,
        "host": LOOPBACK,
        "port": port,
        "dtype": dtype,
        "max-model-len": cfg.max_model_len,
        "block-size": cfg.block_tokens,
        "logprobs-mode": _logprobs_mode(cfg),
        "generation-config": "vllm",
        "uvicorn-log-level": "warning",
        "kv-cache-memory-bytes": cfg.kv_cache_gib << 30 if on_gpu else None,
        "gpu-memory-utilization": memory_share(folder, cfg.kv_cache_gib) if on_gpu else None,
    }
    # On CPU a prompt that is prefilled in parts kills vLLM 0.32, and compiling takes longer than all that it saves.
    flags = [
        "no-trust-remote-code",
        "enable-prefix-caching",
        *([] if on_gpu else ["enforce-eager", "no-enable-chunked-prefill"]),
    ]
    if cfg.sleep_level and on_gpu:
        flags.append("enable-sleep-mode")
    named = [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *named, *(f"--{flag}" for flag in flags)]


def server_environment(cfg: AnyVllmConfig, on_gpu: bool) -> dict[str, str]:
    """What vLLM reads from the environment only. The development mode opens the routes that take weights."""
    names = {"VLLM_SERVER_DEV_MODE": "1"}
    for name, value in (("VLLM_NO_USAGE_STATS", "1"), ("VLLM_LOGGING_LEVEL", "WARNING")):
        names[name] = os.environ.get(name, value)
    if not on_gpu:
        names["TORCH_COMPILE_DISABLE"] = os.environ.get("TORCH_COMPILE_DISABLE", "1")
        names["VLLM_CPU_KVCACHE_SPACE"] = str(cfg.kv_cache_gib)
    return names


def _logprobs_mode(cfg: AnyVllmConfig) -> str:
    """Processed: at the temperature. With a cut they would be those after it, so raw ones are taken."""
    return "processed_logprobs" if cfg.top_p == 1 else "raw_logprobs"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
