"""One arm: `python -m benchmarks.library.arm ARM.json OUT.json`; GRPOTrainer as it is, or with the curriculum.

Prompts, judge and exam are those of the scratchpad world's own arms, and so are the accounts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.curriculum import rivals
from benchmarks.curriculum.exams import PASS_AT, SampledExam
from benchmarks.curriculum.worlds.scratchpad import WORLD, is_correct, make_pool
from benchmarks.curriculum.worlds.world import Pool, Sizes
from cures_core.config.base import Strict
from cures_core.files import canonical_json, write_atomic
from cures_core.integrations.trl import CurriculumGRPOTrainer
from cures_core.policy.loading import Policy, load_policy
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Verifier
from cures_core.rollout import build_engine

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

Method = Literal["trl", "trl-cures"]
UNIFORM: Method = "trl"
CURRICULUM: Method = "trl-cures"


class Arm(Strict):
    """What an arm needs to know."""

    world: Literal["scratchpad"] = "scratchpad"
    method: Method
    """`trl`: GRPOTrainer's own sampler, which goes through the shuffled dataset; `trl-cures`: with the curriculum."""
    pool: str
    base: int
    """Seed of the base policy."""
    seed: int
    policy: str
    """Folder of the base policy."""
    budget: int
    """Rollouts; each update generates `prompts` x `group` of them."""
    prompts: int = 32
    group: int = 8
    learning_rate: float
    evaluations: int = 8
    """Besides the one before training, evenly spaced."""
    train: int = WORLD.sizes.train
    frontier: int = WORLD.sizes.frontier
    samples: int = PASS_AT
    version: Literal[1] = 1
    """Of what an arm's result holds."""

    @property
    def steps(self) -> int:
        return self.budget // (self.prompts * self.group)


def correct(completions: list[str], answer: list[str], **_: object) -> list[float]:
    return [float(is_correct(text, gold)) for text, gold in zip(completions, answer, strict=True)]


def run(arm: Arm) -> dict[str, Any]:
    """Scores of the held-out frontier against the accounts, as `benchmarks.curriculum.arm` gives them."""
    started = time.monotonic()
    torch.set_num_threads(1)
    rivals.allow()
    policy = load_policy(arm.policy, torch.device("cpu"))
    pool = make_pool(arm.pool, 1000 + 10 * arm.seed, Sizes(arm.train, 10, arm.frontier))
    with make_verifier(WORLD.reward) as verifier, tempfile.TemporaryDirectory() as out:
        exam = Examiner(arm, policy, pool, verifier)
        trainer = _trainer(arm, policy, pool, exam, out)
        in_curriculum = _clocked(trainer.curriculum) if arm.method == CURRICULUM else lambda: 0.0
        trainer.train()
    log = [row for row in trainer.state.log_history if "frac_reward_zero_std" in row]
    lengths = {int(row["step"]): float(row["completions/mean_length"]) for row in log}
    for point in exam.points:
        steps = range(1, int(point["updates"]) + 1)
        point["tokens"] = round(sum(lengths[step] for step in steps) * arm.prompts * arm.group)
    return {
        "arm": arm.model_dump(mode="json"),
        "points": exam.points,
        "informative_share": sum(1 - float(row["frac_reward_zero_std"]) for row in log) / len(log),
        "calibration": {},
        "seconds": exam.points[-1]["seconds"],
        "processor_seconds": exam.points[-1]["processor_seconds"],
        "curriculum_seconds": round(in_curriculum(), 3),
        "counts": trainer.curriculum.counts if arm.method == CURRICULUM else None,
        "wall": round(time.monotonic() - started, 3),
        "budget_spent": True,
        "done": True,
    }


def _trainer(arm: Arm, policy: Policy, pool: Pool, exam: Examiner, out: str) -> Any:
    rows = [{"prompt": p.problem, "answer": p.answer, "source": p.source, "level": p.level} for p in pool.train]
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
        learning_rate=arm.learning_rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=arm.prompts * arm.group,
        num_generations=arm.group,
        max_completion_length=WORLD.rollout.max_new_tokens,
        beta=0.0,
    )
    kind: Any = GRPOTrainer if arm.method == UNIFORM else CurriculumGRPOTrainer
    return kind(
        policy.model,
        reward_funcs=[correct],
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        callbacks=[exam],
    )


def _clocked(curriculum: Any) -> Callable[[], float]:
    """Add up the processor seconds that are spent in it from now on; what is returned says how many there were."""
    spent = [0.0]

    def clocked(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[0] += time.thread_time() - started

        return timed

    for name in ("ask", "tell", "ready"):
        setattr(curriculum, name, clocked(getattr(curriculum, name)))
    return lambda: spent[0]


class Examiner(TrainerCallback):
    """Scores the policy now and then, while the clocks stand still and TRL's random numbers stay where they are."""

    def __init__(self, arm: Arm, policy: Policy, pool: Pool, verifier: Verifier) -> None:
        self._model: Any = policy.model
        engine = build_engine(WORLD.rollout, self._model, policy.tokenizer, torch.device("cpu"))
        self._exam = SampledExam(pool.frontier, arm.samples, engine, verifier)
        self._steps, self._every = arm.steps, max(1, arm.steps // arm.evaluations)
        self._rollouts = arm.prompts * arm.group
        self.points: list[dict[str, float]] = []
        self._spent = [0.0, 0.0]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._sit(0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        wall, processor = self._clock
        self._spent = [self._spent[0] + time.monotonic() - wall, self._spent[1] + time.process_time() - processor]
        if state.global_step % self._every == 0 or state.global_step == self._steps:
            self._sit(state.global_step)
        else:
            self._start_clock()

    def _sit(self, step: int) -> None:
        was_training = self._model.training
        with torch.random.fork_rng(devices=[]):
            scores = {name: round(value, 6) for name, value in self._exam.measure().items()}
        self._model.train(was_training)
        self.points.append(
            {
                "rollouts": step * self._rollouts,
                "updates": step,
                "seconds": round(self._spent[0], 3),
                "processor_seconds": round(self._spent[1], 3),
                **scores,
            }
        )
        self._start_clock()

    def _start_clock(self) -> None:
        self._clock = time.monotonic(), time.process_time()


if __name__ == "__main__":
    write_atomic(Path(sys.argv[2]), canonical_json(run(Arm.model_validate_json(Path(sys.argv[1]).read_bytes()))))
