"""Knows which verifier processes this test process has."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> list[str]:
    """Our verifier children that exist in any state, zombies too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = stat.with_name("cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid() and (fields[0] == "Z" or b"cures_core.rewards.child" in command):
            found.append(stat.parent.name)
    return found
