"""Prompt files for tests: rows in, a path and its configuration out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cures_core.config.data import DataConfig
from cures_core.prompts import Loaded, load_prompts


def jsonl(path: Path, rows: Iterable[Mapping[str, Any] | str | bytes]) -> Path:
    """Write rows: mappings as JSON, strings and bytes as they are."""
    lines = [
        row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else json.dumps(row).encode()
        for row in rows
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def loaded(folder: Path, rows: Iterable[Mapping[str, Any] | str | bytes], **options: Any) -> Loaded:
    """What `load_prompts` makes of rows."""
    check = {name: options.pop(name) for name in ("judge", "count_tokens") if name in options}
    return load_prompts(DataConfig(path=str(jsonl(folder / "set.jsonl", rows)), **options), **check)


def reasons(result: Loaded) -> dict[int, set[str]]:
    """Reason codes by line."""
    found: dict[int, set[str]] = {}
    for defect in (*result.quarantine, *result.warnings):
        found.setdefault(defect.line, set()).add(defect.reason)
    return found
