"""Where the numbers are computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Result


class DeviceConfig(Strict):
    """Device and threads of the processes that hold a policy."""

    type: Result[Literal["auto", "cpu", "cuda"]] = "auto"
    """`auto` takes CUDA where there is one. Which it was is noted with every record and score."""
    threads: Result[int] = Field(default=1, ge=1)
    """Torch threads of a process on CPU. Part of the result: another number sums in another order."""
