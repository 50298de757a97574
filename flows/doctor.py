"""The worker examined from the UI: what `cures doctor` says on the machine that would train."""

from __future__ import annotations

from prefect import flow

from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from flows.ui.logs import errors_of_ours


@flow(name="doctor", flow_run_name="doctor {store.url}", validate_parameters=True)
def doctor(store: StoreConfig) -> list[dict[str, object]]:
    """Findings as a table artifact; the run fails if something required is missing."""
    from prefect.artifacts import create_table_artifact

    from tasks.doctor import examine

    with errors_of_ours():
        findings = [finding.model_dump() for finding in examine(store)]
        create_table_artifact(table=findings, key="doctor", description="What is there, and how to get what is not")
        missing = [f"{f['name']}: {f['found']}. {f['remedy']}" for f in findings if f["status"] == "missing"]
        if missing:
            raise ConfigError("; ".join(missing))
        return findings
