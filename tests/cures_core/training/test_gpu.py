"""On CUDA: as many ranks as there are GPUs give what one process gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.stages.job_process import run_job
from tests.cures_core.jobs.epochs import make_job, outcome

pytestmark = pytest.mark.gpu
CUDA = {"device": {"type": "cuda"}}


@pytest.mark.parametrize(
    "training",
    [{"type": "torchrun"}, *({"type": "deepspeed", "zero_stage": stage} for stage in (1, 2, 3))],
)
def test_ranks_on_gpus_give_the_results_of_one_process(training: dict[str, Any], tmp_path: Path) -> None:
    one = make_job(tmp_path / "one", {"type": "torch"}, **CUDA)
    many = make_job(tmp_path / "many", {**training, "processes": torch.cuda.device_count()}, **CUDA)
    run_job(one)
    run_job(many)
    (a, _), (b, _) = outcome(one), outcome(many)
    assert all(torch.allclose(v, b.weights[k], atol=2e-3) for k, v in a.weights.items())
    assert [row["updated"] for row in b.metrics] == [1.0] * len(b.metrics)
