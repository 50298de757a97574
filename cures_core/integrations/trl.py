"""TRL's GRPOTrainer, its prompts drawn by a curriculum (tested with trl 1.16).

    trainer = CurriculumGRPOTrainer(model, reward_funcs=[correct], args=GRPOConfig(...), train_dataset=dataset)

The draw happens when completions are about to be generated, not in the data loader, which reads one batch ahead: so
every draw knows all rewards there are. The curriculum's state lies in the trainer's own checkpoints.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from cures_core.curriculum import Ask, CuresConfig, Curriculum, save_posterior
from cures_core.errors import ConfigError, CurriculumMisuse, MissingInput
from cures_core.extras import missing_extra
from cures_core.integrations.groups import group_size

try:
    import torch
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
    from trl import GRPOTrainer
except ImportError as error:
    raise missing_extra("trl", "CurriculumGRPOTrainer", error) from error

STATE = "curriculum.safetensors"
"""The curriculum's state in a checkpoint's folder."""
POSTERIOR = "posterior.parquet"
"""What it believes, beside it: for readers, and for `cures posterior publish`."""

_log = logging.getLogger(__name__)


class CurriculumGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Takes what `GRPOTrainer` takes; `train_dataset` has to be one with rows by number, not a stream.

    An epoch is as many completions as without a curriculum. In evaluation nothing changes.
    """

    def __init__(
        self, *args: Any, curriculum: Curriculum | None = None, judge: str | None = None, **kwargs: Any
    ) -> None:
        """`curriculum`: made from `train_dataset`, row by row, with the trainer's sizes; every process makes the same.
        Without it, one of the dataset's columns `prompt`, `answer` or `solution`, `source` and `level`, with the
        trainer's seed. `judge`: name of the reward function that says what is correct (from the curriculum's
        `threshold` on); may be left out if there is one alone.

        Raises `ConfigError` where sizes, dataset and curriculum do not fit.
        """
        super().__init__(*args, **kwargs)
        dataset = self.train_dataset
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise ConfigError("train_dataset is a stream: a curriculum needs rows that can be taken by number")
        self._num_draws = self.args.generation_batch_size // self.num_generations
        self.curriculum = _of_dataset(dataset, self) if curriculum is None else curriculum
        self._check_sizes(len(dataset))
        self._judge = self._judging(judge)
        self._asked: list[Ask] = []
        every, steps = self._updates_per_draw(), self.args.save_steps
        if self.args.save_strategy == "steps" and steps >= 1 and steps * self.args.gradient_accumulation_steps % every:
            _log.warning(
                "save_steps = %s ends within a generated batch: a resumed run generates anew, which TRL does with or "
                "without a curriculum. To go on as if never stopped, save every multiple of %s steps",
                steps,
                every // self.args.gradient_accumulation_steps or 1,
            )

    def _updates_per_draw(self) -> int:
        """Forward and backward passes for which one generated batch is used."""
        return int(self.args.steps_per_generation * self.num_iterations)

    def _check_sizes(self, rows: int) -> None:
        config = self.curriculum.config
        if len(self.curriculum) != rows:
            raise ConfigError(
                f"the curriculum has {len(self.curriculum):,} prompts, train_dataset {rows:,} rows: make it from all "
                "rows of that dataset, in their order"
            )
        if group_size(config) != self.num_generations or config.prompts_per_step != self._num_draws:
            raise ConfigError(
                f"the curriculum draws {config.prompts_per_step} prompts and {config.rollouts_per_step} rollouts a "
                f"step; GRPOConfig generates {self._num_draws} x {self.num_generations}: set prompts_per_step = "
                f"{self._num_draws}, rollouts_per_step = {self._num_draws * self.num_generations}"
            )
        if rows < self._num_draws:
            raise ConfigError(
                f"train_dataset has {rows} rows, a generated batch takes {self._num_draws} different ones"
            )

    def _judging(self, judge: str | None) -> int:
        names = list(self.reward_func_names)
        if judge is None and len(names) > 1:
            raise ConfigError(f"judge: name the reward function that says what is correct, of {', '.join(names)}")
        if judge is not None and judge not in names:
            raise ConfigError(f"judge: there is no reward function {judge!r}; there are {', '.join(names)}")
        return 0 if judge is None else names.index(judge)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        if self.model.training:
            inputs = self._drawn(inputs)
        return super()._generate_and_score_completions(inputs)

    def _drawn(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """This process's share of the next draw, in place of what the data loader has brought."""
        asked = self.curriculum.ask()
        rows = [ask.row for ask in asked for _ in range(ask.n)]
        if any(ask.n != self.num_generations for ask in asked) or len(rows) != len(inputs) * self._processes:
            raise CurriculumMisuse(
                f"the curriculum drew {len(asked)} prompts for {len(rows)} completions; the trainer generates "
                f"{self._num_draws} x {self.num_generations}"
            )
        self._agree(rows)
        self._asked = asked
        first = self.accelerator.process_index * len(inputs)
        columns = inputs[0].keys()
        mine = rows[first : first + len(inputs)]
        return [{name: row[name] for name in columns} for row in (self.train_dataset[i] for i in mine)]

    @property
    def _processes(self) -> int:
        return int(self.accelerator.num_processes)

    def _agree(self, rows: list[int]) -> None:
        if self._processes == 1:
            return
        digest = int.from_bytes(hashlib.sha256(repr(rows).encode()).digest()[:7])
        every = self.accelerator.gather(torch.tensor([digest], device=self.accelerator.device)).tolist()
        if len(set(every)) > 1:
            raise ConfigError(
                "the processes draw different prompts: make the curriculum in each of them from the same dataset, "
                "configuration, seed and posterior"
            )

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        rewards = super()._calculate_rewards(*args, **kwargs)  # of all processes, (completions, reward functions)
        if self._asked and self.model.training:
            groups = rewards[:, self._judge].view(-1, self.num_generations).tolist()
            for ask, group in zip(self._asked, groups, strict=True):
                self.curriculum.tell(ask.request_id, group)
            self._asked = []
            step = self.curriculum.ready()
            for name, value in {} if step is None else step.figures.items():
                self._metrics["train"][f"curriculum/{name}"].append(value)
        return rewards

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save:  # before the rest: a checkpoint that is whole has it
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            self.curriculum.save(folder / STATE)
            save_posterior(self.curriculum.posterior, folder / POSTERIOR)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if not (Path(checkpoint) / STATE).is_file():
            raise MissingInput(
                f"{checkpoint} has no {STATE}: it was written without a curriculum. Resume from one that has it, or "
                "start from its weights with a new output_dir"
            )
        self.curriculum.load(Path(checkpoint) / STATE)


def _of_dataset(dataset: Any, trainer: GRPOTrainer) -> Curriculum:
    num = trainer.args.generation_batch_size // trainer.num_generations
    answer = next((name for name in ("answer", "solution") if name in dataset.column_names), None)
    config = CuresConfig(prompts_per_step=num, rollouts_per_step=num * trainer.num_generations)
    return Curriculum.from_table(dataset, config, problem="prompt", answer=answer, seed=trainer.args.seed)
