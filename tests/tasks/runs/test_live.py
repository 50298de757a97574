"""Steps of an epoch that is not over, as a look at the run finds them."""

from __future__ import annotations

import json
from pathlib import Path

from cures_core.config.run import RunConfig
from cures_core.jobs.spec import Job
from tasks.runs.live import unfinished_steps
from tasks.runs.records import RunRef


def test_saved_steps_of_this_run_alone_are_found_each_once(tmp_path: Path) -> None:
    def run(seed: int) -> RunRef:
        config = {
            "seed": seed,
            "data": {"path": "train.jsonl"},
            "rollout": {"max_new_tokens": 8},
            "training": {"learning_rate": 1e-3},
            "store": {"url": str(tmp_path)},
        }
        return RunRef(name=f"demo-{seed}", config=RunConfig.model_validate(config), token=0)

    for key, seed, saved in (("k1", 1, (4, 5)), ("k2", 2, (9,))):
        folder = tmp_path / "scratch" / "train_epoch" / key / f"000001-demo-{seed}" / "scratch"
        for last in saved:
            (folder / f"step-{last:08d}").mkdir(parents=True)
            rows = [json.dumps({"step": i, "reward_mean": i / 10}) for i in range(3, last + 1)]
            (folder / f"step-{last:08d}" / "metrics.jsonl").write_text("\n".join(rows))
        job = Job(name="epoch", config=run(seed).config, scratch=folder, out=folder.parent / "out")
        (folder / "job.json").write_text(job.model_dump_json())
    assert [row["step"] for row in unfinished_steps(run(1), done=3)] == [4, 5]
    assert [row["step"] for row in unfinished_steps(run(1), done=0)] == [3, 4, 5]
    assert [row["step"] for row in unfinished_steps(run(2), done=8)] == [9]
    assert unfinished_steps(run(3), done=0) == []
