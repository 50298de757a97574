"""LoRA adapters in a folder of their own (peft): the base they belong to, whether they fit it, and both in memory."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cures_core.config.training import LoraConfig
from cures_core.errors import ConfigError, MissingInput
from cures_core.failures import machine_failure
from cures_core.names import too_long, unprintable

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_SHOWN = 5


def holds_adapters(folder: str | Path) -> bool:
    """Is it a folder of adapters, not of a whole model?"""
    return (Path(folder) / CONFIG).is_file()


def base_name(folder: Path, named: str | None = None) -> str:
    """Folder or hub id of the model that adapters belong to: `named`, or what they say themselves.

    Raises `ConfigError` where nobody says, or what is said is no whole model, and `MissingInput` where there are no
    adapters in the folder.
    """
    if not (folder / WEIGHTS).is_file():
        raise MissingInput(f"{folder}: {CONFIG} without {WEIGHTS}. Save the adapters as safetensors, or take it away")
    try:
        own = json.loads((folder / CONFIG).read_bytes()).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{folder / CONFIG}: damaged: {error}. Fetch it again") from error
    name = named or own
    if not name:
        raise ConfigError(f"{folder}: its {CONFIG} names no base model; set policy.base")
    if not isinstance(name, str) or unprintable(name) or too_long(name):
        raise ConfigError(
            f"{folder / CONFIG}: base_model_name_or_path: {ascii(name)[:80]} is no folder and no model of the hub; set "
            "policy.base"
        )
    beside = folder / name
    base = str(beside) if not Path(name).is_dir() and beside.is_dir() else name
    if holds_adapters(base):
        raise ConfigError(
            f"{folder}: the base model {base} is a folder of adapters too. Set policy.base to a whole model"
        )
    return base


def require_adapters(folder: Path, model: PreTrainedModel) -> None:
    """Raises `ConfigError` where the tensors in the folder are not those of its configuration on `model` (which may be
    without memory), `MissingInput` where there are none."""
    import torch
    from peft import get_peft_model

    with torch.device("meta"):
        _require_tensors(folder, get_peft_model(model, _config(folder)))


def targeted(model: PreTrainedModel, targets: Collection[str]) -> list[Any]:
    """The layers of a model (which may be without memory) that `lora.targets` name, as peft takes them.

    Raises `ConfigError` for a name that no layer has. Of the default ones, which are those of many models, one will do.
    """
    layers = {name: layer for name, layer in model.named_modules() if _is_matrix(getattr(layer, "weight", None))}
    found = {target: [name for name in layers if name == target or name.endswith(f".{target}")] for target in targets}
    unknown = [target for target, names in found.items() if not names]
    usual = set(targets) == set(LoraConfig.model_fields["targets"].default)
    if unknown and not (usual and len(unknown) < len(found)):
        there = sorted({name.rpartition(".")[2] for name in layers})
        raise ConfigError(
            f"lora.targets: no layer of the policy is called {', '.join(unknown)}; there are {', '.join(there)}. Name "
            "those that are to get an adapter"
        )
    return [layers[name] for name in dict.fromkeys(name for names in found.values() for name in names)]


def _is_matrix(weight: Any) -> bool:
    return weight is not None and weight.ndim == 2


def require_alike(folder: Path, lora: LoraConfig) -> None:
    """Raises `ConfigError` where adapters are not what `training.lora` says, or cannot be trained further."""
    held = _config(folder)
    if held.modules_to_save or held.bias != "none" or held.use_dora:
        raise ConfigError(
            f"{folder}: the adapters hold more than low-rank updates (modules_to_save, biases or magnitudes), which "
            "cannot be trained further here. Set policy.adapters = 'merge'"
        )
    said = {
        "rank": (held.r, lora.rank),
        "alpha": (held.lora_alpha, lora.alpha),
        "targets": (_names(held.target_modules), sorted(lora.targets)),
    }
    if other := {name: pair for name, pair in said.items() if pair[0] != pair[1]}:
        shown = "; ".join(f"{name} is {there}, training.lora.{name} {here}" for name, (there, here) in other.items())
        raise ConfigError(
            f"{folder}: the adapters are not what training.lora says: {shown}. Set training.lora to what they are"
        )


def with_adapters(model: PreTrainedModel, folder: Path, *, train: bool) -> PeftModel:
    """`model` under the adapters of a folder, to be trained or not. Every tensor is accounted for."""
    from peft import get_peft_model
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    cfg = _config(folder)
    cfg.lora_dropout = 0.0  # rollouts are made without it
    cfg.inference_mode = not train
    adapted: Any = get_peft_model(model, cfg)
    _require_tensors(folder, adapted)
    set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS))
    result: PeftModel = adapted
    return result


def _config(folder: Path) -> Any:
    from peft import LoraConfig as PeftLora
    from peft import PeftConfig

    try:
        cfg = PeftConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder / CONFIG}: peft does not take it: {error}") from error
    if not isinstance(cfg, PeftLora):
        raise ConfigError(f"{folder}: adapters of type {cfg.peft_type}, not LoRA. Merge them, and name the new folder")
    cfg.base_model_name_or_path = None  # it may lie elsewhere by now, which peft would warn of
    return cfg


def _require_tensors(folder: Path, adapted: Any) -> None:
    from peft.utils import get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    # Else peft looks on the hub for a base whose vocabulary might have been another.
    held = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    wanted = {name: tuple(value.shape) for name, value in held.items()}
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="np") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        fault = machine_failure(error, path) or ConfigError(f"{path}: damaged: {error}. Fetch it again")
        raise fault from error
    faults = {
        "the file lacks": sorted(set(wanted) - set(found)),
        "the base model has no place for": sorted(set(found) - set(wanted)),
        "of another shape:": sorted(name for name in set(found) & set(wanted) if found[name] != wanted[name]),
    }
    said = [f"{what} {', '.join(names[:_SHOWN])}" for what, names in faults.items() if names]
    if said:
        raise ConfigError(f"{folder}: adapters and base model do not belong together: {'; '.join(said)}")


def _names(targets: Collection[str] | str | None) -> list[str] | str:
    return targets if isinstance(targets, str) else sorted(targets or ())
