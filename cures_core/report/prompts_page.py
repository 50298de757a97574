"""Knows how a prompt set is shown as one self-contained page: lengths, labels, kinds of answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from cures_core.prompts import PromptSet
from cures_core.report.charts import bar_chart

_BINS = 40
_SHOWN = 30
_KINDS = (
    ("integer", re.compile(r"[+-]?\d[\d,]*")),
    ("decimal", re.compile(r"[+-]?\d[\d,]*\.\d+|[+-]?\.\d+")),
    ("fraction", re.compile(r"[+-]?(?:\\[dt]?frac\{?\d+\}?\{?\d+\}?|\d+/\d+)")),
    ("one letter", re.compile(r"\(?[A-Za-z]\)?")),
    ("words", re.compile(r"(?:\\text\{)?[A-Za-z][A-Za-z \-]+\}?")),
)


def answer_kinds(answers: Sequence[str]) -> dict[str, int]:
    """How many answers are integers, decimals, fractions, one letter, words, or formulas (all else)."""
    counts = Counter(next((n for n, p in _KINDS if p.fullmatch(a)), "formula") for a in answers)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


TITLES = {
    "source": "Where prompts come from",
    "level": "Levels",
    "subject": "Subjects",
    "answers": "Kinds of gold answers",
    "reasons": "Rows that were rejected, dropped or warned of",
}
"""Headings of tables, on the page and in the terminal; others are headed by their name."""


def title_of(name: str) -> str:
    """Heading of a table."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def prompts_page(title: str, prompts: PromptSet, tables: Mapping[str, Mapping[str, int]]) -> str:
    """The page: two histograms of lengths, and a table for each of `tables` (name -> counts). Text is escaped."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    charts = [
        (heading, bar_chart(heading, *_lengths(prompts.column(name)), "characters", "prompts"))
        for name, heading in (("problem", "Length of problems"), ("answer", "Length of gold answers"))
        if len(prompts)
    ]
    shown = [_table(name, counts) for name, counts in tables.items() if counts]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_safe(title)}</title><style>{style}</style><main><h1>{_safe(title)}</h1>"
        f"<p>{len(prompts):,} prompts. Of lengths, the longest one in a hundred share the last bar.</p>"
        + '<div class="pair">'
        + "".join(f'<figure><p class="title">{heading}</p>{chart}</figure>' for heading, chart in charts)
        + "</div>"
        + "".join(shown)
        + "</main></html>"
    )


def _lengths(texts: Sequence[str]) -> tuple[list[int], tuple[float, float]]:
    """Counts of lengths in equal bins, up to the 99 % quantile: one long text would hide all others."""
    values = np.array([len(text) for text in texts])
    top = max(1.0, float(np.quantile(values, 0.99)))
    counts, _ = np.histogram(np.minimum(values, top), bins=_BINS, range=(0.0, top))
    return counts.tolist(), (0.0, top)


def _table(name: str, counts: Mapping[str, int]) -> str:
    rows = "".join(
        f'<tr><td>{_safe(label) or "(none)"}</td><td class="n">{number:,}</td></tr>'
        for label, number in list(counts.items())[:_SHOWN]
    )
    left_out = f"<p>The {_SHOWN} most frequent of {len(counts):,}.</p>" if len(counts) > _SHOWN else ""
    counted = "rows" if name == "reasons" else "prompts"
    head = f'<tr><th scope="col">{_safe(name)}</th><th scope="col" class="n">{counted}</th></tr>'
    return f"<h2>{_safe(title_of(name))}</h2>{left_out}<table>{head}{rows}</table>"


def _safe(text: str) -> str:
    return escape(ascii(text)[1:-1])
