"""The warm start: other lessons than the built-in one, batches cut by length, going on after a stop."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cures_core.config.device import DeviceConfig
from cures_core.config.policy import WarmStartPolicy
from cures_core.policy.characters import character_tokenizer
from cures_core.policy.loading import load_policy
from cures_core.policy.warm_start import CHAINS, Lesson, _Batches, _encode, warm_start

TINY = WarmStartPolicy(hidden_size=16, layers=1, heads=2, steps=10, batch=4, checkpoint_every=4)


def train(folder: Path, lesson: Lesson, stop_at: int = 0) -> bytes:
    def on_step(step: int, _: float) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    warm_start(TINY, DeviceConfig(type="cpu"), folder / "scratch", folder / "policy", on_step, lesson)
    return (folder / "policy" / "model.safetensors").read_bytes()


def test_batches_cut_by_length_hold_what_was_drawn_and_weigh_by_their_tokens() -> None:
    drawn = CHAINS.tutor(0)(np.random.default_rng([0, 4, 1]), 4 * 8)
    found = [_Batches(CHAINS, 0, 4).at(step) for step in range(8, 16)]
    assert sorted(pair for pairs, _ in found for pair in pairs) == sorted(drawn)
    lengths = sorted([len(a + b) for a, b in pairs] for pairs, _ in found)
    assert all(shorter[-1] <= longer[0] for shorter, longer in pairwise(lengths))
    tokens = np.array([sum(len(answer) + 1 for _, answer in pairs) for pairs, _ in found])
    assert [weight for _, weight in found] == pytest.approx(tokens / tokens.mean())


def test_a_lesson_brings_its_symbols_and_its_room(tmp_path: Path) -> None:
    lesson = Lesson(lambda seed: lambda rng, num: [("ab=", "x" * (20 + seed))] * num, "abx=", positions=100)
    train(tmp_path, lesson)
    policy = load_policy(tmp_path / "policy", "cpu")
    assert policy.model.config.n_positions == 100
    assert set("abx=") < set(policy.tokenizer.get_vocab())


WORDY = Lesson(lambda _: lambda rng, num: [("a=", "b then b. Then a")] * num, "ab=", words=(" then ", ". ", ". Then "))


def test_words_of_a_lesson_are_tokens_the_longest_that_fits(tmp_path: Path) -> None:
    train(tmp_path, WORDY)
    tokenizer = load_policy(tmp_path / "policy", "cpu").tokenizer
    text = "ab then b. Then a. b"
    assert tokenizer.tokenize(text) == ["a", "b", " then ", "b", ". Then ", "a", ". ", "b"]
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert WORDY.length(text) == 8
    assert CHAINS.length("1+2=") == 4


def test_short_and_long_words_weigh_by_tokens_alone() -> None:
    lesson = replace(WORDY, tutor=lambda _: lambda rng, num: [("a=", "b. b"), ("a=", "b. Then b")] * (num // 2))
    assert [_Batches(lesson, 0, 4).at(step)[1] for step in range(8)] == [1.0] * 8


def test_a_demonstration_is_asked_and_answered_in_its_tokens() -> None:
    tokenizer = character_tokenizer(WORDY.symbols, WORDY.words)
    ids, is_answer = _encode(tokenizer, [("a=", "b then b"), ("aaa=", "b")])
    assert tokenizer.batch_decode(ids) == ["a=b then b<eos>", "aaa=b<eos>"]
    assert is_answer.tolist() == [[False] * 2 + [True] * 4, [False] * 4 + [True] * 2]


@pytest.mark.parametrize("stop_at", [5, 8])
def test_a_stopped_warm_start_ends_with_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    """Also where the stop falls between two batches of one draw."""
    whole = train(tmp_path / "whole", CHAINS)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", CHAINS, stop_at)
    assert train(tmp_path / "stopped", CHAINS) == whole
