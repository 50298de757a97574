"""Faults of a Prefect server and its worker."""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults.harness import Try


def duplicate_events(t: Try) -> Mapping[str, int]:
    raise NotImplementedError


def server_restarted(t: Try) -> Mapping[str, int]:
    raise NotImplementedError
