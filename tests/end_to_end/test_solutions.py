"""A real pretrained model learns real worked solutions (GSM8K): slow, and only where `cures model fetch` has put it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cures_core.config.run import RunConfig
from cures_core.jobs import warm_start
from cures_core.jobs.spec import Job
from cures_core.policy.loading import load_policy
from tests.cures_core.policy.test_supervised import FakeParent
from tests.shared_data import shared_file

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]
MODEL = Path(os.environ.get("CURES_SMOLLM2", "models/smollm2"))


@pytest.mark.skipif(not MODEL.is_dir(), reason="needs `cures model fetch smollm2`, or CURES_SMOLLM2")
def test_smollm2_learns_gsm8k_solutions(tmp_path: Path) -> None:
    path = shared_file("gsm8k_train.jsonl")
    warm = {
        "path": str(path),
        "template": " {solution}",
        "max_rows": 48,
        "batch_tokens": 1024,
        "epochs": 2,
        "learning_rate": 3e-4,
        "lora": {},
    }
    cfg = RunConfig.model_validate(
        {
            "data": {"path": str(path)},
            "rollout": {"max_new_tokens": 8, "prompt_format": {"template": "Question: {problem}\nAnswer:"}},
            "training": {"learning_rate": 1e-5},
            "device": {"type": "cpu"},
            "policy": {"type": "pretrained", "path": str(MODEL), "dtype": "bfloat16", "warm_start": warm},
        }
    )
    out = tmp_path / "out"
    job = Job(name="warm_start", config=cfg, scratch=tmp_path / "scratch", out=out, policy=str(MODEL), solutions=path)
    warm_start.run(job, FakeParent())  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (out / warm_start.STEPS).read_bytes().splitlines()]
    half = len(rows) // 2
    assert np.mean([row["loss"] for row in rows[half:]]) < np.mean([row["loss"] for row in rows[:half]])
    assert load_policy(out / "policy", torch.device("cpu"), dtype="bfloat16").model.config.model_type == "llama"
