"""Which earlier posterior a retraining starts from; decided once for a change, so that a Retry finds the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any

from pydantic import JsonValue, ValidationError

from cures_core.config.base import Strict
from cures_core.config.loading import explain
from cures_core.config.marks import Leaf, Mark, is_within, leaves, results
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, CorruptArtifact
from tasks.inputs.digests import SOLUTIONS, policy_files
from tasks.runs.figures import PriorFigures
from tasks.runs.notes import read_started, run_names, run_status, stage_record
from tasks.runs.opening import identify, started_config
from tasks.storage import Store, open_store
from tasks.storage.values import aside_command, decode_value, encode_value

_log = logging.getLogger(__name__)

Policy = tuple[dict[str, JsonValue], dict[str, str]]


DECISIONS = "retrainings"
"""Where the store keeps what was decided, by run."""


class Decision(Strict):
    """`retrainings/<run>.json`."""

    start_from: str
    """Tag of a snapshot, or "none"."""


PLACES = ("store", "snapshot", "tracking", "device")
"""Sections that the deployment has as a whole: where a run is kept, reported and computed. `device` is a result, but
CI's machine is not where runs are."""
NAMES = ("name", "fork", "data", "policy", "promotion")
"""Placements that say what is read, and what is made of it is called: part of what was judged."""


def in_places_of(config: RunConfig, judged: RunConfig) -> RunConfig:
    """The configuration `judged`, in the places of `config`: `PLACES`, and what else is marked as a placement, but for
    `NAMES`, in each table in which `config` names one itself and `judged` has the same.

    What a deployment leaves out it leaves to CI, and so are elements of lists: those of one are not those of the other.
    Raises `ConfigError` where the two do not go together.
    """
    values = {**judged.model_dump(mode="json"), **config.model_dump(mode="json", include=set(PLACES))}
    said = config.model_dump(exclude_unset=True)
    tables = {leaf.path.rpartition(".")[0] for leaf in _placements(config) if _is_in(said, leaf.path)}
    shared = {leaf.path for leaf in _placements(judged)}
    for leaf in _placements(config):
        table, _, setting = leaf.path.rpartition(".")
        if leaf.path in shared and table in tables:
            reduce(getitem, table.split("."), values)[setting] = leaf.value
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, "what CI has judged, in the places of the deployment")) from error


def _placements(config: RunConfig) -> list[Leaf]:
    """Those that a deployment may have another value of than CI."""
    return [
        leaf
        for leaf in leaves(config)
        if leaf.mark is Mark.PLACEMENT
        and not is_within(leaf.path, (*PLACES, *NAMES))
        and not any(part.isdigit() for part in leaf.path.split("."))
    ]


def _is_in(values: Mapping[str, Any], path: str) -> bool:
    """Is there a value at a dotted path?"""
    name, _, rest = path.partition(".")
    return name in values and (not rest or _is_in(values[name], rest))


def with_earlier_posterior(config: RunConfig, start_from: str) -> RunConfig:
    """The configuration with `prior.start_from` set: a tag, or `latest` (of runs of this name), or `none`."""
    if start_from == "latest":
        start_from = _decided(open_store(config.store), config)
    prior = {**config.prior.model_dump(), "start_from": None if start_from == "none" else start_from}
    return RunConfig.model_validate({**config.model_dump(), "prior": prior})


def _decided(store: Store, config: RunConfig) -> str:
    name, inputs = identify(config)
    place = f"{DECISIONS}/{name}.json"
    if (decided := read_decision(store, place)) is None:
        policy = _policy(config, {setting: one.digest for setting, one in inputs.items()})
        made = Decision(start_from=_latest(store, config.name, policy))
        decided = made if store.put_if_absent(place, encode_value(made)) else read_decision(store, place) or made
    return decided.start_from


def read_decision(store: Store, place: str) -> Decision | None:
    """What was decided for a run; None where nothing was. Raises `CorruptArtifact`."""
    data = store.get(place)
    remedy = f"To decide again: {aside_command(place)}, then trigger the retraining once more"
    return None if data is None else decode_value(Decision, data, place, remedy)


def _latest(store: Store, name: str, policy: Policy) -> str:
    """Posterior 0 of the latest completed run of this name and this policy: it speaks of the policy that starts.

    A run whose notes are damaged is passed over: it may be any other run's.
    """
    found = []
    for run in run_names(store):
        try:
            status, prior = run_status(store, run), stage_record(store, run, PriorFigures)
            if prior is not None and status.status == "completed" and _started_from(store, run, name, policy):
                found.append((status.at, run))
        except (ConfigError, CorruptArtifact) as error:  # ConfigError: how it was started is gone
            _log.warning("run %s is passed over: %s", run, error)
    return f"posterior/{max(found)[1]}/0" if found else "none"


def _started_from(store: Store, run: str, name: str, policy: Policy) -> bool:
    try:
        config = started_config(store, run)
    except ValidationError:  # of a version with other settings
        return False
    return config.name == name and _policy(config, read_started(store, run).inputs) == policy


def _policy(config: RunConfig, inputs: Mapping[str, str]) -> Policy:
    """What a policy is, wherever its files lie: settings, and digests of the files."""
    taught = {SOLUTIONS: inputs[SOLUTIONS]} if SOLUTIONS in inputs else {}
    return results(config.policy), {**policy_files(inputs), **taught}
