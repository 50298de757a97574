"""Published curricula as plug-ins, by the seam that users have for strategies of their own (docs/curriculum.md).

[curriculum]
type = "custom"
strategy = "benchmarks.curriculum.rivals.mopps:Mopps"
options = {target = 0.5}
"""

from __future__ import annotations

import os

from cures_core.plugins import VARIABLE

PLUGINS = "benchmarks.curriculum.*"
"""What the environment of a process has to allow: the rivals, and what worlds judge by."""


def allow() -> None:
    """Let this process, and those that it starts, run both. For the benchmarks' own commands."""
    known = [entry for entry in os.environ.get(VARIABLE, "").split(",") if entry]
    if PLUGINS not in known:
        os.environ[VARIABLE] = ",".join([*known, PLUGINS])
