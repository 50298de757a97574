"""What was recorded, how it is compared, and how it is written anew.

A change that alters results is seen here: the tests beside this file compare what is computed now with what was when it
was last recorded, within a tolerance that holds over processors. Such a change writes the files anew (`make record`,
which is `python -m tests.recorded`) and says so in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

RELATIVE, ABSOLUTE = 1e-4, 5e-6
"""How far a figure may be from the recorded one. Processors add up in different orders. What that does was measured
with kernels that torch and MKL have for other ones (ATEN_CPU_CAPABILITY=default, avx2, avx512; MKL_CBWR=COMPATIBLE,
AVX2; two threads): no drawn token and no count differed, figures by 1e-6 of themselves or by 5e-7 (gaps between the
log-probabilities of sampler and trainer, which are nothing but rounding). This leaves room for more, and is far below
what one per cent of the learning rate does."""

_RENEW = """
Results are not those that were recorded. Where that is not intended, it is a fault. Where it is: `make record` writes
them anew, and CHANGELOG.md says what users will see, since a run that is repeated no longer gives its numbers.
"""


def recorded(name: str) -> dict[str, Any]:
    """What was recorded under this name."""
    found: dict[str, Any] = json.loads(_place(name).read_bytes())
    return found


def record(name: str, figures: dict[str, Any]) -> None:
    """Write it anew, one line for each entry of the second level."""
    lines = [
        f" {json.dumps(key)}: [\n  " + ",\n  ".join(json.dumps(row, sort_keys=True) for row in rows) + "\n ]"
        for key, rows in sorted(figures.items())
    ]
    _place(name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def assert_as_recorded(name: str, now: dict[str, Any]) -> None:
    """Fails with the figures that differ, and with what is to be done about it."""
    found = differences(now, recorded(name))
    assert not found, "\n".join([_RENEW, *found[:20], f"{len(found)} figures differ"])


def differences(now: Any, recorded: Any, place: str = "") -> list[str]:
    """Where two curves differ, in words: "steps.3.loss: 0.25, recorded 0.5". Whole numbers and texts must be equal."""
    if isinstance(now, dict) and isinstance(recorded, dict):
        keys = sorted({*now, *recorded})
        return [d for k in keys for d in differences(now.get(k), recorded.get(k), f"{place}.{k}".lstrip("."))]
    if isinstance(now, list) and isinstance(recorded, list) and len(now) == len(recorded):
        return [d for i, pair in enumerate(zip(now, recorded, strict=True)) for d in differences(*pair, f"{place}.{i}")]
    fraction = isinstance(recorded, float) and not recorded.is_integer()
    if fraction and isinstance(now, float) and math.isclose(now, recorded, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return []
    return [] if now == recorded else [f"{place}: {json.dumps(now)}, recorded {json.dumps(recorded)}"]


def _place(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.json")


def digest() -> str:
    """Of all that is recorded, 12 hex digits."""
    files = sorted(Path(__file__).parent.glob("*.json"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
