"""Which earlier posterior a retraining starts from; decided once for a change, so that a Retry finds the same."""

from __future__ import annotations

import json

from cures_core.config.run import RunConfig
from cures_core.files import canonical_json
from tasks.runs.opening import identify, run_names, run_status, stage_record
from tasks.storage import Store, open_store


def with_earlier_posterior(config: RunConfig, start_from: str) -> RunConfig:
    """The configuration with `prior.start_from` set: a tag, or `latest` (of runs of this name), or `none`."""
    if start_from == "latest":
        start_from = _decided(open_store(config.store), config)
    prior = {**config.prior.model_dump(), "start_from": None if start_from == "none" else start_from}
    return RunConfig.model_validate({**config.model_dump(), "prior": prior})


def _decided(store: Store, config: RunConfig) -> str:
    key = f"retrainings/{identify(config).name}.json"
    store.put_if_absent(key, canonical_json({"start_from": _latest(store, config)}))
    return str(json.loads(store.get(key) or b"{}")["start_from"])


def _latest(store: Store, config: RunConfig) -> str:
    """Posterior 0 of the latest completed run of this name and this policy: it speaks of the policy that starts."""
    policy = config.policy.model_dump(mode="json")
    found = []
    for name in run_names(store):
        status, prior = run_status(store, name), stage_record(store, name, "estimate_prior")
        started = json.loads(store.get(f"runs/{name}/run.json") or b"{}").get("config", {})
        if (
            prior is not None
            and status["status"] == "completed"
            and started.get("name") == config.name
            and started.get("policy") == policy
        ):
            found.append((status["at"], name))
    return f"posterior/{max(found)[1]}/0" if found else "none"
