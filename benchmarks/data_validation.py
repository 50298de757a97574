"""What reading a prompt set costs with validation: reading in the core, then the expectations that validation adds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.data import measure, write_rows
from cures_core.config.data import DataConfig
from tasks.validation.expectations import run_expectations


def measure_data(num: int) -> dict[str, float]:
    """Figures of `benchmarks.data.measure`, seconds of Great Expectations, and rows a second of both together."""
    with tempfile.TemporaryDirectory(prefix="cures-bench-") as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, num)
        prompts, figures = measure(path, num)
        wall, processor = time.perf_counter(), time.process_time()
        outcome = run_expectations(prompts.table.to_pandas(), Path(folder), DataConfig(path=str(path)))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    both = num / figures["rows_per_processor_s"] + processor
    return {
        **figures,
        "expectations_s": round(wall, 2),
        "expectations_processor_s": round(processor, 2),
        "expectations_met": outcome["success"],
        "rows_per_s_with_expectations": round(num / (figures["read_s"] + wall)),
        "rows_per_processor_s_with_expectations": round(num / both),
    }
