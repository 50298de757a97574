"""What running out of memory looks like, on a GPU and on a CPU, and what can be given back."""

from __future__ import annotations

MAX_HALVINGS = 3


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's error, Python's, and the plain RuntimeError of torch's CPU allocator."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release() -> None:
    """Give cached blocks back to the device, so that smaller ones can be cut from them."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
