"""Near copies: planted rewordings are found, siblings with other numbers and clean prompts are not."""

from __future__ import annotations

import numpy as np

from cures_core.config.data import DataConfig
from cures_core.prompts import load_prompts
from cures_core.prompts.near import near_copies
from tests.shared_data import shared_file

TRAIN = "A train leaves Boston at 3 p.m. and travels 60 miles an hour. How many miles does it travel in 5 hours?"


def test_other_words_are_near_and_other_numbers_are_not() -> None:
    reworded = TRAIN.replace("A train", "One train").lower()
    assert [(i, j) for i, j, _ in near_copies([TRAIN, reworded, TRAIN.replace("60", "70"), "What is 2?"])] == [(1, 0)]


def test_planted_copies_among_public_prompts() -> None:
    """Each of 200 prompts again with one word in twenty-four exchanged: recall, and what else is reported."""
    clean = load_prompts(DataConfig(path=str(shared_file("gsm8k_train.jsonl")))).prompts.column("problem")[:3000]
    rng = np.random.default_rng(3)
    planted = []
    for i in rng.permutation(len(clean))[:200]:
        words = clean[i].split()
        plain = [k for k, word in enumerate(words) if word.isalpha() and len(word) > 2]
        for k in rng.permutation(plain)[: max(1, len(words) // 24)]:
            words[k] = "some"
        planted.append((int(i), " ".join(words)))
    found = {i: j for i, j, _ in near_copies([*clean, *(text for _, text in planted)])}
    recalled = sum(found.get(len(clean) + n) == i for n, (i, _) in enumerate(planted))
    others = sum(i < len(clean) for i in found)
    print(f"recall {recalled / len(planted):.3f}, others reported {others} of {len(clean)}")
    assert recalled >= 0.9 * len(planted)
    assert others <= 0.005 * len(clean)
