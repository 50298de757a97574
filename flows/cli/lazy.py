"""A group of commands that imports a command's module when the command is called: `--help` and a listing need not wait
for the libraries of all the others.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Entry(NamedTuple):
    """Where a command is, and what the group's help says of it: the first line of the command's own."""

    place: str
    """`package.module:name` of a function, or of a `typer.Typer` with commands of its own."""
    help: str


class LazyGroup(TyperGroup):
    """Knows its commands by `entries`; what is listed before a command is called are their names and lines of help."""

    entries: ClassVar[dict[str, Entry]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update({name: TyperCommand(name, help=entry.help) for name, entry in self.entries.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name, self.entries[name]) if name in self.entries else command, rest


def load(name: str, entry: Entry) -> Any:
    """The command itself, as typer makes it."""
    module, _, attribute = entry.place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(found)
        found = app
    command = get_command(found)
    command.name = name
    return command
