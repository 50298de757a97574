"""What the trainer does when memory runs out."""

from __future__ import annotations

MAX_HALVINGS = 3


def release() -> None:
    """Give cached blocks back to the device, so that smaller ones can be cut from them."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
