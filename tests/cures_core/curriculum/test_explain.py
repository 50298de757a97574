from __future__ import annotations

import re

import numpy as np
import pytest

from cures_core.config.curriculum import CuresConfig, NeymanAllocation, ScreenAllocation
from cures_core.curriculum import Posterior
from cures_core.curriculum.explain import draw_probabilities, explain_prompt, hopeless
from cures_core.errors import ConfigError
from cures_core.testing.curriculum import prompt_set

CFG = CuresConfig(prompts_per_step=8, rollouts_per_step=64)
POOL = prompt_set(40)


@pytest.fixture
def posterior() -> Posterior:
    """Everything solved but prompt 0, which always fails, and prompt 1, which is half solved."""
    posterior = Posterior.fresh(POOL, CFG.posterior)
    right = np.full(38, 8)
    posterior.update(POOL.ids[2:], right, 8 - right, 1)
    for step in (2, 3):
        posterior.update(POOL.ids[:2], [0, 4], [8, 4], step)
    return posterior


def test_probabilities_are_those_of_the_draw(posterior: Posterior) -> None:
    p = draw_probabilities(CFG, POOL, posterior)
    assert p.sum() == pytest.approx(1.0)
    assert p[1] == p.max()
    assert p[0] < 2 * CFG.explore / 40


def test_words_and_numbers_agree(posterior: Posterior) -> None:
    half, dead, solved = (explain_prompt(CFG, POOL, posterior, POOL.ids[i]) for i in (1, 0, 5))
    assert half["rank"] == 1
    assert half["times_uniform"] > 5
    assert f"drawn {half['times_uniform']:.2f} times" in " ".join(half["words"])
    assert "rank 1 of 40" in " ".join(half["words"])
    assert dead["dead"] > 0.9
    assert any("gold answer may be wrong" in line for line in dead["words"])
    assert not any("dead" in line for line in solved["words"])
    assert solved["mean"] > 0.9
    assert "last rolled out 2 steps ago" in solved["words"][0]
    assert half["rollouts"].startswith("8,")
    uneven = CFG.model_copy(update={"allocation": NeymanAllocation(min_rollouts=2, max_rollouts=9)})
    assert explain_prompt(uneven, POOL, posterior, POOL.ids[1])["rollouts"].startswith("2 to 9")
    screened = CFG.model_copy(update={"allocation": ScreenAllocation(max_rollouts=4)})
    assert explain_prompt(screened, POOL, posterior, POOL.ids[1])["rollouts"].startswith("1, and up to 3 more")


def test_a_mean_is_that_of_the_beta_beside_it(posterior: Posterior) -> None:
    for name in POOL.ids:
        shown = explain_prompt(CFG, POOL, posterior, name)
        assert shown["mean"] == pytest.approx(shown["a"] / (shown["a"] + shown["b"]))
        assert shown["expected_pass_rate"] == pytest.approx((1 - shown["dead"]) * shown["mean"])
        words = " ".join(shown["words"])
        a, b, mean = map(float, re.findall(r"Beta\(([\d.]+), ([\d.]+)\), with a mean of ([\d.]+) %", words)[0])
        assert 100 * a / (a + b) == pytest.approx(mean, abs=0.2)  # a and b are printed with two decimals
    dead = explain_prompt(CFG, POOL, posterior, POOL.ids[0])
    assert dead["expected_pass_rate"] < 0.1 * dead["mean"]
    assert f"leaves an expected pass rate of {100 * dead['expected_pass_rate']:.1f} %" in " ".join(dead["words"])


def test_what_looks_hopeless_is_listed_with_its_evidence(posterior: Posterior) -> None:
    (found,) = hopeless(POOL, posterior, 0.9)
    assert found["id"] == POOL.ids[0]
    assert found["dead"] > 0.9
    assert "last tried in step 3" in found["reason"]
    assert "its group succeeds in 9" in found["reason"]
    assert hopeless(POOL, posterior, 1.0) == []
    assert hopeless(POOL, Posterior.fresh(POOL, CFG.posterior), 0.0) == []


def test_a_prompt_that_was_never_rolled_out_says_so() -> None:
    fresh = Posterior.fresh(POOL, CFG.posterior)
    assert "never been rolled out" in explain_prompt(CFG, POOL, fresh, POOL.ids[3])["words"][0]
    with pytest.raises(ConfigError, match="not in this posterior"):
        explain_prompt(CFG, POOL, fresh, "nobody")
