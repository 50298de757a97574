"""Tasks of environments for the package `verifiers` (0.4): their prompts, and what their rewards make of a completion.

A gold answer is what it takes to make the task again: its data and settings as JSON. `idx` is left out: it is the
task's place in its taskset, and with it one new task would change the ids of all prompts behind it. All in here runs
code of the environment's.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cures_core.errors import ConfigError, CuresError
from cures_core.extras import missing_extra
from cures_core.files import canonical_json
from cures_core.plugins import require_allowed
from cures_core.prompts.chats import Chat, read_chat, written

_DECIMALS = 9
"""Of a sum of weighted rewards: 0.6 + 0.3 + 0.1 is to reach 1."""
_NEEDS_RUNTIME = ("setup", "finalize", "stage_verifier")
_OF_A_MACHINE = ("image", "workdir", "agent_user", "skills", "artifacts")


def load(environment: str, setting: str) -> Any:
    """The taskset class of an installed package. `setting`: what names it, for messages.

    Raises `ConfigError` where it may not be run or has none, `MissingExtra` without `verifiers`.
    """
    require_allowed(environment, setting)
    try:
        from verifiers.v1.utils import loaders
    except ImportError as error:
        raise missing_extra("verifiers", f"{setting} {environment}", error) from error
    with _told(environment, "It must export a Taskset of verifiers 0.4; load_environment is of versions before it"):
        return loaders.taskset_class(environment)


def rows(environment: str, size: int | None, options: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[float]]:
    """(problem, turns, answer and source of the first `size` tasks, or of all; the least and the largest reward, should
    every one be in 0..1).

    `options`: settings of the taskset. Raises `ConfigError` where a task is more than a prompt and a completion that is
    scored by itself, and where it cannot be made again.
    """
    kind = load(environment, "--environment")
    with _told(environment):
        from verifiers.v1.utils.loaders import taskset_config_type

        taskset = kind(taskset_config_type(environment).model_validate({**options, "id": environment}))
        if size is None and not taskset.bounded:
            raise ConfigError(f"environment {environment} has no end: say how many tasks to take, with --size")
        tasks = list(taskset if size is None else taskset.take(size))
        if not tasks:
            raise ConfigError(f"environment {environment} has no tasks")
        for task in tasks:
            if reason := _why_not(environment, taskset, task):
                raise ConfigError(
                    f"environment {environment}: task {task.data.idx} {reason}. What can be trained on is one prompt "
                    "and one completion, which is scored from its text"
                )
        made = [_row(environment, kind.task_type(), task) for task in tasks]
        weights = [getattr(hook, "_vf_weight", 1.0) for hook in tasks[0].hooks("reward")]
        signs = ([min(w, 0.0) for w in weights], [max(w, 0.0) for w in weights])
        return made, [round(math.fsum(those), _DECIMALS) for those in signs]


def answer(environment: str, kind: Any, job: Mapping[str, Any]) -> dict[str, object]:
    """{"item": gold, "answer": completion} to {"reward": weighted sum} for a taskset class, or to {"reason"}."""
    try:
        named = json.loads(job["item"])["environment"]
        task = _task(kind.task_type(), job["item"])
    except Exception as error:  # pydantic's errors, and what validators of the environment's raise
        return {"reason": f"the gold answer makes no task ({type(error).__name__})"}
    if named != environment:
        return {"reason": f"the gold answer is of environment {ascii(named)[:80]}, not of {environment}"}
    trace = _trace(task, job["answer"])
    try:
        asyncio.run(task.score(trace))
    except Exception as error:
        raise error.__cause__ or error from None  # verifiers wraps what a reward raises
    if not trace.rewards:
        return {"reason": "no reward was given"}
    return {"reward": round(trace.reward, _DECIMALS)}


@contextmanager
def _told(environment: str, remedy: str = "") -> Iterator[None]:
    """What code of an environment raises becomes a `ConfigError`."""
    try:
        yield
    except CuresError:
        raise
    except Exception as error:
        told = f"environment {environment}: {type(error).__name__}: {error}"
        raise ConfigError(f"{told.rstrip('.')}. {remedy}" if remedy else told) from error


def _why_not(environment: str, taskset: Any, task: Any) -> str:
    """Why a task is no single turn that can be scored by itself; empty where it is one."""
    from verifiers.v1.configs.judge import JudgeConfig
    from verifiers.v1.configs.task import TaskConfig
    from verifiers.v1.envs.single_agent import SingleAgentEnv
    from verifiers.v1.task import Task
    from verifiers.v1.utils import loaders
    from verifiers.v1.utils.decorators import discover_decorated

    kind = type(task)
    plugged = [name for name in TaskConfig.model_fields if getattr(task.config, name)]
    rewards = [] if plugged else task.hooks("reward")  # which imports what is plugged
    asks_judge = "judges" in plugged or any(isinstance(value, JudgeConfig) for _, value in task.config)
    hooks = [name for name in _NEEDS_RUNTIME if getattr(kind, name) is not getattr(Task, name)]
    places = [name for name in _OF_A_MACHINE if getattr(task.data, name)]
    run = [hook.__name__ for hook in rewards if _requires_runtime(hook)]
    chat = _chat(task)
    reasons = {
        "comes with an Env of its own, which decides who speaks when": (
            loaders.environment_class(environment) is not SingleAgentEnv
        ),
        "comes with a harness of its own": loaders.default_harness_id(environment) == environment,
        "gives the policy tools (toolsets)": taskset.toolsets(taskset.config) or kind.toolsets(task.config),
        "needs a container (NEEDS_CONTAINER)": kind.NEEDS_CONTAINER,
        f"needs a machine that it prepares ({', '.join(places)})": places,
        f"needs a runtime ({', '.join(hooks)})": hooks,
        f"is scored in a runtime ({', '.join(run)})": run,
        "asks a judge: reward.type = 'judge' does that here": asks_judge,
        f"plugs functions by its configuration ({', '.join(plugged)})": plugged,
        "rewrites requests or responses (intercept)": discover_decorated(task, "intercept"),
        "has no rewards": not rewards,
        "has no prompt: the user would speak first": not task.data.prompt,
        f"has a prompt that is not text alone ({chat.unreadable})": chat.unreadable,
        "has a prompt that does not end with a user's message": chat.problem is None or chat.reply,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _requires_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _row(environment: str, kind: Any, task: Any) -> dict[str, str]:
    data, chat = task.data.model_copy(update={"idx": None}), _chat(task)
    value = {"config": _changed(task.config), "data": _changed(data), "environment": environment}
    gold = canonical_json(value).decode()
    again = _task(kind, gold)
    if (type(again), again.data, again.config) != (type(task), data, task.config):
        raise ConfigError(
            f"environment {environment}: task {task.data.idx} becomes another when it is made again from JSON. Its "
            "Task and Taskset must name the types that they use: Task[Data, State, Config], Taskset[Task, Config]"
        )
    source = f"verifiers/{environment}"
    return {"problem": chat.problem or "", "turns": written(chat.turns), "answer": gold, "source": source}


def _changed(model: Any) -> dict[str, Any]:
    """The fields of a pydantic model that are not at their defaults, as JSON."""
    fields = type(model).model_fields.items()
    told = {name for name, field in fields if getattr(model, name) != field.get_default(call_default_factory=True)}
    return dict(model.model_dump(mode="json", include=told))


def _task(kind: Any, gold: str) -> Any:
    """The task of a gold answer. Raises whatever its types do, and ValueError where it would plug in code."""
    from verifiers.v1.configs.task import TaskConfig

    value = json.loads(gold)
    config, data = value["config"], value["data"]
    if plugged := sorted(set(config) & set(TaskConfig.model_fields)):
        raise ValueError(f"{plugged[0]}: a gold answer names no code")
    return kind(
        kind.data_type().model_validate_json(canonical_json(data)),
        kind.config_type().model_validate_json(canonical_json(config)),
    )


def _messages(task: Any) -> list[Any]:
    """What the policy is shown, as messages of `verifiers`."""
    from verifiers.v1.types import SystemMessage, UserMessage

    prompt, system = task.data.prompt or [], task.data.system_prompt
    asked = [UserMessage(content=prompt)] if isinstance(prompt, str) else list(prompt)
    return [SystemMessage(content=system), *asked] if system else asked


def _chat(task: Any) -> Chat:
    return read_chat([message.model_dump() for message in _messages(task)])


def _trace(task: Any, completion: str) -> Any:
    """The trace of one turn, as rewards read it. It has no tokens."""
    from verifiers import __version__
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.state import state_cls
    from verifiers.v1.trace import AgentInfo, ModelCall, Trace, TraceTask, VersionInfo
    from verifiers.v1.types import AssistantMessage

    asked = [MessageNode(parent=i - 1 if i else None, message=m) for i, m in enumerate(_messages(task))]
    said = MessageNode(parent=len(asked) - 1, message=AssistantMessage(content=completion), sampled=True)
    return Trace(
        verifiers=VersionInfo(version=__version__),  # its default asks git
        task=TraceTask(type=type(task).__name__, data=task.data),
        state=state_cls(type(task))(),
        agent=AgentInfo(config=AgentConfig()),
        nodes=[*asked, said],
        calls=[ModelCall(node=len(asked))],
        is_completed=True,
        ok=True,
        stop_condition="agent_completed",
    )
