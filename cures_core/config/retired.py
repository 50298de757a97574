"""What a configuration could once say and no longer can: why it went, and what is to be written instead.

Whoever names such a setting, in a profile, by `--set`, through the API or as a parameter of a flow, is told by
`without_retired`. What was kept before it went (the configuration of a run, the settings of a posterior) is still read,
by `readable`: that is for reading, not for going on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue
from pydantic_core import PydanticCustomError

RETIRED = "retired"
"""Type of the validation error, whose message names the value already."""

_SHARED = ("prompts_per_step", "rollouts_per_step", "posterior")
"""What all strategies have beside settings of their own."""
_PUBLISHED: dict[str, JsonValue] = {"fading": 1.0, "pooling": "none", "strength": 2.0, "dead_prior": 0.0}
_OFFICIAL: dict[str, JsonValue] = {**_PUBLISHED, "group_fading": 1.0}


@dataclass(frozen=True)
class _Rival:
    """A strategy that is a plug-in of the benchmarks now."""

    path: str
    """Below `benchmarks.curriculum.rivals`."""
    why: str
    posterior: Mapping[str, JsonValue]
    """Its defaults, where they were others than those of all strategies."""


_BEHIND = "it was measured, and is behind the default on every pool"
_RIVALS = {
    "arc": _Rival("arc:Arc", _BEHIND, {}),
    "gvm": _Rival("gvm:Gvm", _BEHIND, {}),
    "mopps": _Rival("mopps:Mopps", _BEHIND, _PUBLISHED),
    "speed": _Rival("speed:Speed", _BEHIND, {}),
    "cures-official": _Rival("official:Official", "it repeats the faults of published code, for the record", _OFFICIAL),
}


@dataclass(frozen=True)
class Retired:
    """A setting, or some values of one, that is no more."""

    key: str
    """Dotted key."""
    version: str
    """The first one without it."""
    why: str
    """With what serves instead."""
    values: tuple[JsonValue, ...] = ()
    """The values that are no more. Empty: the setting itself is no more."""
    unused: tuple[JsonValue, ...] = ()
    """Values by which it said that it is not used: kept configurations hold them, and they mean what holds now."""

    def hit(self, value: object) -> bool:
        return value in self.values if self.values else value not in self.unused


TABLE = (
    *(
        Retired(
            "curriculum.type",
            "0.2.0",
            f"{rival.why} (docs/benchmarks.md), so it is a plug-in of the benchmarks, which a checkout has",
            (name,),
        )
        for name, rival in _RIVALS.items()
    ),
    Retired(
        "curriculum.posterior.drift",
        "0.2.0",
        "no training has been shown to gain by it; for a policy that moves faster, lower curriculum.posterior.fading, "
        'or set it to "fitted"',
        unused=(0,),
    ),
    Retired(
        "curriculum.posterior.lag",
        "0.2.0",
        "no training has been shown to gain by it; for a policy that moves faster, lower curriculum.posterior.fading, "
        'or set it to "fitted"',
        unused=("ignored",),
    ),
    Retired(
        "curriculum.weighting.type",
        "0.2.0",
        'no training has been shown to gain by it; take "proportional", or "softmax" with a temperature',
        ("ess",),
    ),
    Retired(
        "curriculum.allocation.sigma",
        "0.2.0",
        "budgets by measured gradients were no better than by the spread, nor these than equal groups "
        "(docs/benchmarks.md); leave it out: sigma is the spread",
        unused=("spread",),
    ),
    Retired(
        "curriculum.signal",
        "0.2.0",
        'no training has been shown to gain by it; take "expected_variance", the closed form that was measured',
        ("expected_spread",),
    ),
    Retired(
        "curriculum.signal",
        "0.2.0",
        'it was measured, and slower than "thompson" (docs/benchmarks.md); take that',
        ("informative",),
    ),
    Retired(
        "training.kl_estimator",
        "0.2.0",
        'as a loss its gradient is zero in the mean, so it held nothing and added noise; take "k3" (or "k2")',
        ("k1",),
    ),
)


_SECTIONS = tuple(dict.fromkeys(item.key.partition(".")[0] for item in TABLE))


def without_retired(section: str) -> Callable[[Any], Any]:
    """A validator for a section of the configuration: refuses what is retired in it, by the reason, and leaves out what
    only said that it is not used."""

    def check(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if found := _found(section, values):
            raise PydanticCustomError(RETIRED, "{why}", {"why": "; ".join(_why(*one, values) for one in found)})
        return _cleaned(section, values)

    return check


def retired_in(config: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The retired settings that a kept configuration uses, by dotted key."""
    return {key: value for key, value, _ in _found("", config)}


def reasons(config: Mapping[str, Any]) -> list[str]:
    """A sentence for each of them."""
    found = []
    for section in _SECTIONS:
        values = config.get(section)
        if isinstance(values, Mapping):
            found += [f"{section}: {_why(*one, values)}" for one in _found(section, values)]
    return found


def readable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A kept configuration in terms of this version. A rival is the plug-in that it has become; an option that has gone
    is left out, so that this tells what a run was, but does not do what it did."""
    kept = {name: config[name] for name in _SECTIONS if isinstance(config.get(name), Mapping)}
    if "curriculum" in kept:
        kept["curriculum"] = _as_plugin(kept["curriculum"])
    return {**config, **{name: _cleaned(name, values) for name, values in kept.items()}}


def _found(section: str, values: Mapping[str, Any]) -> list[tuple[str, JsonValue, Retired]]:
    found = []
    for item in TABLE:
        if section and not item.key.startswith(f"{section}."):
            continue
        key = item.key.removeprefix(f"{section}.") if section else item.key
        table, name = _table_of(values, key)
        if table is not None and name in table and item.hit(table[name]):
            found.append((key, table[name], item))
    return found


def _table_of(values: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any] | None, str]:
    """The table that holds a dotted key, where it is there, and the key's last part."""
    *parents, name = key.split(".")
    table: Any = values
    for parent in parents:
        table = table.get(parent) if isinstance(table, Mapping) else None
    return table if isinstance(table, Mapping) else None, name


def _cleaned(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The section without what is retired in it."""
    kept = _copied(values)
    for item in TABLE:
        table, name = _table_of(kept, item.key.removeprefix(f"{section}."))
        if not item.key.startswith(f"{section}.") or not isinstance(table, dict) or name not in table:
            continue
        if not item.values:
            del table[name]
        elif item.hit(table[name]):
            # A type decides what else may stand in its table: all of it goes.
            table.clear() if name == "type" else table.pop(name)
    return {name: value for name, value in kept.items() if value != {} or values[name] == {}}


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _as_plugin(curriculum: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a rival as that of its plug-in; any other as it is."""
    rival = _RIVALS.get(str(curriculum.get("type")))
    if rival is None:
        return dict(curriculum)
    own = {
        name: value
        for name, value in curriculum.items()
        if name not in (*_SHARED, "type") and not isinstance(value, Mapping)  # no rival has tables of its own
    }
    posterior = {**rival.posterior, **curriculum.get("posterior", {})}
    return {
        "type": "custom",
        "strategy": f"benchmarks.curriculum.rivals.{rival.path}",
        **{name: curriculum[name] for name in _SHARED if name in curriculum},
        **({"options": own} if own else {}),
        **({"posterior": posterior} if posterior else {}),
    }


def _why(key: str, value: JsonValue, item: Retired, values: Mapping[str, Any]) -> str:
    said = f"{key} = {_toml(value)} was taken out in {item.version}: {item.why}"
    if not isinstance(value, str) or value not in _RIVALS:
        return said
    lines = ", ".join(f"{name} = {_toml(one)}" for name, one in _cleaned("curriculum", _as_plugin(values)).items())
    return (
        f"{said}. It still runs there by [curriculum] {lines}, with "
        "CURES_PLUGINS=benchmarks.curriculum.rivals.* in the environment"
    )


def _toml(value: Any) -> str:
    """As a line of a profile."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value, default=str)  # a profile may hold dates
