"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Time limits of single examples say more about the machine's other work than about the code.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

# Verifiers and strategies of tests, and the rivals of the benchmarks; here and in the processes they start.
os.environ["CURES_PLUGINS"] = "tests.*,benchmarks.curriculum.rivals.*"
os.environ["DVC_NO_ANALYTICS"] = "true"  # tests call `dvc` as a user would
