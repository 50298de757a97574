"""The part of the report that goes from what was believed of a prompt to what the policy wrote to it, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from cures_core.report.charts import Series, line_chart
from cures_core.report.run_data import Story

if TYPE_CHECKING:
    from jinja2 import Environment


def places(stories: Sequence[Story]) -> Mapping[str, str]:
    """Where on the page each prompt is, by its id: names of ours, whatever an id holds."""
    return {story.id: f"prompt-{i}" for i, story in enumerate(stories, 1)}


def render_stories(run: str, stories: Sequence[Story], environment: Environment) -> str:
    """HTML without a heading. Every text is escaped; `tasks.runs.prompt_stories` says how much there may be."""
    template = files("cures_core.report").joinpath("stories.html").read_text(encoding="utf-8")
    charts = {story.id: _chart(story) for story in stories}
    return environment.from_string(template).render(run=run, stories=stories, places=places(stories), charts=charts)


def _chart(story: Story) -> str:
    """Nothing where there is one posterior: a point is no line."""
    if len(story.beliefs) < 2:
        return ""
    x, mean, low, high = zip(*((b.step, b.mean, b.low, b.high) for b in story.beliefs), strict=True)
    believed = Series("expected pass rate", x, mean, low, high)
    return line_chart("What was believed of this prompt", [believed], "step", "pass rate", (0.0, 1.0))
