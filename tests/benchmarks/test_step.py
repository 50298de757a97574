"""The two arms of the step benchmark do the same work, and count it the same way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.step import training_step
from benchmarks.step.arms import _medians, _ratios, compare_steps
from benchmarks.step.training_step import Figures, StepSpec, _Clock, coin, run_cures, run_trl
from cures_core.errors import ConfigError, MissingExtra
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StepSpec:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama().save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return StepSpec(model=str(folder), prompts=2, n=4, max_new_tokens=8, steps=2)


def assert_sound(figures: Figures, spec: StepSpec) -> None:
    rollouts = spec.steps * spec.prompts * spec.n
    assert rollouts <= figures.tokens <= rollouts * spec.max_new_tokens
    assert 0 < figures.generation_s + figures.training_s <= figures.total_s
    assert figures.tokens_per_s == pytest.approx(figures.tokens / figures.total_s)
    assert figures.peak_mib >= figures.start_mib > 50


def test_both_arms_see_the_same_prompts_and_count_alike(spec: StepSpec) -> None:
    ours, peers = run_cures(spec), run_trl(spec)
    assert_sound(ours, spec)
    assert_sound(peers, spec)
    # Those of the counted steps, once for each rollout.
    assert ours.prompt_tokens == peers.prompt_tokens > 0
    assert ours.kernels == {"static": 0, "captured": 0, "bounded": 0, "share_rows": 1}


def test_on_cuda_every_reading_of_the_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append("wait"))
    clock = _Clock("cuda")
    before = len(waits)
    clock.timed("training", lambda: waits.append("work"))()
    assert waits[before:] == ["wait", "work", "wait"]
    _Clock("cpu").timed("training", lambda: None)()
    assert waits[before:] == ["wait", "work", "wait"]


def test_steps_run_in_the_type_that_is_asked_for(spec: StepSpec) -> None:
    seen: list[Any] = []
    load = training_step.load_policy
    with pytest.MonkeyPatch.context() as patch:

        def noting(*args: Any, **kwargs: Any) -> Any:
            policy = load(*args, **kwargs)
            seen.append(next(policy.model.parameters()).dtype)
            return policy

        patch.setattr(training_step, "load_policy", noting)
        assert_sound(run_cures(spec.model_copy(update={"dtype": "bfloat16"})), spec)
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(("field", "value"), [("device", "tpu"), ("dtype", "int4")])
def test_a_device_or_type_that_there_is_not_is_named(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--{field} {value}"):
        compare_steps("trl", 1, model="", **{field: value})


def test_the_reward_is_a_coin_that_the_text_tosses() -> None:
    tosses = [coin(str(i)) for i in range(1000)]
    assert tosses == [coin(str(i)) for i in range(1000)]
    assert 450 < sum(tosses) < 550


def test_ratios_are_ours_over_the_peers_also_for_each_token() -> None:
    base = dict.fromkeys(Figures.model_fields.keys() - {"kernels"}, 1.0) | {"tokens": 100, "prompt_tokens": 10}
    ours = _medians([Figures(**base | {"total_s": s, "tokens": 200}) for s in (3.0, 1.0, 2.0)])
    ratio = _ratios(ours, _medians([Figures(**base | {"total_s": 4.0})]))
    assert (ratio["total_s"], ratio["tokens"], ratio["total_s_per_token"]) == (0.5, 2.0, 0.25)


def test_a_missing_or_unknown_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="trl"):
        compare_steps("verl", 1, model="")
    find = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "trl" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(MissingExtra, match=r"pip install 'cures\[trl\]'"):
        compare_steps("trl", 1, model="")


@pytest.mark.slow
def test_a_step_takes_less_than_seven_tenths_of_the_peers(tmp_path: Path) -> None:
    result = compare_steps("trl", 1, model="", prompts=8, n=8, max_new_tokens=128, steps=2, threads=1)
    assert result["ratio"]["total_s_per_token"] < 0.7
