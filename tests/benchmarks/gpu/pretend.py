"""A unit of work that does what its spec says: `python -m tests.benchmarks.gpu.pretend [KIND] SPEC.json OUT.json`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from cures_core.files import write_atomic

if __name__ == "__main__":
    *_, spec_file, out = sys.argv[1:]
    spec = json.loads(Path(spec_file).read_bytes())
    with Path(spec["trace"]).open("a") as trace:
        trace.write(f"{spec['name']} begins{' with ' + spec['policy'] if 'policy' in spec else ''}\n")
    if "says" in spec:
        print(spec["says"])
    if "leaves_behind" in spec:
        child = subprocess.Popen(["sleep", "600"])
        Path(f"{spec['trace']}.child").write_text(str(child.pid))
    for value in spec.get("values", []):
        result = {"value": value, "former": spec.get("former"), "limit_s": spec["limit_s"], "done": False}
        result |= {"arm": {"policy": spec.get("policy")}}
        write_atomic(Path(out), json.dumps(result).encode())
    time.sleep(spec.get("sleep", 0.0))
    if "fails" in spec:
        raise SystemExit(spec["fails"])
    write_atomic(Path(out), json.dumps({**result, "done": True}).encode())
    with Path(spec["trace"]).open("a") as trace:
        trace.write(f"{spec['name']} ends\n")
