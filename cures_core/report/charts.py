"""Small charts as SVG text: pure functions of their numbers, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 250
"""In pixels at full size: narrow, so that text stays readable where the page is."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 8, 44
_KEY_ROW = 18
"""Height of a row of the legend."""


@dataclass(frozen=True)
class Series:
    """A named line; `low` and `high` are ends of intervals, where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Frame:
    """Axes of a chart: from data to pixels."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0], x[0] + 1)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0], y[0] + 1)

    def px(self, x: float) -> float:
        return _LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        return HEIGHT - _BOTTOM - (y - self.y0) / (self.y1 - self.y0) * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_title: str, y_title: str) -> list[str]:
        out = []
        for value in ticks(self.y0, self.y1, 5):
            y = self.py(value)
            out.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
        for value in ticks(self.x0, self.x1, 6):
            x = self.px(value)
            out.append(_text("tick", x, HEIGHT - _BOTTOM + 16, number(value)))
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        out.append(_text("axis", (WIDTH + _LEFT) / 2, HEIGHT - 8, x_title))
        out.append(_text("axis", 14, middle, y_title, f' transform="rotate(-90 14 {middle})"'))
        return out


def line_chart(
    title: str, series: Sequence[Series], x_title: str, y_title: str, y_range: tuple[float, float] | None = None
) -> str:
    """Lines with optional intervals; points are marked where there are few of them."""
    xs = [x for s in series for x in s.x]
    ys = [y for s in series for y in (*s.y, *s.low, *s.high)]
    if not xs:
        return ""
    frame = Frame((min(xs), max(xs)), y_range or (min(0.0, *ys), max(ys)))
    out = frame.axes(x_title, y_title)
    for i, s in enumerate(series):
        if s.low and len(s.x) > 1:
            edge = [*zip(s.x, s.high, strict=True), *reversed(list(zip(s.x, s.low, strict=True)))]
            points = " ".join(f"{frame.px(x):.1f},{frame.py(y):.1f}" for x, y in edge)
            out.append(f'<polygon class="band s{i}" points="{points}"/>')
        points = " ".join(f"{frame.px(x):.1f},{frame.py(y):.1f}" for x, y in zip(s.x, s.y, strict=True))
        out.append(f'<polyline class="line s{i}" points="{points}"/>')
        if len(s.x) <= 40:
            out += [
                f'<circle class="dot s{i}" cx="{frame.px(x):.1f}" cy="{frame.py(y):.1f}" r="3.5"/>'
                for x, y in zip(s.x, s.y, strict=True)
            ]
    return svg(title, out, [s.name for s in series])


def histograms(title: str, names: Sequence[str], counts: Sequence[Sequence[float]], x_title: str, y_title: str) -> str:
    """Bars over 0..1, one histogram in front of the other: the last one filled, the others outlined."""
    if not any(counts):
        return ""
    top = max(value for row in counts for value in row) or 1
    frame = Frame((0.0, 1.0), (0.0, float(top)))
    out = frame.axes(x_title, y_title)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            width = 1 / len(row)
            x, y = frame.px(j * width), frame.py(count)
            size = f'width="{frame.px(width) - frame.px(0) - 1:.1f}" height="{max(0.0, frame.py(0) - y):.1f}"'
            out.append(f'<rect class="bar s{i}" x="{x:.1f}" y="{y:.1f}" {size}/>')
    return svg(title, out, names)


def bar_chart(title: str, counts: Sequence[int], x_range: tuple[float, float], x_title: str, y_title: str) -> str:
    """One histogram over any range, in equal bins."""
    if not counts:
        return ""
    frame = Frame(x_range, (0.0, float(max(1, *counts))))
    out = frame.axes(x_title, y_title)
    width = (frame.x1 - frame.x0) / len(counts)
    for j, count in enumerate(counts):
        x, y = frame.px(frame.x0 + j * width), frame.py(count)
        size = f'width="{frame.px(width) - frame.px(0) - 1:.1f}" height="{max(0.0, frame.py(0) - y):.1f}"'
        out.append(f'<rect class="bar s0" x="{x:.1f}" y="{y:.1f}" {size}/>')
    return svg(title, out, [])


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Mean over the last `window` values, fewer at the start."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers in low..high, `about` that many."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short and readable: 12k, 0.25, 3."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _text(kind: str, x: float, y: float, text: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle"{more}>{escape(text)}</text>'


def _cut(name: str) -> str:
    """As long as there is room for in a legend."""
    return name if len(name) <= 28 else f"{name[:27]}…"


def svg(title: str, body: Sequence[str], legend: Sequence[str] = ()) -> str:
    """The whole picture: `body` are elements in pixels, `legend` names of series in order."""
    columns = 3 if all(len(name) <= 15 for name in legend) else 2
    keys = []
    for i, name in enumerate(legend):
        x, y = _LEFT + (WIDTH - _LEFT) // columns * (i % columns), HEIGHT + _KEY_ROW * (i // columns)
        keys.append(f'<rect class="key s{i}" x="{x}" y="{y + 2}" width="12" height="8"/>')
        keys.append(f'<text class="tick" x="{x + 17}" y="{y + 10}">{escape(_cut(name))}</text>')
    height = HEIGHT + _KEY_ROW * math.ceil(len(legend) / columns)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        + "".join(body)
        + "".join(keys)
        + "</svg>"
    )
