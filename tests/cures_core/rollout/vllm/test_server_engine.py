"""Real vLLM servers: they sit the exam, are killed and stopped in mid-generation, and listen on loopback only."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from cures_core.config.rollout import VllmServerRolloutConfig
from cures_core.errors import EngineFailed
from cures_core.rollout import RolloutEngine
from cures_core.rollout.vllm.local_server import LocalServer
from cures_core.rollout.vllm.server_engine import VllmServerEngine
from cures_core.terms import Prompt, Request
from cures_core.testing.rollout_engine import RolloutEngineExam, disturb, flat, requests_of, tokens_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

TOKENIZER = character_tokenizer()
# The CPU build computes heads of at least 32.
LLAMA = tiny_llama(hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
OTHER = tiny_llama(seed=7, hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
START_S = 600


class Servers:
    """Two that give log-probabilities at the temperature, and one that gives raw ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "000000"
        OTHER.save_pretrained(self.folder)
        TOKENIZER.save_pretrained(self.folder)
        at_temperature, raw = VllmServerRolloutConfig(), VllmServerRolloutConfig(top_p=0.5)
        self.all = [LocalServer(cfg, "float32", on_gpu=False) for cfg in (at_temperature, at_temperature, raw)]

    def up(self, *numbers: int) -> tuple[str, ...]:
        """Addresses of these servers; an engine waits for one that still starts."""
        for number in numbers:
            if not self.all[number].alive:
                self.all[number].start(self.folder)
        return tuple(self.all[number].url for number in numbers)

    def engine(self, *numbers: int, model: Any = LLAMA, **options: Any) -> VllmServerEngine:
        # Few calls at a time, so that a server that is killed when the first has ended leaves some undone.
        fields = {"max_new_tokens": 12, "outage_timeout_s": START_S, "max_in_flight": 2, **options}
        engine = VllmServerEngine(model, TOKENIZER, VllmServerRolloutConfig(endpoints=self.up(*numbers), **fields))
        while not all(member.in_service for member in engine.fleet.members):
            time.sleep(1.0)
            engine.sync(model)
        return engine


SERVERS: list[Servers] = []


@pytest.fixture(scope="module", autouse=True)
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    SERVERS.append(Servers(tmp_path_factory.mktemp("servers")))
    yield
    for server in SERVERS.pop().all:
        server.stop()


@pytest.fixture
def servers() -> Servers:
    return SERVERS[0]


def kill(server: LocalServer) -> None:
    """The server alone, as the system does that lacks memory: its workers stay behind."""
    os.kill(server.pid, signal.SIGKILL)


class TestVllmServers(RolloutEngineExam):
    def policy(self) -> tuple[Any, Any]:
        return LLAMA, TOKENIZER

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        numbers = (2,) if options.get("top_p", 1) < 1 else (0, 1)
        return SERVERS[0].engine(*numbers, model=model, sleep_level=1, **options)

    def crash(self, engine: RolloutEngine) -> bool:
        kill(SERVERS[0].all[0])
        return True


def test_a_stopped_server_loses_its_calls(servers: Servers) -> None:
    """SIGSTOP: its connections stay open, only its silence tells."""
    engine = servers.engine(0, 1, max_new_tokens=100, health_timeout_s=5.0)
    whole = tokens_of(engine.generate(requests_of(n=4)))
    stopped: list[float] = []

    def stop(_done: int, _total: int) -> None:
        if not stopped:
            stopped.append(time.monotonic())
            os.killpg(servers.all[0].pid, signal.SIGSTOP)

    try:
        assert tokens_of(engine.generate(requests_of(n=4), progress=stop)) == whole
        assert time.monotonic() - stopped[0] < 60
    finally:
        os.killpg(servers.all[0].pid, signal.SIGCONT)
        engine.close()


def test_the_only_server_killed_in_mid_generation_is_named_within_a_minute(servers: Servers) -> None:
    engine = servers.engine(0, max_new_tokens=100)
    engine.retune(engine.cfg.model_copy(update={"outage_timeout_s": 35.0}))
    killed: list[float] = []

    def stop(_done: int, _total: int) -> None:
        if not killed:
            killed.append(time.monotonic())
            kill(servers.all[0])

    with pytest.raises(EngineFailed, match=f"no vLLM server in service for 35 s: {servers.all[0].url}"):
        engine.generate(requests_of(n=40), progress=stop)
    assert time.monotonic() - killed[0] < 60
    engine.close()


def test_a_group_shares_the_prefill_of_its_prompt(servers: Servers) -> None:
    engine = servers.engine(1, max_new_tokens=2)
    before = metric(servers.all[1], "vllm:prefix_cache_hits_total")
    engine.generate([Request("r", Prompt("long", "1+2+3+4+5+" * 7, "?"), 4, 0)])
    assert metric(servers.all[1], "vllm:prefix_cache_hits_total") - before >= 64  # two whole blocks of 32
    engine.close()


def test_cancelled_calls_end_on_the_server(servers: Servers) -> None:
    engine = servers.engine(1, max_new_tokens=200, max_in_flight=16)

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(requests_of(n=40), progress=stop)
    deadline = time.monotonic() + 30
    while (running := metric(servers.all[1], "vllm:num_requests_running", "vllm:num_requests_waiting")) > 0:
        assert time.monotonic() < deadline, f"{running} requests still run"
        time.sleep(0.2)
    engine.close()


def metric(server: LocalServer, *names: str) -> float:
    """Sum of the server's metrics of these names."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=30).text
    found = [line for line in text.splitlines() if line.split("{")[0] in names]
    assert found, text
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def test_an_engine_without_endpoints_starts_its_own_server_and_mends_it() -> None:
    cfg = VllmServerRolloutConfig(max_new_tokens=60, max_model_len=128, max_in_flight=2)
    engine = VllmServerEngine(LLAMA, TOKENIZER, cfg)
    process = engine.fleet.members[0].process
    assert process is not None
    try:
        assert addresses_of_port(int(process.url.rpartition(":")[2])) == {"0100007F"}
        whole = tokens_of(engine.generate(requests_of(n=4)))
        first = process.pid

        def stop(_done: int, _total: int) -> None:
            if process.pid == first:
                with suppress(ProcessLookupError):
                    kill(process)

        assert tokens_of(engine.generate(requests_of(n=4), progress=stop)) == whole
        assert process.pid != first
        trained = copy.deepcopy(LLAMA)
        disturb(trained)
        engine.sync(trained)
        assert engine.gap < 1e-3
        assert tokens_of(engine.generate(requests_of(n=4))) != whole
        assert len(flat(engine.generate(requests_of(n=4)))) == 24
        last = process.pid
    finally:
        engine.close()
    for pid in (first, last):
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)


def addresses_of_port(port: int) -> set[str]:
    """Local addresses, in hexadecimal, on which something listens at `port`."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address)
    return found
