"""Knows the content of rows that no validation has seen, clean as it would make them, so that they get the same ids."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

from cures_core.config.data import PromptFile
from cures_core.prompts.chats import written
from cures_core.prompts.checks import clean_answer, clean_problem
from cures_core.prompts.identity import content_id

ProblemRule = Literal["text", "chat", "last_user"]
AnswerRule = Literal["field", "gsm8k", "boxed", "list"]


class Content(NamedTuple):
    """What a content id is made of; the problem is empty where the row holds none."""

    problem: str
    answer: str
    turns: str

    @property
    def id(self) -> str:
        return content_id(*self)


def content_of(
    problem: object, answer: object, turns: object, problem_rule: ProblemRule | None, answer_rule: AnswerRule
) -> Content:
    """The content of a row, by the rules of `data.problem_rule` and `data.answer_rule`, whatever its length.

    Without `problem_rule`, text is text, and a list of messages a chat. An answer that is none, which validation would
    reject, stays as it is; a missing one is empty.
    """
    cfg = _rules(problem_rule or ("text" if isinstance(problem, str) else "chat"), answer_rule)
    before, text = clean_problem(problem, turns, cfg, [])
    gold = None if _is_missing(answer) else clean_answer(answer, "", cfg, b"", [])
    if gold is None:
        gold = "" if _is_missing(answer) else str(answer)
    return Content(text or "", gold, written(before))


@cache
def _rules(problem_rule: ProblemRule, answer_rule: AnswerRule) -> PromptFile:
    endless = {"max_problem_chars": 1 << 62, "max_answer_chars": 1 << 62}
    return PromptFile.model_validate({"path": "", "problem_rule": problem_rule, "answer_rule": answer_rule, **endless})


def _is_missing(value: object) -> bool:
    return value is None or value != value
