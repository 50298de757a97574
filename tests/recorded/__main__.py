"""Record all anew."""

from __future__ import annotations

from tests.recorded import run, strategies
from tests.recorded.recording import record

record("run", run.curve())
record("strategies", strategies.traces())
