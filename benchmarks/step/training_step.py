"""One arm of `python -m benchmarks step`: equal training steps by this project or by TRL, and what they cost.

`python -m benchmarks.step.training_step ARM SPEC.json OUT.json`, each arm in a process of its own, so that peaks of
memory are apart. Both load the same folder, see the same prompts in the same order, sample groups of the same size at
temperature 1 and make one update a step on all of a step's rollouts. The reward is a coin that the completion's text
tosses: groups are mixed whatever the model can do, so neither side gets around its updates. A first step warms up and
is not counted.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.device import DeviceConfig
from cures_core.config.rollout import HfRolloutConfig
from cures_core.config.training import TorchTrainerConfig
from cures_core.epoch import roll_out
from cures_core.extras import require_extra
from cures_core.files import canonical_json, write_atomic
from cures_core.peak_memory import peak_bytes
from cures_core.policy.loading import load_policy, setup_torch
from cures_core.rewards.verifier import Item, Verifier
from cures_core.rollout import build_engine
from cures_core.rollout.throughput import mixed_requests
from cures_core.terms import Outcome, Request, Verdict
from cures_core.training.torch_trainer import TorchTrainer

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class StepSpec(Strict):
    """What both arms do."""

    model: str
    """Folder of model and tokenizer."""
    prompts: int = Field(default=8, ge=1)
    """Prompts of one step."""
    n: int = Field(default=8, ge=2)
    """Rollouts of a prompt."""
    max_new_tokens: int = Field(default=128, ge=1)
    steps: int = Field(default=5, ge=1)
    """Counted steps; one more comes before."""
    learning_rate: float = Field(default=1e-5, gt=0)
    threads: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def requests(self) -> list[list[Request]]:
        """Those of each step, the first of which is the one that is not counted."""
        every = mixed_requests(self.prompts * (self.steps + 1), self.n, seed=self.seed)
        return [every[i : i + self.prompts] for i in range(0, len(every), self.prompts)]


class Figures(Strict):
    """Of the counted steps. Seconds are wall time, `cpu_s` is that of the processor."""

    total_s: float
    generation_s: float
    training_s: float
    """Losses, gradients, optimizer, and new weights to the engine."""
    cpu_s: float
    setup_s: float
    """Imports, loading and the first step."""
    prompt_tokens: int
    tokens: int
    """Tokens of completions, end tokens included."""
    tokens_per_s: float
    peak_mib: float
    """Largest resident memory of the process; on CUDA what torch held at most."""
    start_mib: float
    """The same before the first step: weights, and on CPU libraries."""
    kernels: dict[str, int] = Field(default_factory=dict)
    """What our settings came to on this device: `kernels` of engine and trainer."""


def coin(text: str) -> bool:
    """Heads for half of all texts."""
    return bool(zlib.crc32(text.encode()) & 1)


class _Clock:
    """Seconds by name, of what is wrapped in `timed`, since `start`. On CUDA every reading waits for the device: work
    is only handed to it, and its time would fall on whoever waits next."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.born = self._now()
        self.start()

    def start(self) -> None:
        self.spent: dict[str, float] = {}
        self.prompt_tokens = self.tokens = 0
        self._wall, self._cpu = self._now(), time.process_time()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            try:
                return work(*args, **kwargs)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + self._now() - started

        return run

    def peak_mib(self) -> float:
        if self.device == "cuda":
            import torch

            return torch.cuda.max_memory_allocated() / 2**20
        return peak_bytes() / 2**20

    def _now(self) -> float:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def figures(self, start_mib: float) -> Figures:
        total = self._now() - self._wall
        return Figures(
            total_s=total,
            generation_s=self.spent["generation"],
            training_s=self.spent["training"] if "training" in self.spent else total - self.spent["inputs"],
            cpu_s=time.process_time() - self._cpu,
            setup_s=self._wall - self.born,
            prompt_tokens=self.prompt_tokens,
            tokens=self.tokens,
            tokens_per_s=self.tokens / total,
            peak_mib=self.peak_mib(),
            start_mib=start_mib,
        )


class CoinVerifier(Verifier):
    """Half of all texts are right, whatever the policy can do."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [Verdict(Outcome.CORRECT if coin(text) else Outcome.WRONG) for text, _ in items]

    def check_gold(self, answer: str) -> str | None:
        return None


def run_cures(spec: StepSpec) -> Figures:
    """The embedded engine and the one-process trainer."""
    from cures_core.rollout.hf.engine import HfEngine

    clock = _Clock(spec.device)
    device = setup_torch(DeviceConfig(type=spec.device, threads=spec.threads), spec.seed)
    policy = load_policy(spec.model, device, dtype=spec.dtype)
    # What TRL's loss "grpo" does: every rollout counts equally, and the mean over its own tokens in it.
    training = TorchTrainerConfig(learning_rate=spec.learning_rate, loss_weight="rollout")
    trainer = TorchTrainer(policy, training, 1.0)
    with closing(
        build_engine(HfRolloutConfig(max_new_tokens=spec.max_new_tokens), policy.model, policy.tokenizer)
    ) as e:
        generate, update = clock.timed("generation", e.generate), clock.timed("training", trainer.update)
        e.generate = generate  # type: ignore[method-assign]
        start_mib = clock.peak_mib()
        for number, requests in enumerate(spec.requests()):
            if number == 1:
                clock.start()
            groups = roll_out(requests, e, CoinVerifier())
            update(groups)
            clock.timed("training", e.sync)(trainer.model)
            rollouts = [r for group in groups for r in group.rollouts]
            clock.prompt_tokens += sum(len(r.prompt_ids) for r in rollouts)
            clock.tokens += sum(len(r.token_ids) for r in rollouts)
        figures = clock.figures(start_mib)
        kernels = {**(e.kernels if isinstance(e, HfEngine) else {}), **trainer.kernels}
    return figures.model_copy(update={"kernels": kernels})


def run_trl(spec: StepSpec) -> Figures:
    """TRL's GRPOTrainer with a whole step's rollouts in one batch, no reference model, nothing saved or reported.

    Raises `MissingExtra` where TRL is not installed.
    """
    need_trl()
    clock = _Clock(spec.device)
    device = setup_torch(DeviceConfig(type=spec.device, threads=spec.threads), spec.seed)
    policy = load_policy(spec.model, device, dtype=spec.dtype)
    from datasets import Dataset
    from transformers import TrainerCallback

    trl: Any = importlib.import_module("trl")

    class StartClock(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
        ) -> None:
            if state.global_step == 1:
                clock.start()

    def reward(completions: Sequence[str], **kwargs: object) -> list[float]:
        return [float(coin(text)) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=spec.device == "cpu",
            # As here: weights in the policy's type. TRL then has no float32 masters, which ours keeps: its memory is
            # the smaller for it.
            bf16=False,
            per_device_train_batch_size=spec.prompts * spec.n,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            num_generations=spec.n,
            max_completion_length=spec.max_new_tokens,
            temperature=1.0,
            beta=0.0,
            loss_type="grpo",
            learning_rate=spec.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            max_steps=spec.steps + 1,
            shuffle_dataset=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=spec.seed,
        )
        rows = [{"prompt": request.prompt.problem} for requests in spec.requests() for request in requests]
        trainer = trl.GRPOTrainer(
            policy.model,
            reward,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
            callbacks=[StartClock()],
        )
        generate = clock.timed("generation", trainer._generate_single_turn)

        def counted(prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            completion_ids, logprobs = generate(prompt_ids, *args, **kwargs)
            clock.prompt_tokens += sum(map(len, prompt_ids))
            clock.tokens += sum(map(len, completion_ids))
            return completion_ids, logprobs

        trainer._generate_single_turn = counted
        trainer._prepare_inputs = clock.timed("inputs", trainer._prepare_inputs)
        start_mib = clock.peak_mib()
        trainer.train()
        return clock.figures(start_mib)


def need_trl() -> None:
    require_extra("trl", "the peer of this benchmark, TRL,")


ARMS: dict[str, Callable[[StepSpec], Figures]] = {"cures": run_cures, "trl": run_trl}


if __name__ == "__main__":
    arm, spec_file, out = sys.argv[1:]
    figures = ARMS[arm](StepSpec.model_validate_json(Path(spec_file).read_bytes()))
    write_atomic(Path(out), canonical_json(figures.model_dump()))
