"""Knows which completions of a suite were made and judged before: by policy, suite and settings, across runs.

An entry holds counts of every item, not scores: other intervals, or a suite beside it, need no new completion.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cures_core.config.evaluation import EvaluatedSuite
from cures_core.files import canonical_json, digest_json, write_atomic
from cures_core.jobs.assemble import versions
from tasks.storage import Store

SCHEMA = 2

_log = logging.getLogger(__name__)


def rows_key(suite: EvaluatedSuite, inputs: Mapping[str, Any], seed: int) -> str:
    """Key of a suite's completions: everything they and their verdicts depend on.

    `inputs` are those of the evaluation's stage, of which the digest of this suite counts and no other's.
    """
    read = ("rollout", "reward", "device", "policy", "weights", "lora")
    return digest_json(
        {
            "schema": SCHEMA,
            "suite": suite.model_dump(mode="json", include=_OF_COMPLETIONS),
            "items": inputs["suites"][suite.name],
            "seed": seed,
            "versions": versions(),
            **{name: inputs[name] for name in read},
        }
    )


# The name is part of the completions' seed. Columns and rules of the file are in the digest of its items.
_OF_COMPLETIONS = {"name", "samples", "temperature", "greedy", "limit", "prompt_format", "max_new_tokens", "reward"}


def recall(store: Store, key: str, path: Path) -> bool:
    """Write the rows of an earlier evaluation to `path`; False where there are none. Damaged ones are forgotten."""
    data = store.get(_place(key))
    if data is None:
        return False
    digest, _, rows = data.partition(b"\n")
    if hashlib.sha256(rows).hexdigest().encode() != digest:
        _log.warning("%s: not what was written; evaluating again", _place(key))
        store.delete(_place(key))
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, rows)
    return True


def remember(store: Store, key: str, path: Path) -> None:
    """Keep the rows in `path`; whoever was first stays."""
    rows = canonical_json(json.loads(path.read_bytes()))
    store.put_if_absent(_place(key), hashlib.sha256(rows).hexdigest().encode() + b"\n" + rows)


def part_key(key: str, shard: int, shards: int) -> str:
    """Key of the rows of one shard of a suite; gone when those of the whole suite are there."""
    return f"parts/{key}/{shard}-of-{shards}"


def forget_parts(store: Store, key: str) -> None:
    """Remove the shards of a suite whose rows are kept as a whole."""
    store.delete(_place(f"parts/{key}"))


def _place(key: str) -> str:
    return f"evaluations/{key}"
