"""Where a pretrained policy lies on this machine, and the digests of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cures_core.config.policy import PretrainedPolicy
from cures_core.errors import ConfigError, MissingInput
from cures_core.failures import machine_failure
from cures_core.files import digest_file, digest_json
from cures_core.jobs.spec import Job
from cures_core.policy.accounting import hub_away, require_there
from cures_core.policy.adapters import base_name, holds_adapters

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


def pretrained_folder(cfg: PretrainedPolicy) -> Path:
    """The user's folder, or the local copy of a hub model (fetched if need be). Raises `MissingInput`, and
    `ServerUnavailable` where the hub does not answer."""
    folder = Path(cfg.path)
    if folder.is_dir():
        return folder.absolute()
    require_there(cfg.path)
    from huggingface_hub import snapshot_download

    with _within_reach(cfg):
        fetched = Path(snapshot_download(cfg.path, revision=cfg.revision, allow_patterns=_PATTERNS))
    if holds_adapters(fetched):
        raise ConfigError(
            f"{cfg.path}: adapters, which are taken from a folder only. Set policy.path = {str(fetched)!r}"
        )
    return fetched


def adapter_base(cfg: PretrainedPolicy) -> PretrainedPolicy | None:
    """The policy that a local folder of adapters belongs to; None where `cfg` is a whole one itself."""
    if not holds_adapters(cfg.path):
        return None
    return cfg.model_copy(update={"path": base_name(Path(cfg.path), cfg.base), "base": None})


def base_folder(cfg: PretrainedPolicy) -> str | None:
    """Where on this machine the base model of a local folder of adapters lies, in its revision (fetched if need be);
    None where `cfg` is a whole policy. Raises `MissingInput`."""
    base = adapter_base(cfg)
    return None if base is None else str(pretrained_folder(base))


def with_base(job: Job) -> Job:
    """A job that reads adapters, told the folder of their base model: by the name it would load the hub's default
    branch, not what keys hold the content of."""
    policy = job.config.policy
    if not isinstance(policy, PretrainedPolicy) or not holds_adapters(job.policy):
        return job
    placed = policy.model_copy(update={"base": base_folder(policy)})
    return job.model_copy(update={"config": job.config.model_copy(update={"policy": placed})})


def pretrained_files(cfg: PretrainedPolicy) -> dict[str, str]:
    """Digests of all files that make a policy, by name; those of the base model of adapters under `base/`."""
    files = file_digests(pretrained_folder(cfg))
    if (base := base_folder(cfg)) is not None:
        files |= {f"base/{name}": digest for name, digest in file_digests(Path(base)).items()}
    return files


def architecture_file(cfg: PretrainedPolicy) -> Path:
    """Its config.json, of a hub model without its weights; of adapters that of their base. Raises `MissingInput`."""
    if (base := adapter_base(cfg)) is not None:
        return architecture_file(base)
    folder = Path(cfg.path)
    if folder.is_dir():
        return folder.absolute() / "config.json"
    require_there(cfg.path)
    from huggingface_hub import hf_hub_download

    with _within_reach(cfg):
        return Path(hf_hub_download(cfg.path, "config.json", revision=cfg.revision))


@contextmanager
def _within_reach(cfg: PretrainedPolicy) -> Iterator[None]:
    """Raises `ServerUnavailable` where the hub does not answer, `MissingInput` where it has nothing to give."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except Exception as error:
        if away := hub_away(cfg.path, error):
            raise away from error
        if not isinstance(error, HFValidationError | OSError):
            raise
        raise machine_failure(error, Path(HF_HUB_CACHE)) or MissingInput(_nothing(cfg, error)) from error


def _nothing(cfg: PretrainedPolicy, error: Exception) -> str:
    """Why the hub has nothing to give, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return f"{cfg.path}: is gated on the hub. Ask for access on its page there, then set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{cfg.path}: has no revision {cfg.revision!r} on the hub. Correct policy.revision"
    offline = constants.is_offline_mode()
    reach = "no copy of a hub model of that name here, and HF_HUB_OFFLINE forbids to ask the hub for one. Unset it, or"
    named = reach + " set" if offline else "no model of that name on the hub within reach. Set"
    return (
        f"{cfg.path}: no folder of that name, and {named} policy.path to a folder in Hugging Face format (`cures model "
        "fetch smollm2` makes one)"
    )


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file below a folder by its relative name; hidden ones (caches, git) are left out."""
    names = (p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file())
    return {n.as_posix(): digest_file(folder / n) for n in names if not any(part.startswith(".") for part in n.parts)}


def policy_digest(files: Mapping[str, str]) -> str:
    """One digest of a policy, from those of its files by name."""
    return digest_json(sorted(map(list, files.items())))


def tokenizer_digest(files: Mapping[str, str]) -> str:
    """One digest of what makes tokens of a text: all files of a policy but its weights."""
    return policy_digest({name: digest for name, digest in files.items() if not name.endswith(_WEIGHTS)})
