"""The text of code that a user plugs in: found without running it, so that a key can hold its digest."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from pydantic import BaseModel, JsonValue

from cures_core.config.marks import decides, is_within, leaves
from cures_core.errors import ConfigError
from cures_core.files import digest_file, digest_json


def code_digest(dotted: str, setting: str) -> str:
    """SHA-256 (hex) of the file that holds `package.module:name`, or of all Python files of a `package` without a name;
    modules that it imports are not looked at.

    Raises `ConfigError` naming `setting` where there is no such module.
    """
    module, mark, _ = dotted.partition(":")
    spec = _spec(module)
    if spec is None:
        remedy = "Write an importable package.module:name" if mark else "Install its package, or put it on PYTHONPATH"
        raise ConfigError(f"{setting} {dotted!r}: no module {module}. {remedy}")
    if not mark and spec.submodule_search_locations:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        files = sorted(
            (path.relative_to(folder).as_posix(), path) for folder in folders for path in folder.rglob("*.py")
        )
        return digest_json([[name, digest_file(path)] for name, path in files])
    source = Path(spec.origin or "")
    return digest_file(source) if source.is_file() else f"built into Python: {module}"


def _spec(module: str) -> ModuleSpec | None:
    """Where a module comes from. A job finds modules of the working directory first; no parent package is imported."""
    top, *inner = module.split(".")
    spec = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path]) or importlib.util.find_spec(top)
    for i in range(len(inner)):
        places = None if spec is None else spec.submodule_search_locations
        if places is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *inner[: i + 1]]), list(places))
    return spec


def keyed(
    model: BaseModel, sections: Collection[str] | None = None, *, of: type[BaseModel] | None = None
) -> dict[str, JsonValue]:
    """The results among the settings of a model by dotted key, with the digest of own code beside its name: what the
    key of a work holds of its configuration. `sections`: only those; `of`: only fields of this base class.
    """
    found: dict[str, JsonValue] = {}
    for leaf in leaves(model, of=of):
        if decides(leaf) and (sections is None or is_within(leaf.path, sections)):
            found[leaf.path] = leaf.value
            if leaf.is_code:
                found[f"{leaf.path} (code)"] = code_digest(str(leaf.value), leaf.path)
    return found
