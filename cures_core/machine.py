"""Which machine this is, and what numbers were computed on: sums differ in their last digits between kinds of
processors, so records say it."""

from __future__ import annotations

import platform
import re
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CPUINFO = Path("/proc/cpuinfo")


@cache
def processor() -> str:
    """The processor's kind, as its maker calls it."""
    text = _CPUINFO.read_text(errors="replace") if _CPUINFO.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def machine_id() -> str:
    """Boot and process namespace: within it, process ids and the monotonic clock mean the same thing."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    if boot.exists() and space.exists():
        return f"{boot.read_text().strip()} {space.readlink()}"
    return socket.gethostname()


def machine_of(device: torch.device, dtype: str, ranks: int | None = None) -> dict[str, str]:
    """processor, device (what `auto` came to), threads or gpu, and dtype of the weights, of this process; with `ranks`
    how many processes like it share the work, since they add up in another order.

    `device` is a torch device.
    """
    import torch

    if device.type == "cuda":
        place = {"gpu": torch.cuda.get_device_name(device)}
    else:
        place = {"threads": str(torch.get_num_threads())}
    shared = {} if ranks is None else {"ranks": str(ranks)}
    return {"processor": processor(), "device": device.type, **place, "dtype": dtype, **shared}


def joined_machines(machines: list[dict[str, str]]) -> dict[str, str]:
    """One description of several machines that shared a work: what differs is told of all."""
    names = dict.fromkeys(name for machine in machines for name in machine)
    return {
        name: " and ".join(dict.fromkeys(machine[name] for machine in machines if name in machine)) for name in names
    }


def built_from() -> dict[str, str]:
    """python, and where this code is a checkout commit, with "changed" where files are not as committed.

    No part of what makes two scores unlike: those are the versions of libraries (`cures_core.jobs.assemble.versions`).
    """
    return dict(_built_from())


@cache
def _built_from() -> dict[str, str]:
    commit = _commit(Path(__file__).resolve().parents[1])
    return {"python": platform.python_version(), **({"commit": commit} if commit else {})}


def _commit(root: Path) -> str:
    """Empty where `root` is no checkout of git, or git is not there."""
    if not (root / ".git").exists():
        return ""
    try:
        head, changed = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + (" changed" if changed.stdout.strip() else "")
