"""Draws which record was made from which: from top to bottom, in rows by how many records lie before one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_CHARACTER, _PADDING, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 7, 16, 26, 14, 30, 8
"""In pixels; a character of the widest kind that names of records have."""


def lineage_graph(names: Mapping[str, str], edges: Sequence[tuple[str, str]]) -> str:
    """SVG of the records `names` (id to what is written into the box, in order) with arrows from parent to child.

    Edges that name other records are left out. A record stands one row below its last parent. Boxes are as wide as the
    longest text, so that nothing is cut.
    """
    if not names:
        return ""
    known = [(parent, child) for parent, child in edges if parent in names and child in names]
    place = _places(list(names), known)
    box = _CHARACTER * max(map(len, names.values())) + _PADDING
    columns = 1 + max(x for x, _ in place.values())
    rows = 1 + max(y for _, y in place.values())
    width = columns * (box + _GAP_X) - _GAP_X + 2 * _EDGE
    height = rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _EDGE
    title = f"{len(names)} records of the run and what each was made from"
    corner = {name: (_EDGE + x * (box + _GAP_X), _EDGE + y * (_HEIGHT + _GAP_Y)) for name, (x, y) in place.items()}
    parts = [
        f'<svg class="graph" viewBox="0 0 {width} {height}" style="width:{width}px;min-width:{width * 4 // 5}px" '
        f'role="img" aria-label="{title}"><title>{title}</title>'
    ]
    parts += [_arrow(corner[parent], corner[child], box) for parent, child in known]
    parts += [_box(corner[name], text, box) for name, text in names.items()]
    return "".join([*parts, "</svg>"])


def _places(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """(column, row) of each record. Records of a run are listed parents first, so one pass finds all rows; a record
    stands under its last parent where that place is free, so that the chain of epochs is a straight line."""
    parents: dict[str, list[str]] = {name: [] for name in names}
    for parent, child in edges:
        parents[child].append(parent)
    place: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    for name in names:
        above = [place[parent] for parent in parents[name] if parent in place]
        row = 1 + max((y for _, y in above), default=-1)
        wanted = min((x for x, y in above if y == row - 1), default=0)
        column = next(x for x in (wanted, *range(len(names) + 1)) if (x, row) not in taken)
        place[name] = column, row
        taken.add((column, row))
    return place


def _arrow(start: tuple[int, int], end: tuple[int, int], box: int) -> str:
    (x0, y0), (x1, y1) = start, end
    x0, y0, x1 = x0 + box // 2, y0 + _HEIGHT, x1 + box // 2
    bend = (y1 - y0) // 2
    return (
        f'<path class="edge" d="M{x0} {y0} C{x0} {y0 + bend} {x1} {y1 - bend} {x1} {y1 - 5}"/>'
        f'<polygon class="tip" points="{x1 - 3},{y1 - 6} {x1},{y1} {x1 + 3},{y1 - 6}"/>'
    )


def _box(corner: tuple[int, int], text: str, box: int) -> str:
    x, y = corner
    return (
        f'<rect class="node" x="{x}" y="{y}" width="{box}" height="{_HEIGHT}" rx="4"/>'
        f'<text class="tick" x="{x + box / 2:g}" y="{y + _HEIGHT / 2 + 4:g}" text-anchor="middle">{escape(text)}</text>'
    )
