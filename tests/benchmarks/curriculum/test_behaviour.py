"""What is measured of a policy before RL: norms of scores as autograd has them, figures as the rollouts have them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.curriculum import rivals
from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.behaviour import BANDS, _pass_at, _score, factors, lines, measure
from benchmarks.curriculum.worlds.scratchpad import LESSON, LEVELS, POLICY, WORLD, examples
from cures_core.plugins import VARIABLE
from cures_core.policy.loading import Policy, load_policy
from cures_core.rollout import build_engine
from cures_core.terms import Group, Outcome, Request, Verdict

TINY = POLICY.model_copy(update={"steps": 8, "hidden_size": 16, "layers": 1, "heads": 2})


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = warm_started("scratchpad", TINY, LESSON, tmp_path_factory.mktemp("policies"))
    return load_policy(folder, torch.device("cpu"))


def test_norms_and_entropies_are_those_of_autograd(policy: Policy) -> None:
    [prompt] = list(examples(1, 0))[:1]
    engine = build_engine(WORLD.rollout.model_copy(update={"max_new_tokens": 9}), policy.model, policy.tokenizer, "cpu")
    [[rollout]] = engine.generate([Request("r", prompt, 1, 7)])
    found = _score(policy, rollout, whole=True)
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.token_ids]])
    logp = torch.log_softmax(policy.model(input_ids=ids).logits[0, len(rollout.prompt_ids) - 1 : -1], dim=-1)
    policy.model.zero_grad()
    logp[range(len(rollout.token_ids)), list(rollout.token_ids)].sum().backward()
    grads = {name: p.grad for name, p in policy.model.named_parameters()}
    assert found.output == pytest.approx(float(grads["lm_head.weight"].pow(2).sum()), rel=1e-4)
    assert found.whole == pytest.approx(sum(float(g.pow(2).sum()) for g in grads.values()), rel=1e-4)
    entropies = -(logp.exp() * logp).sum(-1).detach().numpy()
    assert found.entropies == pytest.approx(entropies, rel=1e-4)
    assert np.isnan(_score(policy, rollout, whole=False).whole)


def test_a_world_is_measured_by_kind_and_by_pass_rate(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, rivals.PLUGINS)
    found = measure(WORLD, policy, 2, 4, norms=1)
    assert list(found["kinds"]) == sorted(LEVELS)
    assert list(found["bands"]) == list(BANDS)
    summary = found["summary"]
    assert 0 < summary["tokens"] <= WORLD.rollout.max_new_tokens
    assert 0 < summary["truncated_share"] < 1  # after eight steps it ends by chance
    assert 0 < summary["entropy"] <= np.log(len(policy.tokenizer))
    assert found["prompts"] == 2 * len(LEVELS)
    assert len(lines(found)) == 1 + len(LEVELS) + 1 + len(BANDS)


def test_pass_at_k_is_the_chance_that_one_of_k_is_right() -> None:
    """The reference: all ways to draw k of the completions."""
    prompt = next(iter(examples(1, 0)))
    for right, wrong, k in ((0, 9, 8), (1, 9, 8), (3, 6, 4), (8, 0, 8)):
        outcomes = [Outcome.CORRECT] * right + [Outcome.WRONG] * wrong
        group = Group(Request("r", prompt, len(outcomes), 0), [], [Verdict(outcome) for outcome in outcomes])
        drawn = list(combinations(outcomes, k))
        share = sum(Outcome.CORRECT in some for some in drawn) / len(drawn)
        assert _pass_at(group, k) == pytest.approx(share)


def test_factors_to_the_pretrained_model() -> None:
    one = {"summary": {"entropy": 1.0, "truncated_share": 0.1, "ratio_output_low": None}}
    other = {"summary": {"entropy": 0.5, "truncated_share": 0.0, "ratio_output_low": 1.0}}
    found = factors(one, other)
    assert found["entropy"] == 2.0
    assert found["truncated_share"] is found["ratio_output_low"] is found["ratio_output_high"] is None


def test_a_base_policy_is_made_once_and_again_where_it_is_damaged(tmp_path: Path) -> None:
    first = warm_started("scratchpad", TINY, LESSON, tmp_path)
    weights = (first / "model.safetensors").read_bytes()
    assert warm_started("scratchpad", TINY, LESSON, tmp_path) == first
    (first / "model.safetensors").write_bytes(b"other bytes")
    assert warm_started("scratchpad", TINY, LESSON, tmp_path) == first
    assert (first / "model.safetensors").read_bytes() == weights
    other = warm_started("scratchpad", TINY.model_copy(update={"seed": 1}), LESSON, tmp_path)
    assert other != first
    assert (other / "model.safetensors").read_bytes() != weights
