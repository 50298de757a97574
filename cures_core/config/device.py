"""Where the numbers are computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cures_core.config.base import Strict


class DeviceConfig(Strict):
    """Device and threads of the processes that hold a policy."""

    type: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA where there is one."""
    threads: int = Field(default=1, ge=1)
    """Torch threads of a process on CPU. Part of the result: another number sums in another order."""
