"""The engine over HTTP when servers fail, hang, come back, or were started otherwise than they should have been."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from cures_core.config.rollout import PromptFormat, VllmServerRolloutConfig
from cures_core.errors import ConfigError, EngineFailed, MissingExtra
from cures_core.policy.accounting import load_weights
from cures_core.rollout.vllm.local_server import LocalServer, server_command, server_environment
from cures_core.rollout.vllm.memory import memory_share
from cures_core.rollout.vllm.server_engine import VllmServerEngine
from cures_core.terms import Prompt, Request
from cures_core.testing.rollout_engine import disturb, requests_of, tokens_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.cures_core.rollout.vllm.fake_vllm import FakeVllm, fake_servers

TOKENIZER = character_tokenizer()
LLAMA = tiny_llama()
OTHER = tiny_llama(seed=7)
WEIGHTS = Path("weights")


@pytest.fixture
def two() -> Iterator[list[FakeVllm]]:
    with fake_servers(2, OTHER, TOKENIZER) as servers:
        yield servers


class Engines:
    """Engines that are closed at the end."""

    def __init__(self) -> None:
        self.made: list[VllmServerEngine] = []

    def of(self, *servers: FakeVllm, model: Any = LLAMA, **options: Any) -> VllmServerEngine:
        cfg = VllmServerRolloutConfig(endpoints=tuple(s.url for s in servers), **{"max_new_tokens": 6, **options})
        self.made.append(VllmServerEngine(model, TOKENIZER, cfg))
        return self.made[-1]


@pytest.fixture
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    for engine in made.made:
        engine.close()


@pytest.fixture
def expected(two: list[FakeVllm], engines: Engines) -> list[list[tuple[int, ...]]]:
    """What an undisturbed engine answers to `requests_of(n=3)`."""
    return tokens_of(engines.of(two[0]).generate(requests_of(n=3)))


Tokens = list[list[tuple[int, ...]]]


def completions(server: FakeVllm) -> list[Any]:
    """Bodies of the completions it was asked for, fingerprints not counted."""
    return [body for path, body in server.asked if path == "/v1/completions" and "prompt_logprobs" not in body]


def test_calls_are_spread_over_all_servers(two: list[FakeVllm], engines: Engines, expected: Tokens) -> None:
    for server in two:
        server.delay_s, server.asked = 0.1, []
    assert tokens_of(engines.of(*two, max_in_flight=1).generate(requests_of(n=3))) == expected
    assert all(completions(server) for server in two)


def test_few_calls_are_spread_evenly_although_one_server_has_room_for_all(
    two: list[FakeVllm], engines: Engines
) -> None:
    engine = engines.of(*two)
    for server in two:
        server.asked, server.delay_s = [], 0.3
    engine.generate(requests_of(n=3))
    assert [len(completions(server)) for server in two] == [3, 3]


@pytest.mark.parametrize("bound", [1, 3])
def test_no_server_holds_more_calls_than_it_may(bound: int, two: list[FakeVllm], engines: Engines) -> None:
    for server in two:
        server.delay_s = 0.1
    requests = [Request(f"r{i}", Prompt(f"p{i}", "1+1=", "2"), 1, 0) for i in range(14)]
    engines.of(*two, max_in_flight=bound).generate(requests)
    assert [server.most_in_flight for server in two] == [bound, bound]


def test_a_large_group_is_several_calls(two: list[FakeVllm], engines: Engines) -> None:
    [group] = engines.of(*two).generate(requests_of(n=(70,)))
    asked = [body for server in two for body in completions(server)]
    assert sorted(body["n"] for body in asked) == [6, 32, 32]
    assert [r.index for r in group] == list(range(70))
    assert len({body["seed"] for body in asked}) == 3


def test_a_busy_server_is_asked_again(two: list[FakeVllm], engines: Engines, expected: Tokens) -> None:
    engine = engines.of(two[0], max_attempts=1)
    two[0].busy = 2
    assert tokens_of(engine.generate(requests_of(n=3))) == expected


def test_a_failed_call_goes_to_the_other_server(two: list[FakeVllm], engines: Engines, expected: Tokens) -> None:
    engine = engines.of(*two)
    two[0].broken = 1000
    assert tokens_of(engine.generate(requests_of(n=3))) == expected


def test_a_call_that_fails_everywhere_is_named(two: list[FakeVllm], engines: Engines) -> None:
    engine = engines.of(*two, max_attempts=3)
    for server in two:
        server.broken = 1000
    with pytest.raises(EngineFailed, match=r"call \d-0 failed 3 times, last: .*error 500 instead of call.*broken"):
        engine.generate(requests_of(n=3))


def test_a_call_that_hangs_goes_to_the_other_server(two: list[FakeVllm], engines: Engines, expected: Tokens) -> None:
    engine = engines.of(*two, call_timeout_s=1.0)
    two[0].hangs = True
    assert tokens_of(engine.generate(requests_of(n=3))) == expected


def test_a_server_that_falls_silent_loses_its_calls(two: list[FakeVllm], engines: Engines, expected: Tokens) -> None:
    engine = engines.of(*two, health_timeout_s=0.5)
    two[0].delay_s = 3.0  # the calls are out when it falls silent

    def fall_silent(_done: int, _total: int) -> None:
        two[0].deaf = two[0].hangs = True

    started = time.monotonic()
    assert tokens_of(engine.generate(requests_of(n=3), progress=fall_silent)) == expected
    assert time.monotonic() - started < 60


def test_without_a_server_the_failure_names_all_of_them(two: list[FakeVllm], engines: Engines) -> None:
    engine = engines.of(*two, outage_timeout_s=1.0, max_in_flight=1)

    def kill(_done: int, _total: int) -> None:
        for server in two:
            server.kill()

    for server in two:
        server.delay_s = 0.2
    started = time.monotonic()
    with pytest.raises(EngineFailed, match="no vLLM server in service for 1 s") as failure:
        engine.generate(requests_of(n=40), progress=kill)
    assert time.monotonic() - started < 60
    assert all(server.url in str(failure.value) for server in two)


def test_a_server_that_was_away_gets_the_weights_when_it_is_back(two: list[FakeVllm], engines: Engines) -> None:
    model = copy.deepcopy(LLAMA)
    engine = engines.of(*two, model=model)
    two[0].kill()
    disturb(model)
    engine.sync(model)
    two[1].delay_s = 0.2
    alone = tokens_of(engine.generate(requests_of(n=3)))
    two[0].start()
    two[1].kill()
    assert tokens_of(engine.generate(requests_of(n=3))) == alone


def test_a_server_started_anew_between_two_generations_gets_the_weights_again(
    two: list[FakeVllm], engines: Engines, expected: Tokens
) -> None:
    engine = engines.of(two[0])
    two[0].kill()
    two[0].start()
    assert tokens_of(engine.generate(requests_of(n=3))) == expected


def test_a_server_started_anew_with_other_logprobs_is_refused(two: list[FakeVllm], engines: Engines) -> None:
    engine = engines.of(two[0], temperature=0.7)
    two[0].kill()
    two[0].mode = "raw_logprobs"
    two[0].start()
    with pytest.raises(ConfigError, match="--logprobs-mode processed_logprobs"):
        engine.generate(requests_of(n=3))


def test_weights_that_one_server_lost_are_noticed(two: list[FakeVllm], engines: Engines) -> None:
    model = copy.deepcopy(LLAMA)
    engine = engines.of(*two, model=model)
    disturb(model)
    two[1].loses_weights = True
    with pytest.raises(EngineFailed, match=rf"{two[1].url}: .*did not arrive"):
        engine.sync(model)


def test_no_server_is_given_weights_that_are_not_whole(
    two: list[FakeVllm], engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint of a server that keeps its earlier tensor of that name need not show it."""
    engine, asked = engines.of(*two), [list(server.asked) for server in two]
    name = "model.layers.0.mlp.up_proj.weight"
    state = {key: value for key, value in LLAMA.state_dict().items() if key != name}
    monkeypatch.setattr("cures_core.rollout.vllm.handover.merged_state", lambda _: state)
    with pytest.raises(EngineFailed, match=f"weight sync: .*the files lack {name}"):
        engine.sync(LLAMA)
    assert [server.asked for server in two] == asked


@pytest.mark.parametrize("arrives", [True, False])
def test_an_adapter_that_did_not_arrive_is_noticed(arrives: bool, two: list[FakeVllm], engines: Engines) -> None:
    """Its update is far below the bound: only that the trainer has moved and the server has not tells."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(copy.deepcopy(LLAMA), LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    engine = engines.of(two[0], model=model, fingerprint_bound=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.002)
    two[0].loses_weights = not arrives
    if arrives:
        engine.sync(model)
        assert engine.gap < 1e-4
    else:
        with pytest.raises(EngineFailed, match=r"log-probabilities moved by .* did not arrive"):
            engine.sync(model)


def test_weights_that_the_servers_cannot_see_are_named(two: list[FakeVllm], engines: Engines, monkeypatch: Any) -> None:
    monkeypatch.setattr(FakeVllm, "reload", lambda *_: (500, {"error": "no such folder"}))
    with pytest.raises(EngineFailed, match=r"no vLLM server in service.*it to load /.*no such folder"):
        engines.of(two[0], outage_timeout_s=0.5)


def test_sleeping_servers_are_woken_in_two_parts(two: list[FakeVllm], engines: Engines) -> None:
    engine = engines.of(*two, sleep_level=1)
    for server in two:
        server.asked = []
    engine.sleep()
    engine.sync(LLAMA)
    for server in two:
        order = [p for p in server.paths() if p.startswith(("/sleep", "/wake", "/coll"))]
        assert order == [
            "/sleep?level=1&mode=wait",
            "/wake_up?tags=weights",
            "/collective_rpc",
            "/wake_up?tags=kv_cache",
        ]


def test_without_a_sleep_level_nobody_sleeps(two: list[FakeVllm], engines: Engines) -> None:
    engines.of(two[0]).sleep()
    assert not any(path.startswith("/sleep") for path in two[0].paths())


def test_the_models_own_sampling_defaults_play_no_part(two: list[FakeVllm], engines: Engines) -> None:
    engines.of(two[0], temperature=0.5).generate(requests_of(n=1))
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    wanted = {**neutral, "temperature": 0.5, "top_p": 1.0, "max_tokens": 6, "ignore_eos": True, "model": "tiny"}
    for body in completions(two[0]):
        assert {name: body[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("mode", "options", "fits"),
    [
        ("raw_logprobs", {"temperature": 0.7}, False),
        ("raw_logprobs", {"temperature": 1.0}, True),
        ("raw_logprobs", {"top_p": 0.9}, True),
        ("processed_logprobs", {"temperature": 0.7}, True),
        ("processed_logprobs", {"top_p": 0.9}, False),
        ("", {"temperature": 1.0}, True),
        ("", {"temperature": 0.7}, False),
    ],
)
def test_a_server_with_other_logprobs_is_refused(
    mode: str, options: dict[str, Any], fits: bool, two: list[FakeVllm], engines: Engines
) -> None:
    two[0].mode = mode
    if fits:
        engines.of(two[0], **options)
        return
    with pytest.raises(ConfigError, match="--logprobs-mode"):
        engines.of(two[0], **options)
    two[0].mode = "raw_logprobs" if mode == "processed_logprobs" else "processed_logprobs"
    engine = engines.of(two[0], **options)
    for member in engine.fleet.members:
        assert member.served is not None
    unfit = {"temperature": 1.0, "top_p": 1.0, **({"top_p": 0.9} if "temperature" in options else {"temperature": 0.7})}
    with pytest.raises(ConfigError, match="--logprobs-mode"):
        engine.retune(engine.cfg.model_copy(update=unfit))


def test_stop_tokens_of_another_format_are_left_with_it(two: list[FakeVllm], engines: Engines) -> None:
    engine = engines.of(two[0])

    def stops() -> Any:
        engine.generate(requests_of(n=1)[:1])
        return completions(two[0])[-1]["stop_token_ids"]

    own, plain = stops(), engine.cfg
    engine.retune(plain.model_copy(update={"prompt_format": PromptFormat(stop=("<unk>",))}))
    assert stops() == [*own, TOKENIZER.unk_token_id]
    engine.retune(plain)
    assert stops() == own


def test_the_shortest_context_of_the_fleet_counts(two: list[FakeVllm], engines: Engines) -> None:
    two[1].context = 16
    with pytest.raises(ConfigError, match="--max-model-len"):
        engines.of(*two, max_new_tokens=16).generate(requests_of(n=1))


def test_a_server_without_the_development_mode_is_refused(
    two: list[FakeVllm], engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = FakeVllm.answer
    monkeypatch.setattr(
        FakeVllm, "answer", lambda self, path, *rest: (404, {}) if path == "/server_info" else answer(self, path, *rest)
    )
    with pytest.raises(ConfigError, match="VLLM_SERVER_DEV_MODE=1"):
        engines.of(two[0])


def test_the_key_is_sent_and_proxies_are_not_used(
    two: list[FakeVllm], engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "canary")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    engine = engines.of(two[0])
    assert engine.fleet.members[0].endpoint._http.headers["Authorization"] == "Bearer canary"
    monkeypatch.setattr(FakeVllm, "answer", lambda *_: (401, {}))
    with pytest.raises(ConfigError, match="VLLM_API_KEY") as failure:
        engine.sync(LLAMA)
    assert "canary" not in str(failure.value)


def test_an_answer_of_another_kind_of_server_is_named(
    two: list[FakeVllm], engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines.of(two[0])
    monkeypatch.setattr(FakeVllm, "sample", lambda *_: [{"index": 0, "text": "4"}])
    with pytest.raises(EngineFailed, match=rf"{two[0].url}: call 0-0 is not answered as vLLM"):
        engine.generate(requests_of(n=(1,)))


def test_a_server_of_ours_listens_on_loopback_only() -> None:
    cfg = VllmServerRolloutConfig(max_model_len=128, block_tokens=64, kv_cache_gib=2, sleep_level=1)
    words = server_command(cfg, WEIGHTS, "float32", 8123, on_gpu=True)
    pairs = dict(pairwise(words))
    assert pairs["--host"] == "127.0.0.1"
    assert (pairs["--max-model-len"], pairs["--block-size"]) == ("128", "64")
    assert pairs["--kv-cache-memory-bytes"] == str(2 << 30)
    assert "--enable-sleep-mode" in words
    assert "--enable-sleep-mode" not in server_command(cfg, WEIGHTS, "float32", 8123, on_gpu=False)
    assert "--max-model-len" not in server_command(VllmServerRolloutConfig(), WEIGHTS, "float32", 1, on_gpu=False)
    assert server_environment(cfg, on_gpu=False)["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert server_environment(cfg, on_gpu=True)["VLLM_SERVER_DEV_MODE"] == "1"


class SlowServer:
    """A server of ours whose start takes longer than an outage may."""

    made: ClassVar[list[SlowServer]] = []
    logprobs_mode = "processed_logprobs"

    def __init__(self, *_: Any) -> None:
        self.fake, self.alive, self.starts = FakeVllm(OTHER, TOKENIZER), False, 0
        self.fake.kill()
        self.url = self.fake.url
        self.made.append(self)

    def start(self, folder: Path) -> None:
        self.fake._first = load_weights(folder).eval()
        self.alive, self.starts = True, self.starts + 1
        threading.Timer(1.5, self.fake.start).start()

    def kill(self) -> None:
        self.alive = False
        self.fake.kill()

    stop = kill

    def failure(self, limit_s: float) -> str:
        return "it did not start"


def test_a_server_of_ours_that_was_killed_has_the_time_to_start_again(
    engines: Engines, expected: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cures_core.rollout.vllm.server_engine.LocalServer", SlowServer)
    engine = engines.of(outage_timeout_s=0.5, max_in_flight=1)
    process = SlowServer.made[-1]

    def kill(_done: int, _total: int) -> None:
        if process.starts == 1:
            process.kill()

    assert tokens_of(engine.generate(requests_of(n=3), progress=kill)) == expected
    assert process.starts == 2


def test_a_server_of_ours_that_does_not_stay_up_is_given_up(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cures_core.rollout.vllm.server_engine.LocalServer", SlowServer)
    engine = engines.of(outage_timeout_s=0.5, max_in_flight=1, max_restarts=0)
    process = SlowServer.made[-1]
    with pytest.raises(EngineFailed, match=r"in service for 0.5 s: .*0 restarts did not help"):
        engine.generate(requests_of(n=3), progress=lambda *_: process.kill())
    assert process.starts == 1


def test_a_server_of_ours_needs_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"cures\[vllm\]"):
        LocalServer(VllmServerRolloutConfig(), "float32", on_gpu=False)


def test_a_server_asks_for_no_more_of_a_gpu_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not start beside a trainer."""
    (tmp_path / "model.safetensors").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 << 30))
    cfg = VllmServerRolloutConfig(kv_cache_gib=6)
    words = server_command(cfg, tmp_path, "bfloat16", 8123, on_gpu=True)
    assert dict(pairwise(words))["--gpu-memory-utilization"] == "0.1"
    assert "--gpu-memory-utilization" not in server_command(cfg, tmp_path, "bfloat16", 8123, on_gpu=False)
    assert memory_share(tmp_path, 200) == 1.0
