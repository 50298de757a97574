"""Sizes in bytes, as people read them."""

from __future__ import annotations


def size_text(number: float) -> str:
    """`number` bytes in the binary unit that fits: `3.2 MiB`, `1.50 GiB`."""
    if number >= 2**28:
        return f"{number / 2**30:,.2f} GiB"
    return f"{number / 2**20:,.1f} MiB" if number >= 2**18 else f"{number / 2**10:,.1f} KiB"
