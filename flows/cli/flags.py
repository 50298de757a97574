"""`cures data flag`, `unflag` and `flags`: people take prompts out, and give them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cures_core.errors import ConfigError
from cures_core.prompts.flags import add, flags_digest, read_flags, requested

Ids = Annotated[list[str] | None, typer.Argument(help="Content ids of the prompts.")]
List = Annotated[Path, typer.Option("--list", help="The list; a run honours the one that data.flags names.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_DEFAULT = Path("flags.jsonl")


def flag(
    ids: Ids = None,
    reason: Annotated[str, typer.Option(help="Why; needed, except with --from.")] = "",
    source: Annotated[
        Path | None, typer.Option("--from", help='File of flags: one {"id": ..., "reason": ...} a line.')
    ] = None,
    list_path: List = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Take prompts out of training and evaluation, for a reason, until they are unflagged."""
    if not ids and source is None:
        raise ConfigError("name the ids to flag, or a file of them with --from")
    wanted = [(prompt_id, reason) for prompt_id in ids or []] + ([] if source is None else requested(source))
    _report("flagged", add(list_path, "flag", wanted), list_path, as_json)


def unflag(
    ids: Annotated[list[str], typer.Argument(help="Content ids of the prompts.")],
    reason: Annotated[str, typer.Option(help="Why; may be left out.")] = "",
    list_path: List = _DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Give flagged prompts back; a retraining finds what was known of them in the archive of the posterior."""
    _report("unflagged", add(list_path, "unflag", [(prompt_id, reason) for prompt_id in ids]), list_path, as_json)


def flags(list_path: List = _DEFAULT, as_json: AsJson = False) -> None:
    """What is flagged now, and why."""
    found = read_flags(list_path)
    if as_json:
        print(json.dumps({"list": str(list_path), "version": flags_digest(found), "flags": found}))
        return
    for prompt_id, reason in found.items():
        print(f"{prompt_id}  {ascii(reason)[1:-1]}")
    print(f"{len(found)} flagged; version {flags_digest(found)[:12]}")


def _report(done: str, number: int, list_path: Path, as_json: bool) -> None:
    active = read_flags(list_path) if list_path.exists() else {}
    version = flags_digest(active)
    figures = {"list": str(list_path), done: number, "active": len(active), "version": version}
    if as_json:
        print(json.dumps(figures))
        return
    print(f"{list_path}: {number} {done}, {len(active)} flagged now; version {version[:12]}")
    print(f"runs leave them out with --set data.flags={list_path}")
