"""Settings of all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Time limits of single examples say more about the machine's other work than about the code.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

# Verifiers and strategies of tests, and the rivals of the benchmarks; here and in the processes they start.
os.environ["CURES_PLUGINS"] = "tests.*,benchmarks.curriculum.rivals.*"
os.environ["DVC_NO_ANALYTICS"] = "true"  # tests call `dvc` as a user would

# What is started in the background of a script ignores Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_LONGEST = ("end_to_end/", "faults/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin first: at the end one worker would be left alone with them."""
    items.sort(key=lambda item: not item.nodeid.startswith(tuple(f"tests/{folder}" for folder in _LONGEST)))
