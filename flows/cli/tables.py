"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def as_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """Columns in line: the first `texts` ones by their beginning, figures by their end."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for line in (header, *rows):
        padded = zip(line, widths, strict=True)
        cells = [f"{cell:<{width}}" if i < texts else f"{cell:>{width}}" for i, (cell, width) in enumerate(padded)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
