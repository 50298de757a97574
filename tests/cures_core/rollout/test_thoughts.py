"""Every engine shows the policy the same chat, and tells thinking from answers alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.evaluation import EvaluatedSuite
from cures_core.config.rollout import HfRolloutConfig, PromptFormat, VllmRolloutConfig, VllmServerRolloutConfig
from cures_core.config.run import RunConfig
from cures_core.epoch import thinking_means
from cures_core.jobs.assemble import evaluation_rollout
from cures_core.rollout.hf.engine import HfEngine
from cures_core.rollout.prompting import render
from cures_core.rollout.stopping import StopRule
from cures_core.rollout.thoughts import Thoughts
from cures_core.rollout.vllm.calls import Generation, Sampled
from cures_core.rollout.vllm.server_engine import VllmServerEngine
from cures_core.terms import FinishReason, Prompt, Request, Rollout
from cures_core.thinking import answer_of
from cures_core.training.advantages import Sample
from cures_core.training.packing import micro_batches
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.cures_core.rollout.vllm.fake_vllm import FakeVllm

CHAT = (
    "{% for m in messages %}{{ m['role'] }}={{ m['content'] }}\n{% endfor %}assistant="
    "{% if opened is defined and opened %}q{% endif %}"
)
TOKENIZER = character_tokenizer(chat_template=CHAT)
LLAMA = tiny_llama()
SAID = Prompt("p", "how many", "?", turns=(("system", "be brief"), ("user", "hens"), ("assistant", "yes")))
SHOWN = "system=be brief\nuser=hens\nassistant=yes\nuser=how many\nassistant=q"
FORMAT = PromptFormat(chat=True, chat_template_kwargs={"opened": True}, thinking=("q", "z"))
REQUEST = Request("r", SAID, 6, 3)


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeVllm]:
    server = FakeVllm(LLAMA, TOKENIZER)
    yield server
    server.kill()


def check(rollouts: list[Rollout]) -> None:
    assert len(rollouts) == 6
    for rollout in rollouts:
        assert rollout.prompt_ids == ids(SHOWN)
        assert rollout.text == "q" + TOKENIZER.decode(rollout.token_ids, skip_special_tokens=True)
        thought = "q" + TOKENIZER.decode(rollout.token_ids[: rollout.thinking_tokens], skip_special_tokens=True)
        assert rollout.text == thought + answer_of(rollout.text, FORMAT.thinking)
    assert {answer_of(r.text, FORMAT.thinking) == "" for r in rollouts} == {True, False}


def test_the_embedded_engine_shows_the_chat_and_counts_the_thinking() -> None:
    cfg = HfRolloutConfig(max_new_tokens=24, prompt_format=FORMAT)
    check(HfEngine(LLAMA, TOKENIZER, cfg).generate([REQUEST])[0])


def test_a_server_is_asked_for_the_same(fake: FakeVllm) -> None:
    cfg = VllmServerRolloutConfig(max_new_tokens=24, prompt_format=FORMAT, endpoints=(fake.url,))
    engine = VllmServerEngine(LLAMA, TOKENIZER, cfg)
    try:
        check(engine.generate([REQUEST])[0])
    finally:
        engine.close()
    prompts = [body["prompt"] for path, body in fake.asked if path == "/v1/completions" and "seed" in body]
    assert {tuple(prompt) for prompt in prompts} == {ids(SHOWN)}


def test_vllm_is_asked_for_the_same() -> None:
    cfg = VllmRolloutConfig(max_new_tokens=24, prompt_format=FORMAT)
    stop = StopRule(TOKENIZER, [2], (), len(TOKENIZER))
    generation = Generation([REQUEST], TOKENIZER, cfg, stop, 256, 256, None)
    (call,) = generation.open.values()
    assert call.prompt_ids == ids(SHOWN)
    tokens = ids("so z 5")
    generation.record(call.name, [Sampled(tokens, (-1.0,) * len(tokens), "stop")] * 6)
    assert {(r.text, r.thinking_tokens) for r in generation.rollouts[0]} == {("qso z 5", 4)}


def test_the_trainer_learns_on_what_was_shown() -> None:
    cfg = HfRolloutConfig(max_new_tokens=4, prompt_format=FORMAT)
    rollout = HfEngine(LLAMA, TOKENIZER, cfg).generate([Request("r", SAID, 1, 3)])[0][0]
    (batch,) = micro_batches([Sample(rollout, 1.0, 1.0)], 256, 0)
    assert tuple(batch.ids[0][: len(ids(SHOWN))]) == ids(SHOWN)


def test_a_suite_is_asked_as_training_is_unless_it_says_otherwise() -> None:
    suite: dict[str, Any] = {"name": "exam", "path": "x"}
    own = {**suite, "name": "own", "prompt_format": {"chat": True, "chat_template_kwargs": {"opened": False}}}
    cfg = RunConfig.model_validate(
        {
            "data": {"path": "x"},
            "rollout": {"max_new_tokens": 4, "prompt_format": FORMAT.model_dump()},
            "training": {"learning_rate": 1e-3},
            "evaluation": {"suites": [suite, own]},
        }
    )
    formats = [evaluation_rollout(cfg, s, 0.0).prompt_format for s in cfg.evaluation.suites]
    assert formats[0] == FORMAT
    assert render(SAID, TOKENIZER, formats[1]) == SHOWN[:-1]
    assert isinstance(cfg.evaluation.suites[0], EvaluatedSuite)


@given(st.text(st.sampled_from("qz ab"), max_size=12))
def test_tokens_of_thinking_are_those_up_to_the_answer(said: str) -> None:
    tokens = ids(said)
    made = Rollout("r", 0, (1,), tokens, (0.0,) * len(tokens), said, FinishReason.STOP)
    closed = said.rfind("z") + 1
    expected = len(said) if "q" in said[closed:] else closed
    marked = Thoughts(TOKENIZER, PromptFormat(thinking=("q", "z"))).marked(made)
    assert (marked.text, marked.thinking_tokens) == (said, expected)
    assert Thoughts(TOKENIZER, PromptFormat()).marked(made) is made


def test_lengths_of_a_step_are_told_apart_where_there_is_thinking() -> None:
    made = [
        Rollout("r", i, (1,), (3,) * 10, (0.0,) * 10, "", FinishReason.STOP, thinking)
        for i, thinking in enumerate((4, 10))
    ]
    assert thinking_means(made) == {"thinking_tokens_mean": 7.0, "answer_tokens_mean": 3.0}
    assert thinking_means([Rollout("r", 0, (1,), (3,), (0.0,), "", FinishReason.STOP)]) == {}
