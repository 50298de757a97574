"""Figures that may have no value: a mean or a share of nothing is left out, never told as 0."""

from __future__ import annotations

import math


def ratio(total: float, count: float) -> float | None:
    """total / count; None where there is nothing to divide by."""
    return total / count if count else None


def finite(value: float) -> float | None:
    """The value; None where it is none, as a mean over what is not finite."""
    return value if math.isfinite(value) else None


def valued(**figures: float | None) -> dict[str, float]:
    """Those that have a value, in their order."""
    return {name: value for name, value in figures.items() if value is not None}
