"""Code that a configuration names by dotted path. A name is imported only where the environment of the process allows
it: whoever may send a configuration, as anyone may who reaches the server's API, could otherwise run what is installed.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from cures_core.config.marks import leaves
from cures_core.errors import ConfigError

if TYPE_CHECKING:  # the curriculum, which may be used alone, needs no configuration of a run
    from cures_core.config.run import RunConfig

VARIABLE = "CURES_PLUGINS"


def load_plugin(path: str, key: str) -> object:
    """What `package.module:name` names. `key`: the field that holds it, for messages.

    Raises `ConfigError`, before anything is imported, where `CURES_PLUGINS` does not allow it, and where there is no
    such thing. A module that is allowed as a whole gives what it defines itself, not what it has imported.
    """
    allowed = require_allowed(path, key)
    module, _, name = path.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}: {path} cannot be imported ({error}). Put its module on PYTHONPATH") from error
    home = getattr(found, "__module__", module)
    if allowed != path and home != module:
        raise ConfigError(f"{key}: {path} is {home}:{name}; name it there, or allow it: {_remedy(path)}")
    return found


def require_allowed(path: str, key: str) -> str:
    """The entry of `CURES_PLUGINS` that allows `path`: itself, its module, or `package.*` above that.

    Raises `ConfigError` with the line that would allow it.
    """
    module = path.partition(":")[0]
    entries = [entry.strip() for entry in os.environ.get(VARIABLE, "").split(",")]
    above = [f"{module[:i]}.*" for i, letter in enumerate(module) if letter == "."]
    for wanted in (path, module, *above):
        if wanted in entries:
            return wanted
    raise ConfigError(
        f"{key}: {path} is code of yours, which this process may run only if its environment says so: {_remedy(path)}"
    )


def require_plugins_allowed(config: RunConfig) -> None:
    """Ask for all that a run would load, before it does any work. Raises `ConfigError`."""
    for key, path in _named(config):
        require_allowed(path, key)


def _named(config: RunConfig) -> list[tuple[str, str]]:
    return [(leaf.path, str(leaf.value)) for leaf in leaves(config) if leaf.is_code]


def _remedy(path: str) -> str:
    now = os.environ.get(VARIABLE, "")
    return f"export {VARIABLE}={f'{now},' if now else ''}{path}"
