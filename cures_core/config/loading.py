"""From TOML profiles and `--set` overrides to a checked `RunConfig`; errors name the key and the nearest valid one."""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cures_core.config.includes import include_suites
from cures_core.config.marks import models_in
from cures_core.config.retired import RETIRED
from cures_core.config.run import RunConfig
from cures_core.config.urls import REFUSED
from cures_core.errors import ConfigError, MissingInput
from cures_core.secrets import masked

_TYPE_OF_A_UNION = re.compile(r"constrained-\w+|literal\[.*\]|float|int|str|bool")


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a profile, apply overrides `a.b=VALUE` (VALUE as TOML, else a string), validate.

    Raises `MissingInput` (no such file) or `ConfigError` listing every bad field at once, with what was typed there:
    what is wrong with the profile alone is the profile's, the rest is `--set`'s.
    """
    profile = {} if path is None else _read_profile(path)
    values = copy.deepcopy(profile)
    for text in overrides:
        _apply(values, text)
    folder = Path() if path is None else path.parent
    include_suites(values, folder)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = _bad_fields(error)
        own = [] if path is None else _bad_alone(profile, folder)
        typed = {
            str(path): [line for line in lines if line in own],
            "--set": [line for line in lines if line not in own],
        }
        raise ConfigError("\n".join(_blamed(lines, origin) for origin, lines in typed.items() if lines)) from error


def _read_profile(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingInput(f"{path}: no such configuration file; profiles lie in configs/")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _bad_alone(profile: dict[str, Any], folder: Path) -> list[str]:
    """What would be wrong with a profile that nothing is set on top of."""
    try:
        include_suites(profile, folder)
        RunConfig.model_validate(profile)
    except ValidationError as error:
        return _bad_fields(error)
    except (ConfigError, MissingInput):
        return []  # of an include that is no longer in the way
    return []


def with_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A configuration with overrides `a.b=VALUE` applied. Raises `ConfigError` listing every bad field at once."""
    if not overrides:
        return config
    values = config.model_dump(mode="json")
    for text in overrides:
        _apply(values, text)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, "--set")) from error


def explain(error: ValidationError, origin: str) -> str:
    """One line a bad field: dotted key, what is wrong, the value, and for unknown keys the nearest valid one."""
    return _blamed(_bad_fields(error), origin)


def _blamed(lines: Sequence[str], origin: str) -> str:
    head = f"{origin}: {len(lines)} bad field{'s' if len(lines) > 1 else ''}"
    return "\n".join([head, *(f"  {masked(line)}" for line in lines)])


def _bad_fields(error: ValidationError) -> list[str]:
    known = sorted(set(dotted_keys(RunConfig)))
    lines = []
    faults: dict[str, list[Any]] = {}
    for fault in error.errors(include_url=False):
        faults.setdefault(_strip_tags(fault["loc"]), []).append(fault)
    for key, (fault, *others) in faults.items():
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: {_unknown(key, fault['loc'], known)}")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing, and there is no default")
        else:
            # More than one where a value may be of several types: each says what it would have been.
            message = ", or ".join(f["msg"].removeprefix("Value error, ") for f in (fault, *others))
            lines.append(f"{key or 'the configuration'}: {message}{_got(fault, *others)}")
    return lines


def _got(*faults: ErrorDetails) -> str:
    """The bad value, unless it was refused for the secret in it, or is named already: a check of ours that looks at a
    whole table says what it found there."""
    if any(fault["type"] in (REFUSED, RETIRED) for fault in faults):
        return ""
    value = faults[0]["input"]
    if not isinstance(value, dict | list):
        return f" (got {masked(repr(value))[:80]})"
    return "" if faults[0]["type"] == "value_error" else f" (got a {'table' if isinstance(value, dict) else 'list'})"


def _unknown(key: str, loc: Sequence[int | str], known: Sequence[str]) -> str:
    """What is wrong with a key that its table does not take: misspelt, or a key of another `type` of that table."""
    plain = _without_indices(key)
    if plain in known:
        for i in range(len(loc) - 2, 0, -1):
            if (table := _strip_tags(loc[:i])) == _strip_tags(loc[: i + 1]):
                return (
                    f'{table}.type = "{loc[i]}" has no such key, another type has; leave it out, or replace the whole '
                    f"table (and what else it needs): --set '{table}={{type = \"{loc[i]}\"}}'"
                )
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.4)
    return "no such key" + (f"; the nearest one is {near[0]}" if near else "")


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All valid keys of a model and of the models inside it."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in models_in(field.annotation):
            yield from dotted_keys(inner, f"{prefix}{name}.")


def _strip_tags(loc: Sequence[int | str]) -> str:
    """Pydantic puts a union's tag, or its member's type, into the location; the user's file has no such level."""
    models: list[type[BaseModel]] = [RunConfig]
    kept: list[str] = []
    for part in loc:
        if isinstance(part, int):
            kept.append(str(part))
            continue
        tagged = [m for m in models if "type" in m.model_fields and m.model_fields["type"].default == part]
        if tagged and kept:
            models = tagged
            continue
        kept.append(part)
        inner = [
            m for model in models if part in model.model_fields for m in models_in(model.model_fields[part].annotation)
        ]
        models = inner or models
    if len(kept) > 1 and _TYPE_OF_A_UNION.fullmatch(kept[-1]):
        kept.pop()
    return ".".join(kept)


def _without_indices(key: str) -> str:
    return ".".join(part for part in key.split(".") if not part.isdigit())


def _apply(values: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {masked(text)!r}: write KEY=VALUE, for example training.learning_rate=3e-4")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.strip().split(".")
    place: Any = values
    for name in parents:
        place = _step_into(place, name, text)
    if isinstance(place, list):
        place[_index(place, last, text)] = value
    else:
        place[last] = value


def _step_into(place: Any, name: str, text: str) -> Any:
    if isinstance(place, dict) and place.get(name) is None:
        place[name] = {}  # a table that was left out
    inner = place[_index(place, name, text)] if isinstance(place, list) else place[name]
    if not isinstance(inner, dict | list):
        raise ConfigError(f"--set {masked(text)!r}: {name} is a value, not a table")
    return inner


def _index(place: Sequence[object], name: str, text: str) -> int:
    if not name.isdigit() or int(name) >= len(place):
        raise ConfigError(f"--set {masked(text)!r}: {name} is not an index of a list of {len(place)}")
    return int(name)
