"""A few steps of TRL with a tiny policy: `python -m ... OUT JSON-settings`; every process writes what it has drawn."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback
from trl import GRPOConfig

from cures_core.curriculum import CuresConfig, Curriculum
from cures_core.integrations.trl import CurriculumGRPOTrainer
from cures_core.policy.characters import character_tokenizer

ROWS = 40
OPTIONS = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_steps": 6,
    "save_steps": 1,
    "max_completion_length": 5,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "seed": 3,
}


def dataset() -> Dataset:
    return Dataset.from_dict(
        {"prompt": [f"{i}+{i}=" for i in range(ROWS)], "answer": [str(i) for i in range(ROWS)],
         "level": [i % 5 for i in range(ROWS)]}
    )  # fmt: skip


def policy() -> tuple[GPT2LMHeadModel, Any]:
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config), tokenizer


def correct(completion_ids: list[list[int]], level: list[int], **_: Any) -> list[float | None]:
    """Right or wrong by the tokens that were sampled; now and then without a verdict."""
    sums = [sum(ids) for ids in completion_ids]
    return [None if s % 17 == 0 else float(s % 5 <= hard) for s, hard in zip(sums, level, strict=True)]


class Recording(CurriculumGRPOTrainer):
    """Writes down which rows each process generates for, and what the curriculum is told."""

    drawn_to: Path

    def _drawn(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mine = super()._drawn(inputs)
        drawn = {"rows": [ask.row for ask in self._asked], "mine": [int(row["answer"]) for row in mine]}
        with self.drawn_to.open("a") as f:
            f.write(json.dumps({"step": self.state.global_step, **drawn}) + "\n")
        return mine


class Kill(TrainerCallback):
    """SIGKILL after a step and before its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def make(out: Path, log: Path, *, curriculum: Curriculum | None = None, **options: Any) -> Recording:
    torch.set_num_threads(1)
    model, tokenizer = policy()
    args = GRPOConfig(
        output_dir=str(out), use_cpu=True, report_to=[], disable_tqdm=True, save_total_limit=None, bf16=False,
        **{**OPTIONS, **options},
    )  # fmt: skip
    trainer = Recording(
        model, [correct], args=args, train_dataset=dataset(), processing_class=tokenizer, curriculum=curriculum
    )
    trainer.drawn_to = log
    return trainer


def seeded(seed: int, prompts: int = 2, size: int = 4) -> Curriculum:
    config = CuresConfig(prompts_per_step=prompts, rollouts_per_step=prompts * size)
    return Curriculum.from_table(dataset(), config, problem="prompt", seed=seed)


def main() -> None:
    out, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    rank = int(os.environ.get("RANK", "0"))
    kill, resume = settings.pop("kill", None), settings.pop("resume", False)
    seeds = settings.pop("seeds", None)
    curriculum = None if seeds is None else seeded(seeds[rank], prompts=4)
    trainer = make(out / "run", out / f"draws-{rank}.jsonl", curriculum=curriculum, **settings)
    if kill is not None:
        trainer.add_callback(Kill(kill))
    trainer.train(resume_from_checkpoint=resume or None)
    if rank == 0:
        trainer.save_model(str(out / "final"))


if __name__ == "__main__":
    main()
