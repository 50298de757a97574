"""Knows which verifier processes this test process has."""

from __future__ import annotations

import os
import time
from pathlib import Path


def workers() -> list[str]:
    """Process ids of the workers of our pools, in any state, zombies too."""
    found = _processes()
    return [pid for pid, parent in found.items() if found.get(parent) == str(os.getpid())]


def everything() -> list[str]:
    """The same with the templates that workers are forked from."""
    return list(_processes())


def _processes() -> dict[str, str]:
    """Process id -> parent of our verifier processes and of theirs."""
    every: dict[str, tuple[str, bool]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = stat.with_name("cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        every[stat.parent.name] = fields[1], fields[0] == "Z" or b"cures_core.rewards.child" in command
    own = {pid for pid, (parent, ours) in every.items() if ours and parent == str(os.getpid())}
    return {pid: parent for pid, (parent, ours) in every.items() if pid in own or (ours and parent in own)}


def limited(pid: str, megabytes: int, seconds: float = 30.0) -> bool:
    """Does the worker set this limit of its address space in time? One that is still starting has not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
            if line.startswith("Max address space") and f" {megabytes << 20} " in line:
                return True
        time.sleep(0.05)
    return False
