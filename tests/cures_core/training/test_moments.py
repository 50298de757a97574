"""Sketched last-layer moments against the exact gradients of the output layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cures_core.training.moments import WIDTH, Sketcher, by_prompt, group_moments

V, D, T = 30, 12, 5


def exact(weight: torch.Tensor, hidden: torch.Tensor, chosen: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Gradient (V, D) of one rollout's log-probability with respect to the output layer, by autograd."""
    weight = weight.clone().requires_grad_()
    logp = torch.log_softmax(hidden @ weight.T, -1).gather(-1, chosen[:, None]).squeeze(-1)
    (logp * mask).sum().backward()
    assert weight.grad is not None
    return weight.grad


def test_products_of_sketches_are_those_of_the_gradients() -> None:
    torch.manual_seed(0)
    num = 8
    hidden, chosen = torch.randn(num, T, D), torch.randint(0, V, (num, T))
    mask = torch.rand(num, T) < 0.8
    weight = torch.randn(V, D) * 0.3
    gradients = torch.stack([exact(weight, *x) for x in zip(hidden, chosen, mask, strict=True)])
    flat = gradients.reshape(num, -1)
    true = (flat @ flat.T).numpy()
    rollout = torch.arange(num)[:, None].expand(num, T)[mask]
    tokens = (hidden[mask] @ weight.T, hidden[mask], chosen[mask], rollout, num)
    sketches = Sketcher(V, D).sketch(*tokens)
    assert sketches.shape == (num, WIDTH, WIDTH)
    ours = sketches.reshape(num, -1) @ sketches.reshape(num, -1).T
    scale = np.sqrt(np.outer(np.diag(true), np.diag(true)))
    assert np.abs((ours - true) / scale).mean() < 0.2
    assert np.trace(ours) == pytest.approx(np.trace(true), rel=0.2)
    again = Sketcher(V, D).sketch(*tokens)
    np.testing.assert_array_equal(sketches, again)


def test_moments_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    plus, minus = rng.normal(size=(2, WIDTH, WIDTH))
    found = []
    for _ in range(400):
        right = np.array([True] * 3 + [False] * 4)
        means = np.where(right[:, None, None], plus, minus)
        found.append(group_moments(means + 2 * rng.normal(size=means.shape), right))
    noise = 4 * WIDTH**2
    gap = float(np.sum((plus - minus) ** 2))
    assert np.mean([m.gap for m in found if m]) == pytest.approx(gap, rel=0.05)
    assert np.mean([m.right for m in found if m]) == pytest.approx(np.sum(plus**2) + noise, rel=0.05)
    assert np.mean([m.wrong for m in found if m]) == pytest.approx(np.sum(minus**2) + noise, rel=0.05)


def test_only_prompts_with_two_of_both_kinds_have_moments() -> None:
    sketches = np.random.default_rng(0).normal(size=(9, WIDTH, WIDTH))
    right = np.array([True, True, False, False, True, False, False, True, True])
    found = by_prompt(["a"] * 4 + ["b"] * 3 + ["c"] * 2, sketches, right)
    assert set(found) == {"a"}
    assert found["a"] == group_moments(sketches[:4], right[:4])
