"""Which earlier posterior a retraining starts from; decided once for a change, so that a Retry finds the same."""

from __future__ import annotations

from cures_core.config.base import Strict
from cures_core.config.run import RunConfig
from tasks.runs.notes import read_started, run_names, run_status, stage_record
from tasks.runs.opening import identify
from tasks.storage import Store, open_store
from tasks.storage.values import decode_value, encode_value


class Decision(Strict):
    """`retrainings/<run>.json`."""

    start_from: str
    """Tag of a snapshot, or "none"."""


def with_earlier_posterior(config: RunConfig, start_from: str) -> RunConfig:
    """The configuration with `prior.start_from` set: a tag, or `latest` (of runs of this name), or `none`."""
    if start_from == "latest":
        start_from = _decided(open_store(config.store), config)
    prior = {**config.prior.model_dump(), "start_from": None if start_from == "none" else start_from}
    return RunConfig.model_validate({**config.model_dump(), "prior": prior})


def _decided(store: Store, config: RunConfig) -> str:
    key = f"retrainings/{identify(config).name}.json"
    if (decided := store.get(key)) is None:
        store.put_if_absent(key, encode_value(Decision(start_from=_latest(store, config))))
        decided = store.get(key) or b""
    remedy = f"To decide again, remove {key} from the store and trigger the retraining once more"
    return decode_value(Decision, decided, key, remedy).start_from


def _latest(store: Store, config: RunConfig) -> str:
    """Posterior 0 of the latest completed run of this name and this policy: it speaks of the policy that starts."""
    policy = config.policy.model_dump(mode="json")
    found = []
    for name in run_names(store):
        status, prior = run_status(store, name), stage_record(store, name, "estimate_prior")
        started = read_started(store, name).config
        if (
            prior is not None
            and status.status == "completed"
            and started.get("name") == config.name
            and started.get("policy") == policy
        ):
            found.append((status.at, name))
    return f"posterior/{max(found)[1]}/0" if found else "none"
