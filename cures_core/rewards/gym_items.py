"""Items of reasoning-gym: made by (task, configuration, seed, index), and scored by the task's own scorer.

Some of its scorers evaluate the answer as Python (spiral_matrix, n_queens, ...): `answer` runs in confined processes
only. An item is made again to be scored, as its metadata do not survive JSON (tuples, keys that are numbers).
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from importlib import import_module
from typing import Any

from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from cures_core.files import canonical_json

_REMEMBERED = 64


def generate(
    task: str, level: int | None, size: int, seed: int, options: Mapping[str, Any]
) -> Iterator[dict[str, str]]:
    """`size` rows with problem, answer (what it takes to make the item again), source and level.

    `level`: of the task's own curriculum, from 0 on; None takes the defaults. Raises `ConfigError`.
    """
    config = _config(task, level, options)
    made, name = _dataset(task, canonical_json(config).decode(), seed, size), f"reasoning_gym/{task}"
    for index in range(size):
        item = made[index]
        gold = {"answer": str(item["answer"]), "config": config, "index": index, "seed": seed, "task": task}
        answer = canonical_json({**gold, "version": _version()}).decode()
        yield {"problem": str(item["question"]), "answer": answer, "source": name, "level": str(level or 0)}


def answer(job: Mapping[str, Any]) -> dict[str, object]:
    """{"item": gold, "answer": text or None}: {"score": 0..1}, of the item's own answer where there is none."""
    try:
        gold = json.loads(job["item"])
        task, config = str(gold["task"]), canonical_json(gold["config"]).decode()
        seed, index, wanted = int(gold["seed"]), int(gold["index"]), str(gold["answer"])
        made = _dataset(task, config, seed, index + 1)
        item = made[index]
    except Exception as error:  # reasoning-gym asserts, and raises what it likes
        return {"reason": f"the gold answer names no item ({type(error).__name__})"}
    if str(item["answer"]) != wanted:
        return {"reason": f"reasoning-gym {_version()} makes another item than {gold.get('version')}"}
    given = wanted if job["answer"] is None else job["answer"]
    return {"score": min(1.0, max(0.0, float(made.score_answer(answer=given, entry=item))))}


def _config(task: str, level: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the task's defaults."""
    factory = load()
    if task not in factory.DATASETS:
        known = ", ".join(sorted(factory.DATASETS))
        raise ConfigError(f"reasoning-gym has no task {task!r}; it has {known}")
    kind = factory.DATASETS[task][1]
    known_options = [field.name for field in fields(kind) if field.name not in ("seed", "size")]
    if unknown := sorted(set(options) - set(known_options)):
        raise ConfigError(f"{task}: no option {unknown[0]}; it has {', '.join(known_options)}")
    curriculum = None if level is None else _curriculum(factory, task, level)
    try:
        made = kind(**options) if curriculum is None else curriculum.generate_configuration(dict(options))
        if hasattr(made, "validate"):
            made.validate()
    except (AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"{task}: {error}") from error
    plain, default = asdict(made), asdict(kind())
    return {k: v for k, v in plain.items() if k not in ("seed", "size") and v != default.get(k)}


def _curriculum(factory: Any, task: str, level: int) -> Any:
    if task not in factory.CURRICULA:
        raise ConfigError(f"{task} has no levels; leave --levels out")
    curriculum = factory.create_curriculum(task)
    highest = max((len(attribute.levels) for attribute in curriculum.attributes.values()), default=1) - 1
    if not 0 <= level <= highest:
        raise ConfigError(f"{task} has levels 0 to {highest}, not {level}")
    curriculum.set_global_level(level)
    return curriculum


@lru_cache(_REMEMBERED)
def _dataset(task: str, config: str, seed: int, size: int) -> Any:
    return load().create_dataset(task, seed=seed, size=size, **json.loads(config))


def load() -> Any:
    """Import reasoning-gym and give its registry of tasks. Raises `MissingExtra`."""
    try:
        import_module("reasoning_gym")  # which registers its tasks
        from reasoning_gym import factory
    except ImportError as error:
        raise missing_extra("reasoning-gym", "reward.type = 'reasoning_gym'", error) from error
    return factory


def _version() -> str:
    return importlib.metadata.version("reasoning_gym")
