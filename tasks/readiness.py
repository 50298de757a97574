"""All that can be known before a run does any work: is what its configuration asks for here, and within reach?"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cures_core.config.data import PromptFile
from cures_core.config.marks import parts
from cures_core.config.policy import PretrainedPolicy, SupervisedWarmStart, WarmStartPolicy
from cures_core.config.rewards import CodeConfig
from cures_core.config.rollout import PromptFormat
from cures_core.config.run import RunConfig
from cures_core.config.tracking import TrackingConfig
from cures_core.config.training import LoraConfig
from cures_core.errors import ConfigError, CuresError
from cures_core.extras import require_extras
from cures_core.failures import failure_of
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.planning.disk import disk_bytes
from cures_core.planning.shape import pretrained_shape, read_architecture
from cures_core.plugins import require_plugins_allowed
from cures_core.policy.accounting import require_whole
from cures_core.policy.adapters import holds_adapters, require_alike
from cures_core.policy.solutions import open_solutions
from cures_core.prompts.flags import read_flags
from cures_core.prompts.reading import open_rows
from cures_core.rewards.code import require_confinement
from cures_core.sizes import size_text
from tasks.doctor import Finding, free_bytes, probe_store
from tasks.inputs.pretrained import architecture_file, base_folder
from tasks.inputs.prompt_files import Inputs
from tasks.planning import policy_shape
from tasks.prefect_api import require_server
from tasks.runs.figures import EpochFigures
from tasks.runs.notes import noted_epochs
from tasks.runs.opening import identify, read_first
from tasks.snapshots import find_snapshot
from tasks.snapshots.places import probe_places
from tasks.storage import open_store
from tasks.tracking.probing import probe_trackers


class Check(NamedTuple):
    """Something to look at. `needs`: checks without which it may fail too, and says nothing of its own then."""

    name: str
    probe: Callable[[], str]
    needs: Collection[str] = ()


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at, and the error that a run would end with."""

    finding: Finding
    error: CuresError | None = None


def require_ready(cfg: RunConfig) -> None:
    """Raises the error of the first check that fails."""
    for check in _checks(cfg):
        if (error := _checked(check).error) is not None:
            raise error


def check_run(cfg: RunConfig) -> list[Checked]:
    """Every check, whatever the others say. Nothing is left behind, but the folder of a store that is new."""
    found: dict[str, Checked] = {}
    for check in _checks(cfg):
        one = _checked(check)
        missing = [name for name in check.needs if name in found and found[name].error is not None]
        if one.error is not None and missing:
            one = Checked(Finding(name=check.name, status="unknown", found=f"not known without {', '.join(missing)}"))
        found[check.name] = one
    return list(found.values())


def _checked(check: Check) -> Checked:
    try:
        return Checked(Finding(name=check.name, status="ok", found=check.probe()))
    except (CuresError, OSError) as error:
        failure = failure_of(error)
        return Checked(Finding(name=check.name, status="missing", found=str(failure)), failure)


def _checks(cfg: RunConfig) -> Iterator[Check]:
    yield Check("extras", lambda: _extras(cfg))
    if cfg.redact is not None:
        yield Check("redaction", lambda: _redaction(cfg))
    inputs = ["prompts", *(f"suite {suite.name}" for suite in cfg.evaluation.suites), "flags", "policy", "warm start"]
    for name, file in zip(inputs, (cfg.data, *cfg.evaluation.suites), strict=False):
        yield Check(name, lambda file=file: _prompts(cfg, file))  # type: ignore[misc]
    if cfg.data.flags is not None:
        yield Check("flags", lambda: f"{len(read_flags(Path(str(cfg.data.flags)))):,} prompts flagged")
    if isinstance(cfg.policy, PretrainedPolicy) or cfg.training.lora is not None:
        yield Check("policy", lambda: _policy(cfg))
    if isinstance(cfg.policy, PretrainedPolicy) and (warm_start := cfg.policy.warm_start) is not None:
        yield Check("warm start", lambda: _solutions(cfg, warm_start), [] if warm_start.path else ["prompts"])
    if formats := _formats(cfg):
        yield Check("prompt format", lambda: _shown(cfg, formats), ["policy"])
    if cfg.device.type == "cuda":
        yield Check("device", lambda: _device(cfg))
    if (code := next(parts(cfg, CodeConfig), None)) is not None:
        yield Check("sandbox", lambda: require_confinement(code))
    yield Check("store", lambda: probe_store(cfg.store))
    places = cfg.snapshot.within(cfg.store.url, cfg.store.endpoint_url)
    own = cfg.snapshot.repository is not None and cfg.snapshot.remote is not None
    yield Check("snapshots", lambda: probe_places(places), [] if own else ["store"])
    if (tag := cfg.prior.start_from) is not None:
        yield Check("prior", lambda: f"{find_snapshot(tag, places).tag}: there", ["snapshots"])
    if cfg.tracking != TrackingConfig():
        yield Check("trackers", lambda: probe_trackers(cfg.tracking))
    yield Check("disk", lambda: _disk(cfg), [*inputs, "store"])
    if "PREFECT_API_URL" in os.environ:
        yield Check("prefect", lambda: require_server(os.environ["PREFECT_API_URL"]))


def _extras(cfg: RunConfig) -> str:
    require_plugins_allowed(cfg)
    require_extras(cfg)
    return "all there that the configuration asks for"


def _redaction(cfg: RunConfig) -> str:
    Redactor.of(cfg)
    return f"{cfg.redact}: loads"


def _prompts(cfg: RunConfig, file: PromptFile) -> str:
    """Opened, and its columns found; the rows are judged by the run's first stage."""
    open_rows(file, Inputs.of(cfg, read_first(cfg)).local(file.path))
    return f"{file.path}: opens"


def _solutions(cfg: RunConfig, warm_start: SupervisedWarmStart) -> str:
    """Opened, and its columns found; its rows are judged before the model is loaded."""
    name = warm_start.path or cfg.data.path
    columns = open_solutions(warm_start, Inputs.of(cfg, read_first(cfg)).local(name)).columns
    return f"{name}: opens; problem from {columns.problem}, solution from {columns.answer}"


def _policy(cfg: RunConfig) -> str:
    """What it is, whole, and with layers of the names that are to get adapters."""
    if not isinstance(cfg.policy, PretrainedPolicy):
        return policy_shape(cfg).architecture
    return f"{cfg.policy.path}: {_architecture(cfg.policy, cfg.training.lora)}"


def _architecture(policy: PretrainedPolicy, lora: LoraConfig | None) -> str:
    """Of a local folder every tensor is accounted for; a hub model's are when it is fetched."""
    file = architecture_file(policy)
    if Path(policy.path).is_dir():
        require_whole(Path(policy.path), base_folder(policy))
        if lora is not None and policy.adapters == "continue":
            if not holds_adapters(policy.path):
                raise ConfigError(f"{policy.path}: holds no adapters to continue; set policy.adapters = 'merge'")
            require_alike(Path(policy.path), lora)
    values = read_architecture(file.parent, file)
    for adapters in (lora, None if policy.warm_start is None else policy.warm_start.lora):
        if adapters is not None:
            pretrained_shape(values, (adapters.rank, adapters.targets))
    return str(values["model_type"])


def _formats(cfg: RunConfig) -> list[PromptFormat]:
    """Those that ask something of the policy's tokenizer."""
    formats = [cfg.rollout.prompt_format, *(s.prompt_format for s in cfg.evaluation.suites if s.prompt_format)]
    return [shown for shown in formats if shown.chat or shown.thinking]


def _shown(cfg: RunConfig, formats: Sequence[PromptFormat]) -> str:
    """The tokenizer can be had without the weights, but a hub model's only when it has been fetched."""
    if isinstance(cfg.policy, PretrainedPolicy) and not Path(cfg.policy.path).is_dir():
        return "looked at when the policy is fetched"
    from cures_core.policy.characters import character_tokenizer
    from cures_core.policy.loading import load_tokenizer, tokenizer_place
    from cures_core.rollout.prompting import require_format

    policy = cfg.policy
    if isinstance(policy, PretrainedPolicy):
        tokenizer = load_tokenizer(tokenizer_place(policy.path, policy.base))
    else:
        tokenizer = character_tokenizer()
    for shown in formats:
        require_format(tokenizer, shown)
    return "the tokenizer can show it"


def _device(cfg: RunConfig) -> str:
    from cures_core.policy.loading import device_of  # torch takes seconds, which only such a run waits for

    return str(device_of(cfg.device))


def _disk(cfg: RunConfig) -> str:
    """Counted closely only where it might not fit: that takes torch, and the content of all inputs."""
    folder = Path(cfg.store.folder)
    free, needed = free_bytes(folder), _most_bytes(cfg)
    if needed is None or free < needed:
        shape = policy_shape(cfg, architecture_file(cfg.policy) if isinstance(cfg.policy, PretrainedPolicy) else None)
        needed = disk_bytes(cfg, shape.parameters, shape.trained)
        if free < needed:
            needed = disk_bytes(cfg, shape.parameters, shape.trained, _epochs_done(cfg))
    if free < needed:
        raise ConfigError(
            f"{folder}: {size_text(free)} free, and the run's checkpoints may take {size_text(needed)}. Make room, "
            "name another place in store.url, or set checkpoint.keep_last or epochs lower"
        )
    return f"{size_text(free)} free, at most {size_text(needed)} needed"


def _epochs_done(cfg: RunConfig) -> int:
    return len(noted_epochs(open_store(cfg.store), identify(cfg).name, EpochFigures))


def _most_bytes(cfg: RunConfig) -> int | None:
    """As if all of a small policy were trained; None for others, which differ."""
    if not isinstance(cfg.policy, WarmStartPolicy):
        return None
    width = cfg.policy.hidden_size
    parameters = 13 * cfg.policy.layers * width**2 + 4096 * width
    return disk_bytes(cfg, parameters, parameters)
