"""Other people's tables as a prompt set: ids and labels from lists, arrays, `datasets`, pandas, Arrow or Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from cures_core.prompts.promptset import COLUMNS

if TYPE_CHECKING:
    from cures_core.prompts.naming import AnswerRule, Content, ProblemRule

LONGEST_ID = 200
"""Bytes of an id at most: ids are kept in one array of equal widths."""

Rows = npt.NDArray[np.int64]


def from_ids(
    ids: Iterable[object], sources: Iterable[object] | None = None, levels: Iterable[object] | None = None
) -> tuple[PromptSet, Rows]:
    """A set without texts, and the place among `ids` of each of its prompts.

    Ids become text (`str`). Raises `ConfigError` for ids that are empty, too long, or there twice, and for labels that
    are not as many.
    """
    names = _checked([x if type(x) is str else _text(x) for x in _values(ids)])
    labels = {"source": _labels("sources", sources, len(names)), "level": _labels("levels", levels, len(names))}
    return _prompt_set({"id": names, **labels}, len(names))


def from_table(
    table: Any,
    *,
    id: str | None,
    problem: str,
    answer: str | None,
    source: str,
    level: str,
    turns: str,
    problem_rule: ProblemRule | None,
    answer_rule: AnswerRule,
) -> tuple[PromptSet, Rows]:
    """A set from the columns of a `datasets` table, a data frame, an Arrow table, or a mapping of columns.

    With `id`, that column names the prompts. Without, they are named by the content of problem, earlier turns and
    answer, as the pipeline cleans and names them (`prompts.naming`). Labels and turns are taken where their columns are
    there. Raises `ConfigError` naming the columns that there are.
    """
    known = _names(table)
    wanted = [id] if id is not None else [problem] if answer is None else [problem, answer]
    if missing := [name for name in wanted if name not in known]:
        raise ConfigError(f"the table has no column {missing[0]!r}; its columns are {', '.join(known) or 'none'}")
    labels = {
        name: [_text(x) for x in _values(table[column])] if column in known else []
        for name, column in (("source", source), ("level", level))
    }
    problems, answers, before = (_values(table[x]) if x in known else [] for x in (problem, answer, turns))
    contents = _contents(problems, answers, before, problem_rule, answer_rule)
    if id is not None:
        ids = _checked([x if type(x) is str else _text(x) for x in _values(table[id])])
    else:
        if empty := [i for i, content in enumerate(contents) if not content.problem]:
            raise ConfigError(f"row {empty[0]}: column {problem!r} holds no problem; drop the row")
        ids = _checked([content.id for content in contents], "their content is the same: ")
    texts = dict(zip(("problem", "answer", "turns"), map(list, zip(*contents, strict=True)), strict=False))
    return _prompt_set({"id": ids, **texts, **labels}, len(ids))


def _contents(
    problems: list[object],
    answers: list[object],
    turns: list[object],
    problem_rule: ProblemRule | None,
    answer_rule: AnswerRule,
) -> list[Content]:
    from cures_core.prompts.naming import content_of  # with what it needs, too slow for an import of the library

    none = [None] * len(problems)
    problems = [x.tolist() if isinstance(x, np.ndarray) else x for x in problems]  # messages in a data frame of Parquet
    rows = zip(problems, answers or none, turns or none, strict=False)
    return [content_of(*row, problem_rule, answer_rule) for row in rows]


def _prompt_set(columns: Mapping[str, Sequence[str]], num: int) -> tuple[PromptSet, Rows]:
    arrays = [pa.array(columns.get(name) or [""] * num, pa.large_string()) for name in COLUMNS]
    prompts = PromptSet(pa.table(dict(zip(COLUMNS, arrays, strict=True))))
    place = {x: i for i, x in enumerate(columns["id"])}
    return prompts, np.fromiter((place[x] for x in prompts.ids), dtype=np.int64, count=num)


def _checked(ids: list[str], why: str = "") -> list[str]:
    place: dict[str, int] = {}
    for i, name in enumerate(ids):
        if place.setdefault(name, i) != i:
            raise ConfigError(f"rows {place[name]} and {i} have the same id {name[:80]!r}: {why}drop one of the two")
        if not name or "\0" in name:
            raise ConfigError(f"row {i}: {name[:80]!r} is no id; an id is text that is not empty")
        try:
            size = len(name) if name.isascii() else len(name.encode())
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"row {i}: the id {ascii(name)[:80]} holds a lone surrogate, which is not text"
            ) from error
        if size > LONGEST_ID:
            raise ConfigError(
                f"row {i}: the id {name[:40]!r}... has {size} bytes, {LONGEST_ID} at most; take a hash, as "
                "cures_core.prompts.content_id(problem, answer)"
            )
    return ids


def _labels(what: str, labels: Iterable[object] | None, num: int) -> list[str]:
    texts = [] if labels is None else [_text(x) for x in _values(labels)]
    if labels is not None and len(texts) != num:
        raise ConfigError(f"{len(texts)} {what} for {num} ids: give one for each, in the same order")
    return texts


def _names(table: Any) -> list[str]:
    if isinstance(table, Mapping):
        return [str(name) for name in table]
    names = getattr(table, "column_names", None)
    names = getattr(table, "columns", None) if names is None else names
    if names is None:
        raise ConfigError(
            f"{type(table).__name__} is no table: give a datasets table, a data frame, an Arrow table or a mapping of "
            "columns, or use Curriculum.from_ids"
        )
    return [str(name) for name in names]


def _values(column: Iterable[object]) -> list[object]:
    for name in ("to_pylist", "tolist"):
        if hasattr(column, name):
            return list(getattr(column, name)())
    return list(column)


def _text(value: object) -> str:
    """A label or an id as text; what is missing (None, NaN) is empty."""
    return "" if value is None or value != value else str(value)
