"""One rank of a DeepSpeed test: `python -m tests.cures_core.training.zero_ranks FOLDER`, with folder/case.json."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.config.training import TrainingConfig
from cures_core.distributed import serve
from cures_core.jobs.rank import join
from cures_core.policy.loading import Policy, load_policy
from cures_core.training.torch_trainer import TorchTrainer
from tests.cures_core.training.test_torch_trainer import groups, policy


def policy_of(case: dict[str, Any]) -> Policy:
    torch.manual_seed(0)
    if case.get("policy"):
        from cures_core.config.training import LoraConfig

        lora = LoraConfig(rank=2, alpha=4, targets=("q_proj", "v_proj"))
        return load_policy(case["policy"], torch.device("cpu"), lora=lora)
    p = policy()
    p.model.to(getattr(torch, case.get("dtype", "float32")))
    return p


def main() -> None:
    from pydantic import TypeAdapter

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    world = join(folder, 120.0)
    for i, case in enumerate(json.loads((folder / "cases.json").read_bytes())):
        cfg: Any = TypeAdapter(TrainingConfig).validate_python({"learning_rate": 1e-3, **case["training"]})
        p = policy_of(case)
        steps = [groups(policy(), seed=seed, num=5) for seed in case["seeds"]]
        trainer = TorchTrainer(p, cfg, 1.0, world=world)
        if world.rank:
            if case.get("poison"):
                next(iter(p.trainable().values())).register_hook(lambda g: g * float("nan"))
            serve(world, trainer.handlers)
            continue
        with world.leading():
            if case.get("saved"):
                saved = load_checkpoint(Path(case["saved"]))
                trainer.load_state_dict(saved.weights, saved.optimizer, saved.state["trainer"])
            figures = [dict(trainer.update(step)) for step in steps]
            weights, optimizer, state = trainer.state_dict()
            whole = {name: v for name, v in trainer.model.named_parameters() if name in weights}
            assert all(torch.equal(whole[name].detach(), v) for name, v in weights.items())
        save_checkpoint(
            Checkpoint(weights, optimizer, {}, {"step": state["step"], "trainer": state}, figures), folder / str(i)
        )


if __name__ == "__main__":
    os.environ.setdefault("CURES_WAIT_TIMEOUT_S", "120")
    main()
