"""`cures data generate`: prompts that a program makes: reasoning-gym at graded levels, or an environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cures_core.errors import ConfigError
from cures_core.files import canonical_json, write_atomic

Rows = list[dict[str, str]]

_LAST_SEED = 2**31 - 1


def generate(
    target: Annotated[Path, typer.Argument(help="The set: a .jsonl file.")],
    task: Annotated[
        list[str] | None, typer.Option(help="A reasoning-gym task, as in leg_counting; as often as you like.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(help="An environment for the package verifiers: the installed package's name.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Items of each task and level (500), or of an environment (all).")
    ] = None,
    levels: Annotated[str, typer.Option(help="Levels of the tasks' own curricula, as in 0,1,2. Default: none.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=_LAST_SEED, help="Where the series of a task's items begins.")] = 0,
    part: Annotated[
        int, typer.Option(min=0, help="Which part of that series: with the same arguments, no two share an item.")
    ] = 0,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE (JSON) of the configuration of either.")] = None,
) -> None:
    """Make prompts with reasoning-gym or an environment. `reward.type` reasoning_gym or verifiers judges them."""
    if target.suffix != ".jsonl":
        raise ConfigError(f"{target}: name a .jsonl file")
    options = dict(map(_option, option or []))
    if environment is None:
        if not task:
            raise ConfigError("name a reasoning-gym task with --task, or an environment with --environment")
        rows, advice = _of_tasks(task, 500 if size is None else size, levels, seed, part, options)
    elif task or levels or seed or part:
        raise ConfigError(
            "--task, --levels, --seed and --part are for reasoning-gym: an environment has --option KEY=VALUE"
        )
    else:
        rows, advice = _of_environment(environment, size, options)
    write_atomic(target, b"".join(canonical_json(row) + b"\n" for row in rows))
    typer.echo(f"{len(rows):,} prompts in {target}; set data.path to it, and {advice}")
    longest = max(len(row["answer"]) for row in rows)
    if longest > 512:
        typer.echo(f"set data.max_answer_chars = {longest} too: an answer says how its item is made again")
    if any(row.get("turns") for row in rows):
        typer.echo("set rollout.prompt_format.chat = true too: prompts have a system message or earlier turns")


def _of_tasks(
    names: list[str], size: int, levels: str, seed: int, part: int, options: Mapping[str, Any]
) -> tuple[Rows, str]:
    """(items of reasoning-gym, the same for the same arguments; what to set for them)."""
    from cures_core.rewards.gym_items import generate as items

    # An item follows from seed + its number, so neighbouring seeds share all items but one: a level's begin where those
    # of the one below end (with one seed, they would differ in their size alone), and a part's behind the last part's.
    wanted = [_level(word) for word in levels.split(",")] if levels else [None]
    seeds = size * (max(level or 0 for level in wanted) + 1)
    first = seed + part * seeds
    if first + seeds > _LAST_SEED + 1:
        raise ConfigError(f"--part: part {part} lies beyond the last seed, {_LAST_SEED}; take a smaller part or seed")
    rows = Rows()
    for name in names:
        for level in wanted:
            rows += items(name, level, size, first + size * (level or 0), options)
    return rows, "reward.type to reasoning_gym"


def _of_environment(name: str, size: int | None, options: Mapping[str, Any]) -> tuple[Rows, str]:
    """(tasks of an environment, what to set for them)."""
    from cures_core.config.rewards import module_of
    from cures_core.rewards.environment_tasks import rows

    made, (low, high) = rows(module_of(name), size, options)
    advice = f'reward to {{ type = "verifiers", environment = "{module_of(name)}" }}'
    if (low, high) != (0.0, 1.0):
        advice += f"\nset reward.bounds = [{low}, {high}] too, if all its rewards lie in 0..1: so much they weigh"
    return made, advice


def _level(word: str) -> int:
    if not word.strip().isdecimal():
        raise ConfigError(f"--levels: {word!r} is no level; write numbers with commas, as in 0,1,2")
    return int(word)


def _option(text: str) -> tuple[str, Any]:
    key, mark, value = text.partition("=")
    if not mark:
        raise ConfigError(f"--option: {text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
