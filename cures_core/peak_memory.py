"""Peak resident memory of this process."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes.

    On Linux that of the program itself: what `getrusage` says there starts at the size of the process that started it.
    """
    status = _STATUS.read_text() if _STATUS.exists() else ""
    if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
