"""What must hold after any fault, whatever it was: no process, no leftover, no secret, and a state that is true."""

from __future__ import annotations

import base64
import os
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tasks.runs.notes import run_names, run_overview
from tasks.storage import Store
from tests.written import written_in

CANARIES = {
    name: f"canary-{name.lower().replace('_', '-')}-4f9c1e/+7"
    for name in (
        "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "JUDGE_API_KEY", "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN", "PREFECT_API_KEY", "VLLM_API_KEY", "WANDB_API_KEY",
    )
}  # fmt: skip
"""Marked secrets, by the variables of the environment that hold them."""


@contextmanager
def planted() -> Iterator[None]:
    """Marked secrets in the environment of whatever is started."""
    before = {name: os.environ.get(name) for name in CANARIES}
    os.environ.update(CANARIES)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it may turn up: plain, quoted for an address, in base64."""
    yield secret.encode()
    yield urllib.parse.quote(secret, safe="").encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")[:-1]


def check_nothing_is_left(folder: Path, secrets: Iterable[str]) -> None:
    """No process that works in `folder`, and no secret in any of its files, packed ones unpacked."""
    assert (left := orphans(folder)) == [], f"still there: {left}"
    wanted = [spelling for secret in secrets for spelling in spellings(secret)]
    for path, data in written_in(folder):
        assert not any(spelling in data for spelling in wanted), f"a secret in {path}"


def orphans(folder: Path, seconds: float = 15.0) -> list[str]:
    """Processes whose words or working directory name `folder`, and that do not end in time."""
    deadline = time.monotonic() + seconds
    while (found := list(_processes(str(folder)))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes(folder: str) -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            here = any(folder in word for word in words) or process.cwd().startswith(folder)
            if here and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                yield f"{process.pid} {' '.join(words)[:200]}"
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def check_store(folder: Path, store: Store) -> None:
    """After the end of its runs a local store holds nothing of unfinished work, and says of each run how it ended."""
    left = [path for part in ("scratch", ".tmp") for path in (folder / part).rglob("*") if not path.is_dir()]
    left += [*folder.glob("inputs/.fetch-*"), *folder.glob(".snapshots.git.*")]
    assert left == [], f"left over: {left[:5]}"
    assert list(store.list("unfinished")) == []
    told = {name: run_overview(store, name).status for name in run_names(store)}
    assert set(told.values()) <= {"completed"}, told
