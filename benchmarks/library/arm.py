"""One arm: `python -m benchmarks.library.arm ARM.json OUT.json`; GRPOTrainer as it is, or with the curriculum."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.curriculum.worlds.scratchpad import FRONTIER, WORLD, draw_prompts, is_correct, make_pool
from cures_core.config.base import Strict
from cures_core.files import canonical_json, write_atomic
from cures_core.integrations.trl import CurriculumGRPOTrainer
from cures_core.policy.loading import load_policy
from cures_core.terms import Prompt

if TYPE_CHECKING:
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

_SAMPLES = 4


class Arm(Strict):
    """What an arm needs to know."""

    method: Literal["uniform", "curriculum"]
    """`uniform`: TRL's own sampler, which goes through the shuffled dataset."""
    seed: int
    policy: str
    """Folder of the warm start."""
    steps: int
    """Updates; each generates `prompts` x `group` rollouts."""
    prompts: int = 32
    group: int = 8
    rate: float = 5e-4
    evaluations: int = 4
    """Besides the one before training, evenly spaced."""
    held_out: int = 240


def correct(completions: list[str], answer: list[str], **_: object) -> list[float]:
    return [float(is_correct(text, gold)) for text, gold in zip(completions, answer, strict=True)]


def run(arm: Arm) -> dict[str, Any]:
    """Curve of the held-out frontier's sampled accuracy by rollouts, and what the arm has cost."""
    torch.set_num_threads(1)
    policy = load_policy(arm.policy, torch.device("cpu"))
    exam = Exam(arm, policy.tokenizer)
    dataset = Dataset.from_list(
        [
            {"prompt": p.problem, "answer": p.answer, "source": p.source, "level": p.level}
            for p in make_pool("mixed", 11, WORLD.sizes).train
        ]
    )
    kind = GRPOTrainer if arm.method == "uniform" else CurriculumGRPOTrainer
    with tempfile.TemporaryDirectory() as out:
        args = GRPOConfig(
            output_dir=out,
            seed=arm.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            max_steps=arm.steps,
            num_train_epochs=1000,
            learning_rate=arm.rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=arm.prompts * arm.group,
            num_generations=arm.group,
            max_completion_length=WORLD.rollout.max_new_tokens,
            beta=0.0,
        )
        trainer: Any = kind(
            policy.model,
            reward_funcs=[correct],
            args=args,
            train_dataset=dataset,
            processing_class=policy.tokenizer,
            callbacks=[exam],
        )
        started = time.process_time()
        trainer.train()
        seconds = time.process_time() - started - exam.seconds
    log = [row for row in trainer.state.log_history if "frac_reward_zero_std" in row]
    return {
        "method": arm.method,
        "seed": arm.seed,
        "curve": exam.curve,
        "rollouts": arm.steps * arm.prompts * arm.group,
        "tokens": int(log[-1]["num_tokens"]),
        "processor_seconds": round(seconds, 1),
        "informative": [round(1 - float(row["frac_reward_zero_std"]), 4) for row in log],
        "counts": trainer.curriculum.counts if arm.method == "curriculum" else None,
    }


class Exam(TrainerCallback):
    """Samples the held-out frontier now and then; its random numbers are its own."""

    def __init__(self, arm: Arm, tokenizer: PreTrainedTokenizerBase) -> None:
        self._items = draw_prompts(FRONTIER, arm.held_out, True, np.random.default_rng(5), set())
        self._every, self._rollouts = max(1, arm.steps // arm.evaluations), arm.prompts * arm.group
        self._tokenizer = tokenizer
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: object,
    ) -> None:
        self._sit(model, 0)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: object,
    ) -> None:
        if state.global_step % self._every == 0:
            self._sit(model, state.global_step)

    def _sit(self, model: PreTrainedModel | None, step: int) -> None:
        assert model is not None  # the trainer gives it to its callbacks
        started = time.process_time()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 + step)
            right = np.array(self._answers(model, self._items))
        by_level = {name: float(right[[i.level == name for i in self._items]].mean()) for name in FRONTIER}
        self.curve.append({"rollouts": step * self._rollouts, "accuracy": float(right.mean()), **by_level})
        self.seconds += time.process_time() - started

    @torch.no_grad()
    def _answers(self, model: PreTrainedModel, exam: list[Prompt]) -> list[float]:
        was_training, found = model.training, []
        model.eval()
        generate: Any = model.generate
        for start in range(0, len(exam), 60):
            batch = [item for item in exam[start : start + 60] for _ in range(_SAMPLES)]
            inputs = self._tokenizer([item.problem for item in batch], return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            out = generate(**inputs, do_sample=True, max_new_tokens=WORLD.rollout.max_new_tokens, top_k=0)
            texts = self._tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found += [float(is_correct(text, item.answer)) for text, item in zip(texts, batch, strict=True)]
        model.train(was_training)
        return [float(x) for x in np.array(found).reshape(-1, _SAMPLES).mean(axis=1)]


if __name__ == "__main__":
    write_atomic(Path(sys.argv[2]), canonical_json(run(Arm.model_validate(json.loads(Path(sys.argv[1]).read_bytes())))))
