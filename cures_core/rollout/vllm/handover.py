"""Knows how a policy's current weights become a folder that another process can load."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cures_core.errors import EngineFailed
from cures_core.files import digest_json
from cures_core.machine import machine_id
from cures_core.policy.accounting import differing, shapes_in, unaccounted
from cures_core.policy.loading import is_adapted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "cures-weights-"


def merged_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Weights by the names of the plain `transformers` model; peft adapters are added to copies of their layers.

    The model itself is not touched: peft's own merging and unmerging would leave rounding in the base weights.
    """
    if not is_adapted(model):
        return {name: value.detach() for name, value in model.state_dict().items()}
    plain: Any = model.get_base_model()
    state = {}
    for name, value in plain.state_dict().items():
        if ".lora_" in name:
            continue
        owner, layer, rest = name.rpartition(".base_layer.")
        merged = value.detach()
        if layer and rest == "weight":
            adapted = plain.get_submodule(owner)
            merged = merged.clone()
            for adapter in adapted.active_adapters:
                merged += adapted.get_delta_weight(adapter).detach().to(merged.dtype)
        state[f"{owner}.{rest}" if layer else name] = merged
    return state


class Handover:
    """A folder that always holds one whole copy of the weights. `where` None: shared memory or temporary files.

    Its name tells the machine and the process that own it, so that the next process there can delete what a killed one
    left in memory; `where` may be shared with other machines.
    """

    def __init__(self, where: Path | None) -> None:
        if where is not None:
            where.mkdir(parents=True, exist_ok=True)
        parent = where or (_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
        parent = parent or Path(tempfile.gettempdir())
        _sweep(parent)
        self._root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_here()}-{os.getpid()}-", dir=parent))
        self._count = 0
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self.folder = self._root

    def put(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
        """Write the weights as a Hugging Face folder; the earlier one goes only then.

        Raises `EngineFailed` where the folder does not hold every tensor of the model, in its shape, and no other: the
        engine would go on with what it has had of it, and a fingerprint need not show it.
        """
        self._count += 1
        folder, earlier = self._root / f"{self._count:06d}", self.folder
        plain: Any = model.get_base_model() if is_adapted(model) else model
        # By itself transformers saves on rank 0 alone; here every rank has an engine that waits for its own folder.
        plain.should_save_on_this_rank = lambda is_main_process: is_main_process
        try:
            plain.save_pretrained(folder, state_dict=merged_state(model))
        finally:
            del plain.should_save_on_this_rank
        tokenizer.save_pretrained(folder)
        self._account(folder)
        self.folder = folder
        if earlier != self._root:
            shutil.rmtree(earlier, ignore_errors=True)
        return folder

    def _account(self, folder: Path) -> None:
        """By the model's own description, the first time; what is handed over later is then like the first."""
        found = shapes_in(folder)
        faults = unaccounted(folder) if self._shapes is None else differing(found, self._shapes)
        if faults:
            shutil.rmtree(folder, ignore_errors=True)
            raise EngineFailed(f"weight sync: what was to be handed over is not the whole policy: {faults}")
        self._shapes = found

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Delete the folders of this machine's processes that are gone."""
    begins = f"{_PREFIX}{_here()}-"
    for folder in parent.glob(f"{begins}*"):
        owner = folder.name.removeprefix(begins).partition("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _here() -> str:
    """Where process ids mean what they mean here, in hex digits."""
    return digest_json(machine_id())[:16]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's process
        return True
    return True
