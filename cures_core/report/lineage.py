"""Draws which record was made from which: columns by how many records lie before one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 148, 26, 44, 14, 8


def lineage_graph(names: Mapping[str, str], edges: Sequence[tuple[str, str]]) -> str:
    """SVG of the records `names` (id to what is written into the box, in order) with arrows from parent to child.

    Edges that name other records are left out. A record stands one column to the right of its last parent.
    """
    known = [(parent, child) for parent, child in edges if parent in names and child in names]
    if not names:
        return ""
    place = _places(list(names), known)
    columns = 1 + max(x for x, _ in place.values())
    rows = 1 + max(y for _, y in place.values())
    width = columns * (_WIDTH + _GAP_X) - _GAP_X + 2 * _EDGE
    height = rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _EDGE
    title = f"{len(names)} records of the run and what each was made from"
    parts = [
        f'<svg class="graph" viewBox="0 0 {width} {height}" style="min-width:{width}px" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
    ]
    parts += [_arrow(place[parent], place[child]) for parent, child in known]
    parts += [_box(place[name], text) for name, text in names.items()]
    return "".join([*parts, "</svg>"])


def _places(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """(column, row) of each record. Records of a run are listed parents first, so one pass finds all columns."""
    parents: dict[str, list[str]] = {name: [] for name in names}
    for parent, child in edges:
        parents[child].append(parent)
    column: dict[str, int] = {}
    taken: dict[int, int] = {}
    place = {}
    for name in names:
        column[name] = 1 + max((column[parent] for parent in parents[name] if parent in column), default=-1)
        place[name] = column[name], taken.get(column[name], 0)
        taken[column[name]] = place[name][1] + 1
    return place


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return _EDGE + place[0] * (_WIDTH + _GAP_X), _EDGE + place[1] * (_HEIGHT + _GAP_Y)


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = _corner(start), _corner(end)
    x0, y0, y1 = x0 + _WIDTH, y0 + _HEIGHT // 2, y1 + _HEIGHT // 2
    bend = (x1 - x0) // 2
    return (
        f'<path class="edge" d="M{x0} {y0} C{x0 + bend} {y0} {x1 - bend} {y1} {x1 - 5} {y1}"/>'
        f'<polygon class="tip" points="{x1 - 6},{y1 - 3} {x1},{y1} {x1 - 6},{y1 + 3}"/>'
    )


def _box(place: tuple[int, int], text: str) -> str:
    x, y = _corner(place)
    return (
        f'<rect class="node" x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="4"/>'
        f'<text class="tick" x="{x + _WIDTH / 2:g}" y="{y + _HEIGHT / 2 + 4:g}" text-anchor="middle">'
        f"{escape(text[:23])}</text>"
    )
