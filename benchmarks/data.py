"""What reading a prompt set costs: rows a second for parsing, checks and hashing, on rows made here."""

from __future__ import annotations

import time
from pathlib import Path

from cures_core.config.data import DataConfig
from cures_core.peak_memory import peak_bytes
from cures_core.prompts import PromptSet, load_prompts

_WRITTEN_AT_ONCE = 20_000


def write_rows(path: Path, num: int) -> None:
    """Write `num` short word problems as JSONL, about 110 bytes a row; no two are equal, and none has a defect."""
    with path.open("w", encoding="utf-8") as f:
        for start in range(0, num, _WRITTEN_AT_ONCE):
            numbers = range(start, min(start + _WRITTEN_AT_ONCE, num))
            f.writelines(
                f'{{"problem": "Ann has {i} eggs and buys {i % 97} more. How many eggs has she now?", '
                f'"answer": "{i + i % 97}", "level": "{i % 5}"}}\n'
                for i in numbers
            )


def measure(path: Path, num: int) -> tuple[PromptSet, dict[str, float]]:
    """(the set, figures) of reading a file of `write_rows` in this one process, copies and contradictions included."""
    wall, processor = time.perf_counter(), time.process_time()
    loaded = load_prompts(DataConfig(path=str(path)))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return loaded.prompts, {
        "rows": num,
        "kept": len(loaded.prompts),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "read_s": round(wall, 2),
        "rows_per_s": round(num / wall),
        "rows_per_processor_s": round(num / processor),
        "memory_mib": peak_bytes() >> 20,
    }
