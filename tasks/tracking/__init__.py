"""Experiment trackers as listeners: they get what stages emit, and can neither change nor end a run."""

from __future__ import annotations

from tasks.tracking.listener import tracking

__all__ = ["tracking"]
