"""What a measurement was taken on: card, driver, versions, and the source it ran."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PACKAGES = ("torch", "transformers", "numpy", "triton", "peft", "trl", "vllm", "deepspeed", "flash-attn", "pydantic")


def describe(device: str) -> dict[str, object]:
    """JSON values. `commit` is what CURES_COMMIT or git says, else empty; `source` (12 hex of SHA-256 over the Python
    files of cures_core and benchmarks) says what ran there too."""
    import torch

    found: dict[str, Any] = {
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "versions": {name: number for name in _PACKAGES if (number := _version(name))},
        # Where only the source tree has travelled git knows nothing.
        "commit": (os.environ.get("CURES_COMMIT") or _output("git", "-C", str(ROOT), "rev-parse", "HEAD"))[:12],
        "source": source_digest(),
    }
    if device != "cpu":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "memory_mib": properties.total_memory // 2**20,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return found


def source_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(p for package in ("cures_core", "benchmarks") for p in (ROOT / package).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
