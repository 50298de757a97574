"""`cures bench throughput` prints figures of the work it was asked for, or what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.cures_core.rollout.vllm.fake_vllm import fake_servers
from tests.end_to_end.pipeline import cures

SMALL = ("--prompts", 3, "--n", 2, "--max-new-tokens", 6, "--json")


def test_throughput_of_an_engine_beside_generate(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_llama().save_pretrained(model)
    character_tokenizer().save_pretrained(model)
    outcome = cures("bench", "throughput", "--model", model, *SMALL, "--repeats", 1, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    figures = outcome.summary
    assert (figures["engine"], figures["model"], figures["rollouts"]) == ("hf", str(model), 6)
    plain = max(figures["generate_grouped_tokens_per_s"], figures["generate_batched_tokens_per_s"])
    assert figures["speedup"] == pytest.approx(figures["engine_tokens_per_s"] / plain, rel=0.01)


def test_throughput_of_servers_that_run_already(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_llama().save_pretrained(model)
    character_tokenizer().save_pretrained(model)
    with fake_servers(2, tiny_llama(seed=7), character_tokenizer()) as servers:
        named = [word for server in servers for word in ("--endpoint", server.url)]
        outcome = cures(
            "bench", "throughput", "--engine", "vllm_server", *named, "--model", model, *SMALL, cwd=tmp_path
        )
        assert all(server.answered for server in servers)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["engine"] == "vllm_server"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["throughput", "--engine", "sglang"], ["--engine sglang", "'hf', 'vllm', 'vllm_server'"]),
        (["throughput", "--engine", "hf", "--endpoint", "http://localhost:1"], ["--endpoint", "vllm_server"]),
        (["throughput", "--engine", "vllm_server", "--endpoint", "localhost:1"], ["http://HOST:PORT"]),
        (["throughput", "--engine", "vllm", "--decoding", "static"], ["--decoding", "hf"]),
        (["throughput", "--decoding", "fast"], ["--decoding fast", "'auto', 'eager' or 'static'"]),
    ],
)
def test_what_cannot_be_measured_is_named(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    outcome = cures("bench", *arguments, cwd=tmp_path)
    assert outcome.code == 2, outcome
    assert all(word in outcome.err for word in words), outcome.err
