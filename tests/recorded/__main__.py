"""Record all anew."""

from __future__ import annotations

import os

from tests.recorded import run, strategies
from tests.recorded.recording import digest, record

os.environ["CURES_PLUGINS"] = "tests.*,benchmarks.*"  # the verifier of the recorded run, the rivals

record("run", run.curve())
record("strategies", strategies.traces(strategies.CONFIGS))
record("rivals", strategies.traces(strategies.RIVALS))
print(f"CHANGELOG.md has to name it: Recorded runs: `{digest()}`")
