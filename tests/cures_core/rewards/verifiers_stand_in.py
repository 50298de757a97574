"""A stand-in for the package `verifiers` 0.4, where it is not installed: what of its interface tasks, rewards and the
adapter touch. The tests are the same with the real one. Written as `verifiers/v1/__init__.py`, it is all its modules.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

_HERE = sys.modules[__name__]
_MODULES = {
    "": ("utils", "configs", "envs", "task", "state", "graph", "trace", "types"),
    "utils.": ("decorators", "loaders"),
    "configs.": ("judge", "task", "agent"),
    "envs.": ("single_agent",),
}
for _package, _names in _MODULES.items():
    sys.modules.update({f"verifiers.v1.{_package}{_name}": _HERE for _name in _names})
loaders = _HERE


class SystemMessage(BaseModel):
    role: Literal["system"] = "system"
    content: Any


class UserMessage(BaseModel):
    role: Literal["user"] = "user"
    content: Any


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    tool_calls: list[Any] | None = None


Message = typing.Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class Loose(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JudgeConfig(Loose):
    id: str = ""


class RewardFunctionConfig(Loose):
    fn: str | None = None


class TaskConfig(Loose):
    judges: list[JudgeConfig] = []
    stops: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    rewards: dict[str, Any] = {}


class TasksetConfig(Loose):
    id: str = ""
    task: SerializeAsAny[TaskConfig] = TaskConfig()


class AgentConfig(Loose):
    pass


class State(BaseModel):
    pass


class TaskData(BaseModel):
    model_config = ConfigDict(frozen=True)

    idx: int | None = None
    id: str | None = None
    name: str | None = None
    description: str | None = None
    prompt: str | list[Message] | None = None
    system_prompt: str | None = None
    image: str | None = None
    workdir: str | None = None
    agent_user: str | None = None
    skills: list[Any] = []
    artifacts: list[Any] = []


def _mark(attr: str) -> Callable[..., Any]:
    def decorator(function: Any = None, **settings: Any) -> Any:
        def marked(function: Any) -> Any:
            setattr(function, attr, True)
            function._vf_weight = settings.get("weight", 1.0)
            return function

        return marked if function is None else marked(function)

    return decorator


reward, metric, stop, intercept = map(_mark, ("reward", "metric", "stop", "intercept"))


def discover_decorated(task: Any, attr: str) -> list[Any]:
    named = {name for kind in type(task).__mro__ for name, value in vars(kind).items() if hasattr(value, attr)}
    return [getattr(task, name) for name in sorted(named)]


def _argument(kind: type, bound: type) -> Any:
    for base in (base for one in kind.__mro__ for base in getattr(one, "__orig_bases__", ())):
        for argument in typing.get_args(base):
            if isinstance(argument, type) and issubclass(argument, bound):
                return argument
    return bound


D, S, C, T = TypeVar("D"), TypeVar("S"), TypeVar("C"), TypeVar("T")


class Harness:
    pass


class Env:
    pass


class SingleAgentEnv(Env):
    pass


class Task(Generic[D]):
    NEEDS_CONTAINER: ClassVar[bool] = False

    def __class_getitem__(cls, arguments: Any) -> Any:
        """Takes one to three types, as if later ones had defaults."""
        return super().__class_getitem__(arguments if not isinstance(arguments, tuple) else arguments[0])  # type: ignore[misc]

    def __init__(self, data: Any, config: Any = None) -> None:
        self.data, self.config = data, config or TaskConfig()

    @classmethod
    def data_type(cls) -> Any:
        return _argument(cls, TaskData)

    @classmethod
    def config_type(cls) -> Any:
        return TaskConfig

    @classmethod
    def toolsets(cls, config: Any) -> list[Any]:
        return []

    async def setup(self, trace: Any, runtime: Any) -> None:
        pass

    async def finalize(self, trace: Any, runtime: Any) -> None:
        pass

    async def stage_verifier(self, trace: Any, runtime: Any) -> None:
        pass

    def hooks(self, attr: str) -> list[Any]:
        return discover_decorated(self, attr)

    async def score(self, trace: Trace, runtime: Any = None) -> None:
        try:
            hooks = self.hooks("reward")
            for hook, value in zip(hooks, await asyncio.gather(*(hook(trace) for hook in hooks)), strict=True):
                trace.rewards[hook.__name__] = SimpleNamespace(value=float(value) * hook._vf_weight)
        except Exception as error:
            raise RuntimeError("scoring") from error


class Taskset(Generic[T, C]):
    INFINITE = False
    _most: int | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def load(self) -> Iterable[Any]:
        raise NotImplementedError

    @property
    def bounded(self) -> bool:
        return not self.INFINITE

    def take(self, most: int) -> Any:
        self._most = most
        return self

    def __iter__(self) -> Iterator[Any]:
        for i, task in enumerate(itertools.islice(self.load(), self._most)):
            task.data = task.data.model_copy(update={"idx": i})
            yield task

    @classmethod
    def task_type(cls) -> Any:
        return _argument(cls, Task)

    @classmethod
    def toolsets(cls, config: Any) -> list[Any]:
        return []


class VersionInfo(BaseModel):
    version: str


class Trace(SimpleNamespace):
    def __init__(self, **given: Any) -> None:
        super().__init__(rewards={}, **given)

    @property
    def reward(self) -> float:
        return sum(one.value for one in self.rewards.values())

    @property
    def num_turns(self) -> int:
        return sum(node.sampled for node in self.nodes)

    @property
    def last_reply(self) -> str:
        return (self.nodes[-1].message.content or "").strip()

    @property
    def messages(self) -> list[Any]:
        return [node.message for node in self.nodes]


class MessageNode(SimpleNamespace):
    def __init__(self, sampled: bool = False, **given: Any) -> None:
        super().__init__(sampled=sampled, **given)


AgentInfo = ModelCall = TraceTask = SimpleNamespace


def state_cls(kind: type) -> type:
    return State


def _exported(name: str, base: type) -> list[Any]:
    module = importlib.import_module(name)
    found = [getattr(module, one) for one in module.__all__]
    return [one for one in found if isinstance(one, type) and issubclass(one, base)]


def taskset_class(name: str) -> Any:
    return _exported(name, Taskset)[0]


def taskset_config_type(name: str) -> Any:
    return _argument(taskset_class(name), TasksetConfig)


def environment_class(name: str) -> Any:
    return [*_exported(name, Env), SingleAgentEnv][0]


def default_harness_id(name: str) -> str:
    return name if _exported(name, Harness) else "bash"
