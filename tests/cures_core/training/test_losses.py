"""Losses against values worked out by hand, finite differences, and TRL where it has the same loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cures_core.config.training import RECIPES
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.training.advantages import batch_samples, group_advantages
from cures_core.training.losses import kl_penalty, surrogate, token_logprobs


@pytest.fixture(autouse=True)
def made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autograd function is made once in a process: here in every test that uses it."""
    monkeypatch.setattr("cures_core.training.losses._FUNCTION", None)


def test_surrogate_by_hand_and_asymmetric_clip() -> None:
    logp = torch.log(torch.tensor([1.5, 0.5, 1.5, 0.5]))
    loss, clipped, _ = surrogate(logp, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2, 0.3)
    assert torch.allclose(loss, torch.tensor([-1.3, -0.5, 1.5, 0.8]))
    assert clipped.tolist() == [True, False, False, True]


def test_the_ratio_is_to_the_probability_at_sampling_time() -> None:
    logp, old = torch.log(torch.tensor([0.6, 0.1])), torch.log(torch.tensor([0.5, 0.2]))
    loss, _, _ = surrogate(logp, old, torch.tensor([1.0, 1.0]), 0.9, 0.9)
    assert torch.allclose(loss, torch.tensor([-1.2, -0.5]))
    loss, clipped, _ = surrogate(logp, old, torch.tensor([1.0, 1.0]), 0.2, 0.3, "sequence", torch.tensor([0, 0]))
    assert torch.allclose(loss, torch.tensor([-0.3, -0.3]))  # 1.2 x 0.5, over two tokens
    assert clipped.tolist() == [False, False]


def test_a_ratio_at_the_bound_is_not_truncated() -> None:
    loss, clipped, truncated = surrogate(torch.zeros(1), torch.zeros(1), torch.tensor([-1.0]), 0.2, 0.3, bound=1.0)
    assert (loss.tolist(), clipped.tolist(), truncated.tolist()) == ([1.0], [False], [False])


def test_sequence_ratio_by_hand() -> None:
    logp = torch.log(torch.tensor([1.1, 1.1, 2.0]))
    loss, clipped, _ = surrogate(
        logp, torch.zeros(3), torch.tensor([2.0, 2.0, 1.0]), 0.2, 0.3, "sequence", torch.tensor([0, 0, 1])
    )
    assert torch.allclose(loss, torch.tensor([-1.21, -1.21, -1.3]))  # 2 x 1.21 over two tokens; 2.0 is cut to 1.3
    assert clipped.tolist() == [False, False, True]


def test_truncation_bounds_value_and_gradient_where_the_clip_does_not() -> None:
    logp = torch.log(torch.tensor([6.0, 6.0, 1.5, 1.0])).requires_grad_()
    advantage = torch.tensor([-1.0, 1.0, -1.0, -1.0])
    loss, _, truncated = surrogate(logp, torch.zeros(4), advantage, 0.2, 0.3, bound=2.0)
    assert truncated.tolist() == [True, True, False, False]
    assert torch.allclose(loss, torch.tensor([2.0, -1.3, 1.5, 1.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert torch.allclose(gradient, torch.tensor([2.0, 0.0, 1.5, 1.0]))  # weight times -A; clipped ones have none


def test_a_bound_below_the_clip_bounds_as_well() -> None:
    logp = torch.log(torch.tensor([6.0, 6.0, 1.25, 0.5])).requires_grad_()
    loss, clipped, _ = surrogate(logp, torch.zeros(4), torch.tensor([-1.0, 1.0, -1.0, -1.0]), 0.2, 0.3, bound=1.1)
    assert torch.allclose(loss, torch.tensor([1.1, -1.1, 1.1, 0.8]))
    assert clipped.tolist() == [False, False, False, True]
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert torch.allclose(gradient, torch.tensor([1.1, -1.1, 1.1, 0.0]))


def test_the_whole_completion_is_truncated_with_a_sequence_ratio() -> None:
    logp = torch.log(torch.tensor([2.0, 3.0, 1.0]))
    loss, _, truncated = surrogate(
        logp, torch.zeros(3), torch.full((3,), -1.0), 0.2, 0.3, "sequence", torch.tensor([0, 0, 1]), bound=4.0
    )
    assert truncated.tolist() == [True, True, False]
    assert torch.allclose(loss, torch.tensor([2.0, 2.0, 1.0]))  # 6 cut to 4, over two tokens


@pytest.mark.parametrize("bound", [2.0, np.inf])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("log_ratio", [1000.0, -1000.0])
def test_a_completion_that_is_another_ones_has_a_finite_loss(log_ratio: float, advantage: float, bound: float) -> None:
    """Above e^88 a ratio is infinite, and infinity times 0 no number."""
    logp = torch.full((4,), log_ratio / 4, requires_grad=True)
    rollout = torch.zeros(4, dtype=torch.long)
    loss, _, truncated = surrogate(
        logp, torch.zeros(4), torch.full((4,), advantage), 0.2, 0.3, "sequence", rollout, bound=bound
    )
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    assert truncated.all() == (log_ratio > np.log(bound))
    if bound == 2.0 and log_ratio > 0 > advantage:
        assert gradient.tolist() == pytest.approx([2.0] * 4, rel=1e-3)


@pytest.mark.parametrize(("name", "expected"), [("k2", 0.240227), ("k3", 0.193147)])
def test_kl_estimators_by_hand(name: Any, expected: float) -> None:
    # pi = 1/2, reference = 1/4: r = 1/2
    value = kl_penalty(torch.log(torch.tensor([0.5])), torch.log(torch.tensor([0.25])), name)
    assert float(value) == pytest.approx(expected, abs=1e-5)


def test_the_kl_estimator_of_grpo_is_unbiased() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = (p * (p / q).log()).sum()
    assert torch.allclose((p * kl_penalty(p.log(), q.log(), "k3")).sum(), exact, atol=1e-6)


def test_logprobs_and_entropy_are_those_of_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cures_core.training.losses._CHUNK_ELEMENTS", 15)  # several pieces
    torch.manual_seed(0)
    logits, ids = torch.randn(7, 5), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    logp, entropy = token_logprobs(logits, ids, 0.7)
    every = torch.log_softmax(logits / 0.7, -1)
    assert torch.allclose(logp, every.gather(-1, ids[:, None])[:, 0], atol=1e-6)
    assert torch.allclose(entropy, -(every.exp() * every).sum(-1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_logprobs_are_at_least_of_single_precision(dtype: Any) -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 3, 5).to(dtype), torch.tensor([[0, 1, 4], [2, 3, 3]])
    logp, entropy = token_logprobs(logits, ids, 1.0)
    every = torch.log_softmax(logits.double(), -1)
    assert logp.dtype == entropy.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logp.shape == ids.shape
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert torch.allclose(logp.double(), every.gather(-1, ids[..., None])[..., 0], atol=tolerance)
    assert torch.allclose(entropy.double(), -(every.exp() * every).sum(-1), atol=tolerance)
    assert not entropy.requires_grad


def test_every_row_is_looked_at_once_in_pieces_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = torch.logsumexp

    def counted(z: Any, dim: int) -> Any:
        seen.append(len(z))
        return whole(z, dim)

    monkeypatch.setattr("cures_core.training.losses._CHUNK_ELEMENTS", 15)
    monkeypatch.setattr(torch, "logsumexp", counted)
    token_logprobs(torch.randn(7, 5), torch.zeros(7, dtype=torch.long), 1.0)
    token_logprobs(torch.randn(2, 20), torch.zeros(2, dtype=torch.long), 1.0)  # a row is never cut
    assert seen == [3, 3, 1, 1, 1]


def test_a_token_that_cannot_occur_leaves_the_entropy_finite() -> None:
    _, entropy = token_logprobs(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([0]), 1.0)
    assert float(entropy) == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_gradient_matches_finite_differences(ratio: Any, estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cures_core.training.losses._CHUNK_ELEMENTS", 10)
    torch.manual_seed(1)
    logits = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    ids, rollout = torch.tensor([0, 1, 3, 4, 0]), torch.tensor([0, 0, 1, 1, 1])
    old, reference = torch.full((5,), -1.6, dtype=torch.float64), torch.full((5,), -1.2, dtype=torch.float64)
    advantage = torch.tensor([1.0, 1.0, -2.0, -2.0, -2.0], dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        logp, _ = token_logprobs(x, ids, 0.7)
        value, _, _ = surrogate(logp, old, advantage, 0.2, 0.28, ratio, rollout)
        return (value + 0.1 * kl_penalty(logp, reference, estimator)).sum()

    assert torch.autograd.gradcheck(loss, (logits,))


# Two prompts with two rollouts each; lengths 3, 1, 2, 4 of at most 4.
LENGTHS = (3, 1, 2, 4)
REWARDS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def padded() -> tuple[Any, Any, Any, Any]:
    """Log-probabilities now, at sampling time, under the reference, and the mask; all (4, 4)."""
    generator = torch.Generator().manual_seed(3)
    logp, old, reference = (-1.0 + 0.3 * torch.randn(4, 4, generator=generator) for _ in range(3))
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    return logp, old, reference, mask


def ours(recipe: str, length_norm: float | None, advantages: Any, kl_coef: float) -> float:
    options = RECIPES[recipe]
    logp, old, reference, mask = padded()
    rollout = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
    loss, _, _ = surrogate(
        logp[mask],
        old[mask],
        advantages[rollout],
        0.2,
        options.get("clip_high", 0.2),
        options.get("ratio", "token"),
        rollout,
    )
    loss = loss + kl_coef * kl_penalty(logp[mask], reference[mask], "k3")
    lengths = torch.tensor(LENGTHS, dtype=torch.float32)
    if options.get("loss_weight") == "token":
        weight = torch.full((4,), 1.0 / float(lengths.sum()))
    else:  # groups of equal size: prompts and rollouts weigh the same
        weight = 0.25 / (lengths if length_norm is None else torch.full((4,), length_norm))
    return float((loss * weight[rollout]).sum())


def trl_rloo_value(advantages: Any) -> float:
    """`_compute_loss` of TRL's RLOO trainer on the same numbers."""
    pytest.importorskip("trl", reason="TRL is a test-only peer")
    from trl.trainer.rloo_trainer import RLOOTrainer

    logp, old, _, mask = padded()
    fake = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, **_: x),
        _metrics={"train": _Lists(), "eval": _Lists()},
    )
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(4, 4, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_logps": (old * mask).sum(1),
    }
    return float(RLOOTrainer._compute_loss(fake, None, inputs))


def trl_value(kind: str, advantages: Any, beta: float, high: float) -> float:
    """TRL's own `_compute_loss` on the same numbers; the model is replaced by its log-probabilities."""
    pytest.importorskip("trl", reason="TRL is a test-only peer")
    from trl.trainer.grpo_trainer import GRPOTrainer

    logp, old, reference, mask = padded()
    args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
    metrics: Any = {"train": _Lists(), "eval": _Lists()}
    fake = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        args=args,
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=high,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        model=SimpleNamespace(training=False),
        current_gradient_accumulation_steps=1,
        max_completion_length=4,
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x
        ),
        _entropy_bonus_enabled=False,
        _metrics=metrics,
        _log_metric=lambda *_: None,
    )
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(4, 4, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    return float(GRPOTrainer._compute_loss(fake, None, inputs))


class _Lists(dict[str, list[float]]):
    def __missing__(self, key: str) -> list[float]:
        self[key] = []
        return self[key]


@pytest.mark.slow  # importing the peer takes 15 s
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize(
    ("recipe", "kind", "length_norm", "high"),
    [("grpo", "grpo", None, 0.2), ("dr-grpo", "dr_grpo", 4.0, 0.2), ("dapo", "dapo", None, 0.28)],
)
def test_value_is_that_of_trl(recipe: str, kind: str, length_norm: float | None, high: float, beta: float) -> None:
    advantage = (REWARDS - REWARDS.mean(1, keepdim=True)).flatten()
    assert ours(recipe, length_norm, advantage, beta) == pytest.approx(trl_value(kind, advantage, beta, high), abs=1e-6)


@pytest.mark.slow
def test_rloo_is_that_of_trl() -> None:
    # Leave one out of two: the other one's reward is the baseline.
    advantage = torch.from_numpy(np.concatenate([group_advantages(r, "loo") for r in REWARDS.double().numpy()])).float()
    assert advantage.tolist() == (REWARDS - REWARDS.flip(1)).flatten().tolist()
    length_norm = RECIPES["rloo"]["length_norm"]
    assert ours("rloo", length_norm, advantage, 0.0) == pytest.approx(trl_rloo_value(advantage), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("recipe", ["reinforce++", "reinforce++-baseline"])
def test_reinforce_pp_is_the_token_level_loss_of_trl_with_its_own_advantages(recipe: Any, beta: float) -> None:
    """TRL has no trainer of that name: the loss over all tokens is the same, the advantages are checked by hand."""
    rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    if recipe == "reinforce++":
        normalised = (rewards - rewards.mean()) / rewards.std(correction=0)
    else:
        centred = rewards - rewards.mean(1, keepdim=True)
        normalised = centred / centred.std(correction=0)
    verdicts = [[Verdict(Outcome.CORRECT if r else Outcome.WRONG) for r in row] for row in rewards]
    prompt = Prompt("p", "", "")
    batch = [
        Group(
            Request(f"{g}", prompt, 2, 0),
            [Rollout(f"{g}", i, (1,), (2,) * LENGTHS[2 * g + i], (0.0,), "", FinishReason.STOP) for i in range(2)],
            verdicts[g],
        )
        for g in range(2)
    ]
    samples = batch_samples(batch, recipe, "token", keep_all=True)
    advantage = torch.tensor([s.advantage for s in samples])
    assert torch.allclose(advantage, normalised.flatten(), atol=1e-4)
    assert [s.weight for s in samples] == pytest.approx([n / sum(LENGTHS) for n in LENGTHS])
    assert ours(recipe, None, advantage, beta) == pytest.approx(trl_value("dapo", advantage, beta, 0.2), abs=1e-6)
