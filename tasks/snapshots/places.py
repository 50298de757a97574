"""Can snapshots be written where they are to go? Asked before a run does any work."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import StoreUnavailable
from cures_core.files import require_writable
from tasks.snapshots.objects import digest_md5, open_objects
from tasks.snapshots.pointers import Pointers, is_remote


def probe_places(cfg: SnapshotConfig) -> str:
    """In words, where they go (`SnapshotConfig.within`). git's author is this project's own: no identity is needed.

    A repository is asked for its references, which a path that is still to be made has not got; a bucket is given an
    object and asked for it. Raises `ConfigError`, `MissingExtra` (no git) and `StoreUnavailable`.
    """
    assert cfg.repository is not None
    assert cfg.remote is not None
    with tempfile.TemporaryDirectory(prefix="cures-probe-") as folder:
        pointers = Pointers(cfg.repository, Path(folder))
        if not is_remote(cfg.repository):
            require_writable(Path(cfg.repository), "snapshot.repository")
        if pointers.exists() and (is_remote(cfg.repository) or any(Path(cfg.repository).iterdir())):
            pointers.refs("refs/heads/*")
    if cfg.remote.startswith("s3://"):
        _probe_bucket(cfg.remote, cfg.endpoint_url)
    else:
        require_writable(Path(cfg.remote), "snapshot.remote")
    return f"pointers to {cfg.repository}, data to {cfg.remote}"


def _probe_bucket(remote: str, endpoint_url: str | None) -> None:
    objects, data = open_objects(remote, endpoint_url), secrets.token_bytes(16)
    md5 = digest_md5(data)
    objects.write(md5, data)
    try:
        if objects.read(md5) != data:
            raise StoreUnavailable(f"{remote}: does not give back what was written; check the bucket, then try again")
    finally:
        objects.remove(md5)
