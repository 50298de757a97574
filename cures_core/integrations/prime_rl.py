"""prime-rl's task sampler (`TaskSampler` of its development versions v0.8.1.dev52 to dev67; release 0.8.0 has none).

Its configuration names no sampler of one's own: a launcher of a few lines (docs/library.md) puts this one into the
train source before a checkpoint is loaded and the first task is taken. It is saved and restored with prime-rl's own
checkpoints. Tasks in flight when a checkpoint was written are handed out again after it is loaded, first of all: none
is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cures_core.curriculum import CuresConfig, Curriculum, CurriculumConfig, Posterior
from cures_core.errors import ConfigError, CurriculumMisuse, MissingExtra
from cures_core.integrations.groups import group_size as equal_groups
from cures_core.integrations.overlapping import Draws

try:
    from prime_rl.orchestrator.curriculum import TaskSampler
except ImportError as error:
    raise MissingExtra(
        "CuresTaskSampler runs inside prime-rl v0.8.1.dev52 to dev67, which has task samplers: install one of these "
        "tags from github.com/PrimeIntellect-ai/prime-rl"
    ) from error

_AT_ONCE = 32  # tasks drawn before the posterior is looked at again


class CuresTaskSampler(TaskSampler):  # type: ignore[misc]
    """Draws tasks of a finite task set by their key."""

    def __init__(
        self,
        tasks: Sequence[Any],
        group_size: int,
        config: CurriculumConfig | None = None,
        *,
        source: Callable[[Any], str] = lambda task: "",
        level: Callable[[Any], str] = lambda task: "",
        seed: int = 0,
        threshold: float = 0.5,
        posterior: Posterior | None = None,
        lost_after: int | None = 64,
    ) -> None:
        """`group_size`: rollouts of a task, as in prime-rl's configuration. `source`, `level`: labels of a task.
        `lost_after`: groups that prime-rl voids as stale, or sheds, are never observed; a task that was not when so
        many further steps (of 32 tasks, without `config`) have been drawn counts as unknown. None: it waits for ever.
        """
        if not isinstance(tasks, Sequence):
            raise ConfigError("the curriculum needs a finite task set")
        num = min(_AT_ONCE, len(tasks))
        config = config or CuresConfig(prompts_per_step=max(num, 1), rollouts_per_step=max(num, 1) * group_size)
        if equal_groups(config) != group_size:
            raise ConfigError(f"curriculum: groups of {equal_groups(config)}, group_size is {group_size}")
        self.tasks = tuple(tasks)
        self._row = {str(task.key): row for row, task in enumerate(self.tasks)}
        labels = [source(task) for task in self.tasks], [level(task) for task in self.tasks]
        self.draws = Draws(
            Curriculum.from_ids(
                [task.key for task in self.tasks], *labels, config, seed=seed, threshold=threshold, posterior=posterior
            ),
            lost_after,
        )

    def __next__(self) -> Any:
        return self.tasks[self.draws.next().row]

    def observe(self, group: list[Any]) -> None:
        """Take a finalized group. Traces with an error are rollouts without a verdict."""
        key = str(group[0].task.key)
        if key not in self._row:
            raise CurriculumMisuse(f"task {key!r} is not in this task set; nothing was counted")
        traces = [trace for episode in group for trace in episode.traces if trace.agent.trainable]
        self.draws.tell(self._row[key], [None if trace.has_error else trace.reward for trace in traces])

    def state_dict(self) -> dict[str, Any]:
        return self.draws.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.draws.load_state_dict(state_dict, again=True)

    def metrics(self) -> dict[str, float]:
        counts = {f"rollouts/{name}": float(number) for name, number in self.draws.curriculum.counts.items()}
        return {**counts, "in_flight": float(len(self.draws.in_flight))}
