"""Knows the layouts that prompt sets are published in, and tells which one a file has by its columns and first rows.

A layout is a row of `LAYOUTS`: what its columns must hold, and where problem and answer are. The first that fits is
taken, so special ones stand before general ones. What was taken, and why, goes into the report of the validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from cures_core.config.data import ColumnsConfig, PromptFile
from cures_core.errors import ConfigError
from cures_core.prompts.columns import KNOWN, ColumnMap, pick

FITTING_SHARE = 0.9
"""A layout fits where so large a share of the first rows holds what it needs."""

Kind = Literal["text", "messages", "text with ####", "text with \\boxed", "text of a JSON list", "anything"]
"""What the values of a column are."""


@dataclass(frozen=True)
class Layout:
    """How a family of published sets writes its rows. Columns that are not named go by their usual names."""

    name: str
    published: str
    """Sets that have it."""
    needs: Mapping[str, Kind]
    problem: str
    answer: str
    problem_rule: Literal["text", "chat"] = "text"
    answer_rule: Literal["field", "gsm8k", "boxed", "list"] = "field"
    lacks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Columns of source, level, subject, solution and id."""


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="verl-list",
        published="Skywork-OR1-RL-Data",
        needs={"prompt": "messages", "reward_model.ground_truth": "text of a JSON list"},
        problem="prompt",
        problem_rule="chat",
        answer="reward_model.ground_truth",
        answer_rule="list",
    ),
    Layout(
        name="verl",
        published="Parquet of verl, DAPO-Math-17k",
        needs={"prompt": "messages", "reward_model.ground_truth": "text"},
        problem="prompt",
        problem_rule="chat",
        answer="reward_model.ground_truth",
    ),
    Layout(
        name="verl-text",
        published="DAPO-Math-17k-Processed",
        needs={"prompt": "text", "reward_model.ground_truth": "text"},
        problem="prompt",
        answer="reward_model.ground_truth",
    ),
    Layout(
        name="orz",
        published="ORZ 57k and its extensions: arrays of two turns, or columns 0 and 1",
        needs={"0.value": "text", "1.ground_truth.value": "text"},
        problem="0.value",
        answer="1.ground_truth.value",
    ),
    Layout(
        name="openr1",
        published="OpenR1-Math-220k",
        needs={"problem": "text", "answer": "text", "problem_type": "anything", "generations": "anything"},
        problem="problem",
        answer="answer",
        labels={"subject": "problem_type", "solution": "solution", "id": "uuid"},
    ),
    Layout(
        name="numina-1.5",
        published="NuminaMath-1.5",
        needs={"problem": "text", "answer": "text", "problem_type": "anything", "question_type": "anything"},
        problem="problem",
        answer="answer",
        labels={"subject": "problem_type", "solution": "solution"},
    ),
    Layout(
        name="big-math",
        published="Big-Math-RL-Verified",
        needs={"problem": "text", "answer": "text", "llama8b_solve_rate": "anything"},
        problem="problem",
        answer="answer",
    ),
    Layout(
        name="gsm8k",
        published="GSM8K as first published",
        needs={"question": "text", "answer": "text with ####"},
        problem="question",
        answer="answer",
        answer_rule="gsm8k",
    ),
    Layout(
        name="math",
        published="MATH as first published, NuminaMath-CoT",
        needs={"problem": "text", "solution": "text with \\boxed"},
        lacks=("answer",),
        problem="problem",
        answer="solution",
        answer_rule="boxed",
    ),
)


@dataclass(frozen=True)
class Taken:
    """How a file is read, and why: a wrong guess shows here."""

    layout: str
    problem: str
    problem_rule: str
    answer: str
    answer_rule: str
    why: str

    @classmethod
    def of(cls, layout: str, why: str, cfg: PromptFile, columns: ColumnMap) -> Taken:
        return cls(layout, columns.problem, cfg.problem_rule, columns.answer, cfg.answer_rule, why)

    def __str__(self) -> str:
        return (
            f"read as {self.layout}: problem from {self.problem} ({self.problem_rule}), answer from {self.answer} "
            f"({self.answer_rule}); {self.why}"
        )

    def as_dict(self) -> dict[str, str]:
        return {
            "layout": self.layout,
            "problem": f"{self.problem} ({self.problem_rule})",
            "answer": f"{self.answer} ({self.answer_rule})",
            "why": self.why,
        }


def resolve_layout(
    cfg: PromptFile, names: Collection[str], first: Sequence[Mapping[str, Any]]
) -> tuple[PromptFile, str, str]:
    """(configuration with the columns and rules of the file's layout, the layout's name, why it is that one).

    Raises `ConfigError` where the named layout needs what the file has not.
    """
    if cfg.layout == "auto":
        if cfg.columns.problem or cfg.columns.answer or cfg.answer_rule != "field":
            return cfg, "columns", "columns or answer_rule are configured"
        for layout in LAYOUTS:
            if not _misfits(layout, names, first):
                return (
                    _applied(cfg, layout, names),
                    layout.name,
                    f"{_evidence(layout, first)} (as in {layout.published})",
                )
        return cfg, "columns", "no published layout fits; columns go by their usual names" + _others(names)
    if cfg.layout == "columns":
        return cfg, "columns", "configured"
    layout = next(layout for layout in LAYOUTS if layout.name == cfg.layout)
    if misfits := _misfits(layout, names, first):
        raise ConfigError(
            f"{cfg.path}: layout {layout.name} does not fit: {'; '.join(misfits)}. Set layout to auto, or to columns "
            "and name problem and answer with columns.problem and columns.answer"
        )
    return _applied(cfg, layout, names), layout.name, "configured"


def columns_read(names: Collection[str]) -> list[str]:
    """Those of a file's top-level columns that a layout looks at."""
    looked_at = {path.partition(".")[0] for layout in LAYOUTS for path in _looked_at(layout)}
    return [name for name in names if name in looked_at]


def _applied(cfg: PromptFile, layout: Layout, names: Collection[str]) -> PromptFile:
    """What is configured goes before what the layout says."""
    labels = {role: name for role, name in layout.labels.items() if name in names}
    own = {"problem": layout.problem, "answer": layout.answer, **labels}
    columns = {**own, **cfg.columns.model_dump(exclude_none=True)}
    chat = cfg.problem_rule if layout.problem_rule == "chat" and cfg.problem_rule != "text" else layout.problem_rule
    rule = layout.answer_rule if cfg.answer_rule == "field" else cfg.answer_rule
    return cfg.model_copy(
        update={"columns": ColumnsConfig(**columns), "problem_rule": chat, "answer_rule": rule, "layout": "columns"}
    )


def _misfits(layout: Layout, names: Collection[str], first: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps a file from having a layout; nothing where it has it."""
    absent = [path for path in layout.needs if path.partition(".")[0] not in names]
    if absent:
        return [f"there is no column {path.partition('.')[0]}" for path in absent]
    found = [f"there is a column {name}" for name in layout.lacks if name in names]
    for path, kind in _looked_at(layout).items():
        fitting = _fitting(path, kind, first)
        if not first or fitting < FITTING_SHARE * len(first):
            found.append(f"{path} is {kind} in {fitting} of the first {len(first)} rows")
    return found


def _looked_at(layout: Layout) -> dict[str, Kind]:
    """The columns whose values tell something; those that may hold anything can be large."""
    return {path: kind for path, kind in layout.needs.items() if kind != "anything"}


def _evidence(layout: Layout, first: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"{path} is {kind}" for path, kind in _looked_at(layout).items()]
    parts += [f"there is {path}" for path, kind in layout.needs.items() if kind == "anything"]
    return f"in the first {len(first)} rows {', '.join(parts)}"


def _others(names: Collection[str]) -> str:
    """Columns that could have been meant too."""
    for role in ("problem", "answer"):
        held = [name for name in KNOWN[role] if name in names and name != "solution"]
        if len(held) > 1:
            return f"; {', '.join(held)} could all be the {role}"
    return ""


def _fitting(path: str, kind: Kind, first: Sequence[Mapping[str, Any]]) -> int:
    test = _TESTS[kind]
    return sum(test(pick(row, path)) for row in first)


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)


def _is_list_text(value: Any) -> bool:
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return False
    try:
        return isinstance(orjson.loads(value), list)
    except orjson.JSONDecodeError:
        return False


_TESTS: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str | int | float),
    "messages": _is_messages,
    "text with ####": lambda value: isinstance(value, str) and "####" in value,
    "text with \\boxed": lambda value: isinstance(value, str) and re.search(r"\\(?:boxed|fbox)", value) is not None,
    "text of a JSON list": _is_list_text,
}
