"""On CUDA: as many ranks as there are GPUs give what one process gives."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cures_core.distributed import World
from cures_core.training.bounded_attention import bounded_attention, bounds
from cures_core.training.forward import attends_in_bounds
from tasks.stages.job_process import run_job
from tests.cures_core.jobs.epochs import make_job, outcome
from tests.cures_core.rollout.tiny import tiny_llama

pytestmark = pytest.mark.gpu
CUDA = {"device": {"type": "cuda"}}


@pytest.mark.parametrize(
    "training",
    [{"type": "torchrun"}, *({"type": "deepspeed", "zero_stage": stage} for stage in (1, 2, 3))],
)
def test_ranks_on_gpus_give_the_results_of_one_process(training: dict[str, Any], tmp_path: Path) -> None:
    if training["type"] == "deepspeed":
        pytest.importorskip("deepspeed")
    one = make_job(tmp_path / "one", {"type": "torch"}, **CUDA)
    many = make_job(tmp_path / "many", {**training, "processes": torch.cuda.device_count()}, **CUDA)
    run_job(one)
    run_job(many)
    (a, _), (b, _) = outcome(one), outcome(many)
    assert all(torch.allclose(v, b.weights[k], atol=2e-3) for k, v in a.weights.items())
    assert [row["updated"] for row in b.metrics] == [1.0] * len(b.metrics)


def test_a_group_moves_tensors_of_both_devices(tmp_path: Path) -> None:
    """Messages over gloo, gradients and weights over NCCL: the calls of several ranks, which one GPU can make too."""
    store = dist.FileStore(str(tmp_path / "meeting"), 1)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1, timeout=dt.timedelta(seconds=60))
    try:
        world = World(0, 2, dist.group.WORLD)  # by its own account not alone, or it would call nobody
        for device in ("cpu", "cuda"):
            for call in (world.sum_, world.max_, world.broadcast_):
                assert call(torch.tensor([1.5, -2.0], device=device), "an answer").tolist() == [1.5, -2.0]
        assert world.share({"step": 1}, "an answer") == {"step": 1}
    finally:
        dist.destroy_process_group()


def test_kernels_for_packed_rows_give_the_masked_square() -> None:
    """Logits and gradients of a bfloat16 model."""
    device = torch.device("cuda")
    model = tiny_llama(hidden_size=256, num_attention_heads=4, num_key_value_heads=2).to(device, torch.bfloat16)
    assert attends_in_bounds(model, device, "auto")
    rng = np.random.default_rng(0)
    positions = np.concatenate([np.arange(n) for n in (300, 200, 150, 374)])[None].repeat(8, axis=0)
    ids = torch.from_numpy(rng.integers(5, 40, positions.shape)).to(device)
    found = []
    for on in (False, True):
        model.zero_grad()
        where = bounds(positions, device) if on else {}
        with bounded_attention(model, on=on):
            at = torch.from_numpy(positions).to(device)
            logits = model(input_ids=ids, position_ids=at, use_cache=False, **where).logits.float()
            logits.logsumexp(-1).sum().backward()
        gradient = torch.cat([w.grad.flatten().float() for w in model.parameters()])
        found.append((logits.detach(), gradient))
    (masked, its_gradient), (ours, our_gradient) = found
    assert (ours - masked).norm() / masked.norm() < 2e-2
    assert (our_gradient - its_gradient).norm() / its_gradient.norm() < 5e-2
