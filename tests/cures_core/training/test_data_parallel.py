"""Ranks share out a step: the result is that of one rank, whatever their number, and so is what a checkpoint holds."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from cures_core.config.training import TorchrunTrainerConfig, TorchTrainerConfig
from cures_core.distributed import World, serve
from cures_core.errors import OutOfMemory, TrainingDiverged
from cures_core.policy.loading import Policy
from cures_core.terms import Group
from cures_core.training.torch_trainer import TorchTrainer
from tests.cures_core.ranks import in_ranks
from tests.cures_core.training.test_torch_trainer import _Limited, groups, policy

State = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def batches(num: int) -> list[list[Group]]:
    p = policy()
    return [groups(p, seed=i, num=5) for i in range(num)]


def train(
    size: int, steps: list[list[Group]], saved: State | None = None, dtype: Any = torch.float32, **options: Any
) -> tuple[State, list[dict[str, float]], list[Policy]]:
    """State, figures of each step, and the policies of all ranks."""
    policies = [policy() for _ in range(size)]
    for p in policies:
        p.model.to(dtype)
    cfg: Any = (TorchrunTrainerConfig if size > 1 else TorchTrainerConfig)(**{"learning_rate": 1e-3, **options})

    def work(world: World) -> Any:
        trainer = TorchTrainer(policies[world.rank], cfg, 1.0, world=world)
        if world.rank:
            return serve(world, trainer.handlers)
        with world.leading():
            if saved is not None:
                trainer.load_state_dict(*saved)
            figures = [dict(trainer.update(batch)) for batch in steps]
            weights, optimizer, state = trainer.state_dict()
            copies = [{k: v.detach().clone() for k, v in tensors.items()} for tensors in (weights, optimizer)]
            return (copies[0], copies[1], state), figures

    state, figures = in_ranks(size, work)[0]
    return state, figures, policies


def assert_close(a: dict[str, Any], b: dict[str, Any], tolerance: float = 2e-4) -> None:
    assert set(a) == set(b)
    assert all(torch.allclose(v.float(), b[k].float(), atol=tolerance) for k, v in a.items())


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("change", [{}, {"loss": "dapo", "grad_clip": 0.0}, {"loss": "reinforce++"}, {"loss": "rloo"}])
def test_results_do_not_depend_on_the_number_of_ranks(size: int, change: dict[str, Any]) -> None:
    one, alone, _ = train(1, batches(3), **change)
    many, shared, policies = train(size, batches(3), **change)
    assert_close(one[0], many[0])
    assert_close(one[1], many[1])
    for a, b in zip(alone, shared, strict=True):
        assert a == {k: pytest.approx(v, rel=1e-3, abs=1e-5) for k, v in b.items() if k != "packing"} | {
            "packing": a["packing"]
        }
    for p in policies[1:]:
        assert all(torch.equal(v, policies[0].trainable()[k]) for k, v in p.trainable().items())


def test_gaps_of_all_ranks_rollouts_are_known_to_the_first() -> None:
    def credits(size: int) -> Any:
        policies, (batch,) = [policy() for _ in range(size)], batches(1)
        odd = [
            replace(r, logprobs=tuple(x - 0.1 * i for x in r.logprobs)) for g in batch for i, r in enumerate(g.rollouts)
        ]
        batch = [replace(g, rollouts=odd[4 * i : 4 * i + 4]) for i, g in enumerate(batch)]
        cfg: Any = (TorchrunTrainerConfig if size > 1 else TorchTrainerConfig)(learning_rate=1e-3)

        def work(world: World) -> Any:
            trainer = TorchTrainer(policies[world.rank], cfg, 1.0, world=world)
            if world.rank:
                return serve(world, trainer.handlers)
            with world.leading():
                trainer.update(batch)
            return trainer.credits

        return in_ranks(size, work)[0]

    one, two = credits(1), credits(2)
    assert set(one) == set(two)
    assert all(two[name].advantage == credit.advantage for name, credit in one.items())
    assert all(two[name].logprob_gap == pytest.approx(credit.logprob_gap, abs=1e-5) for name, credit in one.items())
    assert max(credit.logprob_gap for credit in two.values()) > 0.2


def test_more_ranks_than_rollouts_leave_some_idle() -> None:
    few = [batches(1)[0][:1]]
    one, _, _ = train(1, few)
    many, _, _ = train(6, few)
    assert_close(one[0], many[0])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_a_checkpoint_resumes_at_another_number_of_ranks(before: int, after: int) -> None:
    steps = batches(4)
    straight, _, _ = train(1, steps, warmup_steps=5)
    first, _, _ = train(before, steps[:2], warmup_steps=5)
    second, _, _ = train(after, steps[2:], saved=first, warmup_steps=5)
    assert_close(straight[0], second[0])
    assert second[2]["step"] == 4


def test_resumed_at_the_same_number_of_ranks_the_bytes_are_the_same() -> None:
    steps = batches(4)
    straight, _, _ = train(2, steps)
    first, _, _ = train(2, steps[:2])
    second, _, _ = train(2, steps[2:], saved=first)
    assert all(torch.equal(v, second[0][k]) for k, v in straight[0].items())
    assert all(torch.equal(v, second[1][k]) for k, v in straight[1].items())


def test_one_rank_out_of_memory_halves_its_micro_batches_and_then_all_do(caplog: pytest.LogCaptureFixture) -> None:
    steps = batches(2)
    one, _, _ = train(1, steps)
    policies = [policy(), policy()]
    cfg = TorchrunTrainerConfig(learning_rate=1e-3, micro_batch_tokens=128)

    def work(world: World) -> Any:
        trainer = TorchTrainer(policies[world.rank], cfg, 1.0, world=world)
        if world.rank:
            _Limited(policies[1].model, 40)
            return serve(world, trainer.handlers)
        with world.leading():
            figures = [trainer.update(batch)["micro_batch_tokens"] for batch in steps]
            return figures, trainer.state_dict()[0]

    with caplog.at_level(logging.WARNING):
        figures, weights = in_ranks(2, work)[0]
    assert figures == [32.0, 32.0]
    assert caplog.text.count("micro-batches are halved") == 2
    assert_close(one[0], weights)


def test_not_finite_anywhere_is_no_update_everywhere() -> None:
    policies = [policy(), policy()]
    cfg = TorchrunTrainerConfig(learning_rate=1e-3, max_bad_steps=2)
    steps = batches(2)
    before = {k: v.detach().clone() for k, v in policies[0].trainable().items()}

    def work(world: World) -> Any:
        trainer = TorchTrainer(policies[world.rank], cfg, 1.0, world=world)
        if world.rank:
            next(iter(policies[1].trainable().values())).register_hook(lambda g: g * float("nan"))
            with pytest.raises(TrainingDiverged):
                serve(world, trainer.handlers)
            return None
        assert trainer.update(steps[0])["non_finite"] == 1.0
        with pytest.raises(TrainingDiverged, match="2 steps in a row"):
            trainer.update(steps[1])
        return None

    in_ranks(2, work)
    assert all(torch.equal(v, before[k]) for p in policies for k, v in p.trainable().items())


def test_a_share_that_does_not_fit_is_an_error_of_its_rank() -> None:
    policies = [policy(), policy()]
    cfg = TorchrunTrainerConfig(learning_rate=1e-3)
    steps = batches(1)

    def work(world: World) -> Any:
        trainer = TorchTrainer(policies[world.rank], cfg, 1.0, world=world)
        _Limited(policies[world.rank].model, 1)
        with pytest.raises(OutOfMemory):
            serve(world, trainer.handlers) if world.rank else trainer.update(steps[0])

    in_ranks(2, work)


def test_small_updates_are_not_lost_in_bfloat16() -> None:
    """Updates of 1e-5 on weights of about 0.02 to 1: far below what bfloat16 resolves of most of them."""
    steps = batches(1) * 60
    exact, _, _ = train(1, steps, learning_rate=1e-5)
    start = {k: v.detach() for k, v in policy().trainable().items()}
    errors = {}
    for masters in (True, False):
        state, _, _ = train(1, steps, dtype=torch.bfloat16, learning_rate=1e-5, master_weights=masters)
        kept = [state[1].get(f"{i}.master", w).float() for i, w in enumerate(state[0].values())]
        moved = torch.cat([(k - s).flatten() for k, s in zip(kept, start.values(), strict=True)])
        wanted = torch.cat([(exact[0][k] - s).flatten() for k, s in start.items()])
        rounding = torch.cat([(s.bfloat16().float() - s).flatten() for s in start.values()])
        errors[masters] = float((moved - rounding - wanted).norm() / wanted.norm())
        assert all(w.dtype == torch.bfloat16 for w in state[0].values())
        if masters:
            for i, weight in enumerate(state[0].values()):
                assert torch.equal(weight, state[1][f"{i}.master"].bfloat16())
    assert errors[True] < 0.5 < errors[False], errors


def test_masters_are_saved_and_of_all_ranks_alike() -> None:
    steps = batches(4)
    one, _, _ = train(1, steps, dtype=torch.bfloat16)
    first, _, _ = train(2, steps[:2], dtype=torch.bfloat16)
    second, _, _ = train(1, steps[2:], saved=first, dtype=torch.bfloat16)
    again, _, _ = train(1, steps[2:], saved=train(1, steps[:2], dtype=torch.bfloat16)[0], dtype=torch.bfloat16)
    assert all(torch.equal(v, again[1][k]) for k, v in one[1].items())
    assert_close(one[1], second[1], 2e-2)
