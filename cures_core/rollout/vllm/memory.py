"""Knows which share of a GPU's memory vLLM asks for when it starts."""

from __future__ import annotations

from pathlib import Path

_BESIDE = 2 << 30
"""Bytes for activations, captured steps and libraries."""


def memory_share(folder: Path, kv_cache_gib: int) -> float | None:
    """What the weights in `folder`, the cache and the rest need of the device's memory, 0 to 1; None without CUDA.

    vLLM does not start where less than its `gpu_memory_utilization` is free, although the size of its cache is given;
    by default that is nearly all of a device on which the trainer already is.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return min(1.0, round((weights + (kv_cache_gib << 30) + _BESIDE) / total, 4))
