"""The fault matrix with a count: `make drills N=200 ONLY=kill_job,10 SEED=1 OUT=...`; see docs/reliability.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import tests.conftest  # noqa: F401  (settings of the environment that all tests share)
from cures_core.errors import ConfigError
from tests.faults.harness import Series
from tests.faults.matrix import MATRIX, chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="make drills", description=__doc__)
    parser.add_argument("--n", type=int, default=20, help="tries of each fault, those made before included")
    parser.add_argument(
        "--only", default="", help="names, rows or forms (part, job, command, stack), by commas, each with =N if wanted"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, help="repeat N tries from this number on, and note nothing")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "cures-drills")
    parser.add_argument("--list", action="store_true", help="say what there is")
    args = parser.parse_args()
    if args.list:
        for fault in MATRIX:
            print(f"{fault.name:20} {fault.form:8} rows {','.join(map(str, fault.rows)):8} {fault.injected}")
        return 0
    series = Series(args.out, args.seed, lambda line: print(line, flush=True))
    try:
        if args.first is not None:
            again = [series.repeat(fault, number, args.first) for fault, number in chosen(args.only, args.n)]
            return int(not all(again))
        print(f"one file a fault in {args.out}", flush=True)
        return int(not series.run(chosen(args.only, args.n)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
