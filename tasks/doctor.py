"""What this machine has of what the pipeline may need, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from cures_core.config.base import Strict
from cures_core.config.rewards import CodeConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import CuresError, ServerUnavailable
from cures_core.extras import MODULES, missing_modules, to_type
from cures_core.failures import failure_of
from cures_core.rewards.code import require_confinement
from tasks.prefect_api import answers
from tasks.storage import open_store

_LEAST_FREE_GIB = 2.0
_PYTHONS = ("3.11", "3.12", "3.13")
_FOR_EVERY_RUN = ("train", "pipeline")


class Finding(Strict):
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "missing", "optional", "unknown"]
    """`missing`: runs will fail; `optional`: only some configurations need it; `unknown`: it cannot be said before what
    else is missing is there."""
    found: str
    """What is there."""
    remedy: str = ""
    """How to get it."""


def examine(store: StoreConfig) -> list[Finding]:
    """All findings, required things first."""
    return [
        _python(),
        *_commands(),
        *_extras(),
        *_device(),
        _sandbox(),
        _store(store),
        _disk(store),
        _prefect(),
    ]


def _python() -> Finding:
    ok = ".".join(platform.python_version_tuple()[:2]) in _PYTHONS
    return Finding(
        name="python",
        status="ok" if ok else "missing",
        found=platform.python_version(),
        remedy="" if ok else f"install Python {', '.join(_PYTHONS)}: the locked versions are for these",
    )


def _commands() -> Iterator[Finding]:
    for command, status, remedy in (
        ("git", "missing", "apt-get install git"),
        ("chromium", "optional", "apt-get install chromium, for the browser tests"),
    ):
        path = shutil.which(command)
        yield Finding(
            name=command,
            status="ok" if path else status,  # type: ignore[arg-type]
            found=path or "not on PATH",
            remedy="" if path else remedy,
        )


def _device() -> Iterator[Finding]:
    """What torch computes on; nothing where it is not installed, which the extra `train` says."""
    if missing_modules("train"):
        return
    import torch

    cores = len(os.sched_getaffinity(0))
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding(name="device", status="ok", found=f"torch {torch.__version__}, {names}")
        return
    found = f"torch {torch.__version__}, {cores} cores, no CUDA device"
    yield Finding(
        name="device", status="optional", found=found, remedy="enough for small models; large ones need a GPU"
    )


def _sandbox() -> Finding:
    """Whether programs of completions can be confined, by running one."""
    try:
        return Finding(name="sandbox", status="ok", found=require_confinement(CodeConfig()))
    except CuresError as error:
        return Finding(name="sandbox", status="optional", found=str(error), remedy="only reward.type = 'code' needs it")


def probe_store(cfg: StoreConfig) -> str:
    """Write to a store, and remove it again. Raises what a store raises."""
    if "://" not in cfg.url:
        Path(cfg.url).mkdir(parents=True, exist_ok=True)  # what refuses this names the folder, not the probe in it
    store = open_store(cfg)
    key = f"probes/doctor-{os.getpid()}"
    store.put(key, b"1")
    store.delete(key)
    return f"{cfg.url}: written to and read"


def _store(cfg: StoreConfig) -> Finding:
    return _tried("store", lambda: probe_store(cfg), "see the message; credentials come from AWS_* variables")


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk on which a folder lies, or will lie."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(place).free


def _disk(cfg: StoreConfig) -> Finding:
    free = free_bytes(Path(cfg.folder)) / 2**30
    ok = free >= _LEAST_FREE_GIB
    remedy = "" if ok else f"checkpoints need room: have at least {_LEAST_FREE_GIB:g} GiB free, or set store.url"
    return Finding(name="disk", status="ok" if ok else "missing", found=f"{free:.1f} GiB free", remedy=remedy)


def _prefect() -> Finding:
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Finding(
            name="prefect", status="optional", found="no server: runs start a temporary one", remedy="cures up"
        )

    return _tried("prefect", lambda: probe_prefect(url), "start the server, or unset PREFECT_API_URL")


def probe_prefect(url: str) -> str:
    """Raises `ServerUnavailable` where no Prefect server answers at `url`."""
    if not answers(url):
        raise ServerUnavailable(f"{url}: no healthy server answers")
    return url


def _extras() -> Iterator[Finding]:
    for extra, modules in MODULES.items():
        if missing := missing_modules(extra):
            status: Literal["missing", "optional"] = "missing" if extra in _FOR_EVERY_RUN else "optional"
            absent = "not installed" if len(missing) == len(modules) else f"without {', '.join(missing)}"
            yield Finding(name=extra, status=status, found=absent, remedy=to_type(extra))
        else:
            yield Finding(name=extra, status="ok", found=_version(modules[0]))


def _version(module: str) -> str:
    for name in importlib.metadata.packages_distributions().get(module, ()):
        return f"{name} {importlib.metadata.version(name)}"
    return "installed"


def _tried(name: str, probe: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(name=name, status="ok", found=probe())
    except (CuresError, OSError) as error:
        return Finding(name=name, status="missing", found=str(failure_of(error)), remedy=remedy)
