"""`cures data generate`: prompts that a program makes, at graded levels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cures_core.errors import ConfigError
from cures_core.files import canonical_json, write_atomic


def generate(
    target: Annotated[Path, typer.Argument(help="The set: a .jsonl file.")],
    task: Annotated[list[str], typer.Option(help="A reasoning-gym task, as in leg_counting; as often as you like.")],
    size: Annotated[int, typer.Option(min=1, help="Items of each task and level.")] = 500,
    levels: Annotated[str, typer.Option(help="Levels of the tasks' own curricula, as in 0,1,2. Default: none.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Another seed makes other items.")] = 0,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE (JSON) of the tasks' configuration.")] = None,
) -> None:
    """Make prompts with reasoning-gym, the same for the same arguments. `reward.type = "reasoning_gym"` judges them."""
    from cures_core.rewards.gym_items import generate as items

    if target.suffix != ".jsonl":
        raise ConfigError(f"{target}: name a .jsonl file")
    graded = [_level(word) for word in levels.split(",")] if levels else [None]
    options, rows = dict(map(_option, option or [])), list[dict[str, str]]()
    for name in task:
        for level in graded:
            # A level's items start where the one below ends: with one seed, they would differ in their size alone.
            rows += items(name, level, size, seed + size * (level or 0), options)
    write_atomic(target, b"".join(canonical_json(row) + b"\n" for row in rows))
    longest = max(len(row["answer"]) for row in rows)
    typer.echo(f"{len(rows):,} prompts in {target}; set data.path to it, and reward.type to reasoning_gym")
    if longest > 512:
        typer.echo(f"set data.max_answer_chars = {longest} too: an answer says how its item is made again")


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
