"""Figures of stages that only a test has, and figures of real ones where a test cares for few of them."""

from __future__ import annotations

from typing import Any

from tasks.runs.figures import FIGURES, Figures
from tasks.runs.records import Record
from tasks.stages.stage import Made


class DemoFigures(Figures):
    stage = "demo"

    length: int = 0


class OtherFigures(Figures):
    stage = "other"

    length: int = 0


def figures_of(stage: str, mark: str = "m", **values: Any) -> Any:
    """Figures of a stage: texts that have to be there are `mark`, numbers 0, unless `values` says otherwise."""
    kind = FIGURES[stage]
    blank: dict[Any, Any] = {str: mark, int: 0, bool: False}
    needed = {name: blank.get(f.annotation, ()) for name, f in kind.model_fields.items() if f.is_required()}
    return kind.model_validate({**needed, **values})


def made(stage: str, mark: str = "m", **values: Any) -> Made[Any]:
    """What the work of such a stage gives back."""
    return Made(figures_of(stage, mark, **values))


def mark_of(record: Record[Any]) -> str:
    """The text that `figures_of` has marked a record with."""
    return str(next(value for value in record.figures.model_dump().values() if isinstance(value, str)))
