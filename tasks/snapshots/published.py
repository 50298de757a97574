"""What was published from outside of the pipeline, found again by its name.

In the store lie `published/<name>/<k>/` posterior.parquet, prompts.parquet, and about.json, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path

from cures_core.config.snapshot import SnapshotConfig
from cures_core.curriculum import Posterior, load_posterior
from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.prompts import PromptSet
from tasks.storage import Store

PARTS = ("posterior.parquet", "prompts.parquet")


def published_names(store: Store) -> list[str]:
    """Names under which something was published."""
    return sorted({key.split("/")[1] for key in store.list("published")})


def published_numbers(store: Store, name: str) -> list[int]:
    """Numbers of the posteriors that were published under a name, ascending."""
    found = (
        re.fullmatch(rf"published/{re.escape(name)}/(\d+)/about\.json", key) for key in store.list(f"published/{name}")
    )
    return sorted(int(match[1]) for match in found if match)


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
    place = f"published/{name}/{number}"
    about, data = store.get(f"{place}/about.json"), store.get(f"{place}/{part}")
    if about is None or data is None or hashlib.sha256(data).hexdigest() != json.loads(about)["sha256"][part]:
        raise CorruptArtifact(f"{place}/{part}: is gone or has changed; publish the same posterior again to restore it")
    return data


def published_places(store: Store, name: str) -> SnapshotConfig | None:
    """Where the snapshots of a published posterior lie; None where nothing was published under this name."""
    numbers = published_numbers(store, name)
    data = store.get(f"published/{name}/{numbers[-1]}/about.json") if numbers else None
    return None if data is None else SnapshotConfig.model_validate(json.loads(data)["snapshot"])
