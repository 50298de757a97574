"""What was published from outside of the pipeline, found again by its name.

In the store lie `published/<name>/<k>/` posterior.parquet, prompts.parquet, and about.json, which is written last.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from pydantic import JsonValue

from cures_core.config.base import Strict
from cures_core.config.snapshot import SnapshotConfig
from cures_core.curriculum import Posterior, load_posterior
from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.prompts import PromptSet
from tasks.storage import Store
from tasks.storage.values import decode_value

PARTS = ("posterior.parquet", "prompts.parquet")
ABOUT = "about.json"
REMEDY = "To write it again: publish the same posterior again (cures posterior publish)"


class About(Strict):
    """`published/<name>/<k>/about.json`."""

    snapshot: SnapshotConfig
    """Where its snapshot lies."""
    lineage: dict[str, JsonValue]
    """What the snapshot was published with."""
    sha256: dict[str, str]
    """Digests of the files beside it, by name."""


def published_names(store: Store) -> list[str]:
    """Names under which something was published."""
    return sorted({key.split("/")[1] for key in store.list("published")})


def published_numbers(store: Store, name: str) -> list[int]:
    """Numbers of the posteriors that were published under a name, ascending."""
    return _numbers(store, name, re.escape(ABOUT))


def begun_numbers(store: Store, name: str) -> list[int]:
    """The same, with those of which something is there though not what is written last."""
    return _numbers(store, name, ".+")


def _numbers(store: Store, name: str, file: str) -> list[int]:
    found = (re.fullmatch(rf"published/{re.escape(name)}/(\d+)/{file}", key) for key in store.list(f"published/{name}"))
    return sorted({int(match[1]) for match in found if match})


def load_published(store: Store, name: str, number: int | None) -> tuple[int, PromptSet, Posterior]:
    """(number, prompts, posterior) of what was published under a name; the latest where `number` is None.

    Raises `ConfigError` where there is none, `CorruptArtifact` where the store's copy is damaged.
    """
    numbers = published_numbers(store, name)
    k = max(numbers, default=0) if number is None else number
    if k not in numbers:
        raise ConfigError(f"no posterior {k} was published under {name}; there are {numbers or 'none'}")
    with tempfile.TemporaryDirectory(prefix="cures-published-") as folder:
        for part in PARTS:
            (Path(folder) / part).write_bytes(published_file(store, name, k, part))
        prompts = PromptSet.read_parquet(Path(folder) / "prompts.parquet")
        return k, prompts, load_posterior(Path(folder) / "posterior.parquet")


def published_file(store: Store, name: str, number: int, part: str) -> bytes:
    """A file of a published posterior, checked. Raises `CorruptArtifact`."""
    place = f"{published_place(name, number)}/{part}"
    about, data = published_about(store, name, number), store.get(place)
    if data is None:
        raise CorruptArtifact(f"{place}: is gone. {REMEDY}")
    if hashlib.sha256(data).hexdigest() != about.sha256.get(part):
        raise CorruptArtifact(f"{place}: has changed. {REMEDY}")
    return data


def published_about(store: Store, name: str, number: int) -> About:
    """What is said of a published posterior. Raises `CorruptArtifact`, also where a publication was broken off."""
    place = f"{published_place(name, number)}/{ABOUT}"
    data = store.get(place)
    if data is None:
        raise CorruptArtifact(f"{place}: is gone, or was never written. {REMEDY}")
    return decode_value(About, data, place, REMEDY)


def published_place(name: str, number: int) -> str:
    """Where the store keeps a published posterior."""
    return f"published/{name}/{number}"


def published_places(store: Store, name: str) -> SnapshotConfig | None:
    """Where the snapshots of a published posterior lie; None where nothing was published under this name.

    Raises `CorruptArtifact`.
    """
    numbers = published_numbers(store, name)
    return published_about(store, name, numbers[-1]).snapshot if numbers else None
