"""Knows what a prompt set on disk looks like, how its rows become prompts, and how much damage is tolerated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Later, Placement, Result
from cures_core.config.urls import LocalName, S3Url

LayoutName = Literal[
    "auto", "columns", "verl", "verl-list", "verl-text", "orz", "openr1", "numina-1.5", "big-math", "gsm8k", "math"
]
"""`auto`, `columns`, or a published layout (`cures_core/prompts/layouts.py`)."""


class ColumnsConfig(Strict):
    """Names of the columns. A dot steps into a nested object: `reward_model.ground_truth`."""

    problem: Result[str | None] = None
    """The problem. None: the first of problem, question, prompt, query, instruction that the file has."""
    answer: Result[str | None] = None
    """The gold answer, or the text it is taken from. None: the first of answer, final_answer, ground_truth, gold,
    target, solution, reward_model.ground_truth that the file has (solution first for `answer_rule = "boxed"`)."""
    source: Result[str | None] = None
    """Where a row comes from. None: the first of source, data_source, dataset; empty where there is none."""
    level: Result[str | None] = None
    """Difficulty label. None: the first of level, difficulty; empty where there is none."""
    subject: Result[str | None] = None
    """Field of the problem. None: the first of subject, type, category; empty where there is none."""
    verifier: Annotated[Result[str | None], Later()] = None
    """Name of the verifier of `reward.by_source` that judges a row. None: there is no such column, and a row's source
    decides. A row that names none is judged by its source's too."""
    solution: Result[str | None] = None
    """Worked solution; only compared with the answer, never kept. None: solution, where it is not the answer column."""
    id: Result[str | None] = None
    """The publisher's id; only checked for repetition, never kept. None: the first of id, unique_id, uid."""
    turns: Annotated[Result[str | None], Later()] = None
    """What was said before the problem, as the text of a JSON list of [role, text]; clean sets are written so. None:
    turns, where there is one."""


class PromptFile(Strict):
    """A file of problems with answers, and how to read it."""

    path: Placement[S3Url]
    """A file, or a folder written by `datasets.save_to_disk` or of Parquet files; `path@revision` for one as it was at
    a revision of git or DVC, `s3://bucket/key` for an object (at store.endpoint_url, with credentials from the
    environment). What is packed with gzip or zstd is unpacked on the fly. Keys hold the content, not the name."""
    format: Result[Literal["auto", "jsonl", "json", "csv", "parquet", "arrow"]] = "auto"
    """`auto` goes by the name's ending (.gz and .zst looked through), then by the first bytes."""
    layout: Result[LayoutName] = "auto"
    """How rows are laid out. `auto`: as the first published layout that fits the columns and the first rows, else
    `columns`; the validation says which was taken and why. `columns`: as `columns` and the rules below say, or by the
    usual names. A layout's name insists on that one. `columns.problem`, `columns.answer` and `answer_rule` keep `auto`
    from guessing."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns."""
    problem_rule: Result[Literal["text", "chat", "last_user"]] = "text"
    """`text`: the column holds the problem. `chat`: it holds a list of {role, content}; the last user message is the
    problem, and what stands before it is kept as earlier turns, for policies that are asked in chats
    (`prompt_format.chat`). `last_user`: what stands before it is knowingly left out."""
    answer_rule: Result[Literal["field", "gsm8k", "boxed", "list"]] = "field"
    """`field`: the column is the answer. `gsm8k`: the text after the last ####, thousands commas removed. `boxed`: the
    content of the last \\boxed{}. `list`: the one element of a JSON list."""
    max_row_bytes: Result[int] = Field(default=1 << 20, ge=64)
    """Longest row read, in bytes; a longer one is rejected unread, so an endless line cannot fill the memory."""
    max_problem_chars: Result[int] = Field(default=16_384, ge=1)
    """Longest problem kept, in characters."""
    max_answer_chars: Result[int] = Field(default=512, ge=1)
    """Longest gold answer kept, in characters: longer ones are worked solutions, not answers."""
    max_problem_tokens: Result[int | None] = Field(default=None, ge=1)
    """Longest problem kept, in tokens of the policy's tokenizer, by itself. In any case the whole prompt, as the policy
    is asked it, has to leave a completion of `max_new_tokens` room in the policy's context; None: that is all."""
    language: Result[str | None] = Field(default=None, pattern=r"^[a-z]{2,3}$")
    """Language that problems should be in, as an ISO 639-1 code (en); one that is certainly in another gets a warning.
    None: not checked, as it takes about 0.3 ms a prompt."""
    max_reject_share: Result[float] = Field(default=0.05, ge=0, le=1)
    """Largest share of rows that may be rejected. Above it the whole file is refused: something is wrong with it, and
    what is left would be a biased sample. Dropped copies and contaminated rows do not count."""
    max_reason_share: Result[dict[str, float]] = Field(default_factory=dict)
    """Largest share of rows that may show a reason, by its code, whatever becomes of those rows; 0 allows none."""


class DataConfig(PromptFile):
    """The prompt set that is trained on."""

    contamination: Result[Literal["drop", "warn", "reject"]] = "drop"
    """What happens to prompts that an evaluation suite holds too: left out, kept with a warning, or the set refused."""
    near_duplicates: Result[Literal["off", "warn", "drop"]] = "off"
    """What happens to prompts that repeat an earlier one in slightly other words (same numbers and signs): nothing, a
    warning, or those with the same answer are left out. Takes about 0.2 ms a prompt."""
    flags: Placement[LocalName | None] = None
    """List of prompts that people have taken out (`cures data flag`), here and in the suites. None: no list. Keys hold
    what is listed, not the file's name."""


class SuiteConfig(PromptFile):
    """An evaluation suite."""

    name: Result[str] = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")
    """Short name; scores, files and reports carry it."""
