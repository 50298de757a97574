"""Which earlier posterior a retraining starts from; decided once for a change, so that a Retry finds the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from cures_core.config.base import Strict
from cures_core.config.marks import results
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
"""Sections that say where a run is kept, reported and computed. CI's machine is not where runs are."""


def in_places_of(config: RunConfig, judged: RunConfig) -> RunConfig:
    """The configuration `judged`, in the places of `config`."""
    return RunConfig.model_validate({**judged.model_dump(), **config.model_dump(include=set(PLACES))})


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
