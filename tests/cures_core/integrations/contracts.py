"""The interfaces of trainers that are not installed here, as their releases have them: what an adapter may count on."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Sampler


class AbstractSampler(Sampler[int]):
    """verl 0.7.1, verl/experimental/dataset/sampler.py. Constructed as `(data_source=dataset, data_config=config.data)`
    by `create_rl_sampler`, which asserts this base class and `dataloader_num_workers == 0`."""

    @abstractmethod
    def __init__(self, data_source: Sized, data_config: Any) -> None:
        pass


class AbstractCurriculumSampler(AbstractSampler):
    """The same. `RayPPOTrainer.fit` calls `update(batch=batch)` after the step and after the step's checkpoint."""

    @abstractmethod
    def update(self, batch: Any) -> None:
        pass


@dataclass
class DataProto:
    """What `update` gets, of verl 0.7.1: tensors in `batch`, object arrays in `non_tensor_batch`; rows repeated by the
    number of rollouts, in any order (`_balance_batch` changes it). `data_source`, `reward_model`, `extra_info` and
    `uid` of the dataset's rows are kept (`_get_gen_batch`); `token_level_scores` has shape (rows, response tokens)."""

    batch: dict[str, torch.Tensor]
    non_tensor_batch: dict[str, np.ndarray]


class TaskSampler(Iterator[Any], ABC):
    """prime-rl v0.8.1.dev52 to dev67, src/prime_rl/orchestrator/curriculum/samplers/base.py. `TrainSource.next_task`
    calls `next`; `Curriculum.on_result` calls `observe` with a group of episodes of one task, but for groups that were
    voided as stale or shed before any episode was there; `CheckpointManager` saves `state_dict` with torch.save and
    hands it to `load_state_dict` before sampling resumes."""

    @abstractmethod
    def __next__(self) -> Any:
        raise NotImplementedError

    def observe(self, group: list[Any]) -> None:
        """Update sampling state from a finalized group."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore checkpoint state before sampling resumes."""

    def metrics(self) -> dict[str, float]:
        return {}


@dataclass
class Task:
    """verifiers.v1: a task with its key."""

    key: str
    level: str = ""


@dataclass
class Agent:
    """verifiers.v1: who wrote a trace."""

    trainable: bool = True


@dataclass
class Trace:
    """verifiers.v1: one rollout's reward, or that it failed."""

    reward: float
    has_error: bool = False
    agent: Agent = field(default_factory=Agent)


@dataclass
class Episode:
    """verifiers.v1: traces of one rollout of a task."""

    task: Task
    traces: list[Trace]


class StandardSampler(TaskSampler):
    """prime-rl's own: `tasks` is a tuple, None for task sets without end."""

    def __init__(self, tasks: Any) -> None:
        self.tasks = tuple(tasks)

    def __next__(self) -> Any:
        return self.tasks[0]


class TrainSource:
    """The same, src/prime_rl/orchestrator/train_source.py. `Orchestrator.setup` makes it by its name in the module
    `prime_rl.orchestrator.orchestrator`, `TrainSource(self.train_envs)`, and loads the checkpoint right after; `main`
    of that module reads the command line. `env.tasks` is an iterator, which `__init__` uses up."""

    def __init__(self, train_envs: Any) -> None:
        self.envs = list(train_envs)
        self.curricula = {env.name: SimpleNamespace(sampler=StandardSampler(env.tasks)) for env in self.envs}

    def next_task(self) -> Any:
        return next(self.curricula[self.envs[0].name].sampler)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Put a module with these contents, and its packages, where an import finds them."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:i]))
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(sys.modules[name]).update(contents)
