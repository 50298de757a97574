"""The store: records, files, pointers and leases, in a folder or on S3."""

from __future__ import annotations

import functools

from cures_core.config.storage import StoreConfig
from tasks.storage.base import Store
from tasks.storage.local import LocalStore
from tasks.storage.s3 import S3Store

__all__ = ["LocalStore", "S3Store", "Store", "open_store"]


def open_store(cfg: StoreConfig) -> Store:
    """The store that the configuration names.

    Raises `ConfigError` for an S3 server that ignores conditional writes, or that refuses; `StoreUnavailable`.
    """
    if cfg.url.startswith("s3://"):
        return _open_s3(cfg.url, cfg.folder, cfg.endpoint_url)
    return LocalStore(cfg.url)


@functools.cache
def _open_s3(url: str, folder: str, endpoint_url: str | None) -> S3Store:
    """One client a process, asked once whether its server can be trusted."""
    store = S3Store(url, f"{folder}/cache", endpoint_url)
    store.check_conditional_writes()
    return store
