"""Knows how a suite that is described in a file of its own gets into a profile, and what the profile may change."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from cures_core.errors import ConfigError, MissingInput

KEY = "include"


def include_suites(values: dict[str, Any], folder: Path) -> None:
    """Replace `include = "FILE.toml"` in `evaluation.suites` by the keys of that file, below those beside it.

    The file is looked for beside the profile (`folder`), then in the working directory. Tables are joined key by key,
    unless their `type` differs. Raises `MissingInput` (no such file) or `ConfigError` (not TOML, or includes in it).
    """
    evaluation = values.get("evaluation")
    suites = evaluation.get("suites") if isinstance(evaluation, dict) else None
    if not isinstance(suites, list):
        return  # validation tells what is wrong with it
    for i, suite in enumerate(suites):
        if isinstance(suite, dict) and KEY in suite:
            own = {key: value for key, value in suite.items() if key != KEY}
            suites[i] = joined(_read(suite[KEY], folder, f"evaluation.suites.{i}.{KEY}"), own)


def joined(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with the keys of `above` put over it."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_type(old, value):
            result[key] = joined(old, value)
        else:
            result[key] = value
    return result


def _same_type(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "type" not in new or new["type"] == old.get("type")


def _read(name: Any, folder: Path, key: str) -> dict[str, Any]:
    if not isinstance(name, str):
        raise ConfigError(f"{key}: {name!r} is not the path of a TOML file")
    path = next((place for place in (folder / name, Path(name)) if place.is_file()), None)
    if path is None:
        raise MissingInput(
            f"{key}: no file {name} in {folder.absolute()} or {Path.cwd()}; suites lie in configs/suites/"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    if KEY in values:
        raise ConfigError(f"{path}: a suite's file cannot include another one; write its keys here")
    return values
