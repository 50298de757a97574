"""Stage: the policy that training starts from: a warm start, cached by its settings, or a pretrained model's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cures_core.config.policy import PretrainedPolicy
from cures_core.errors import MissingInput
from cures_core.failures import machine_failure
from cures_core.files import digest_folder
from cures_core.jobs.spec import Job
from tasks.runs.records import Record, RunRef, files_of
from tasks.stages.job_process import run_job
from tasks.stages.stage import as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import open_store


@as_stage()
def prepare_policy(run: RunRef) -> Record:
    """Files: policy/ (warm start only). Figures: digest (of the folder), and those of the warm start."""
    cfg = run.config
    if isinstance(cfg.policy, PretrainedPolicy):
        digest = digest_folder(pretrained_folder(cfg.policy))
        inputs: dict[str, Any] = {"type": "pretrained", "digest": digest}
        return run_stage(run, "prepare_policy", 1, inputs, [], lambda _: {"digest": digest})

    def work(space: Workspace) -> Mapping[str, Any]:
        run_job(Job(name="warm_start", config=cfg, scratch=space.scratch, out=space.out))
        figures = json.loads((space.out / "figures.json").read_bytes())
        return {"digest": digest_folder(space.out / "policy"), **figures}

    inputs = {
        "policy": cfg.policy.model_dump(mode="json", exclude={"checkpoint_every"}),
        "device": cfg.device.model_dump(mode="json"),
    }
    return run_stage(run, "prepare_policy", 1, inputs, [], work)


def policy_folder(run: RunRef, record: Record) -> Path:
    """Where the base policy lies on this machine."""
    if isinstance(run.config.policy, PretrainedPolicy):
        return pretrained_folder(run.config.policy)
    return files_of(open_store(run.config.store), record) / "policy"


def pretrained_folder(cfg: PretrainedPolicy) -> Path:
    """The user's folder, or the local copy of a hub model (fetched if need be). Raises `MissingInput`."""
    folder = Path(cfg.path)
    if folder.is_dir():
        return folder.absolute()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(
                cfg.path,
                revision=cfg.revision,
                allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"],
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise machine_failure(error, folder) or MissingInput(
            f"{cfg.path}: no folder of that name, and no model of that name on the hub within reach. Set policy.path "
            "to a folder in Hugging Face format (`cures model fetch smollm2` makes one)"
        ) from error
