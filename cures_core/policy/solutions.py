"""From rows with worked solutions to what a policy is taught: token ids of problem and completion, bad rows counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cures_core.config.data import ColumnsConfig, PromptFile
from cures_core.config.policy import SOLUTION, SupervisedWarmStart
from cures_core.config.rollout import PromptFormat
from cures_core.errors import ConfigError, DataRejected
from cures_core.prompts import PromptSet, make_prompt
from cures_core.prompts.chats import conversation, read_chat, written
from cures_core.prompts.columns import ColumnMap, pick
from cures_core.prompts.overlap import SuiteIndex
from cures_core.prompts.reading import Opened, open_rows
from cures_core.rollout.prompting import encode_prompts, opens_thinking, require_format
from cures_core.terms import Prompt, Turns
from cures_core.thinking import answer_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAMED = 3
REASONS = {
    "unreadable": "not a row",
    "no_problem": "no problem in it",
    "empty_solution": "no solution in it",
    "holds_stop": "the solution holds a string of rollout.prompt_format.stop, where rollouts end",
    "never_answers": "the solution opens its thinking, or its prompt does, and never closes it",
    "too_long": "more tokens than policy.warm_start.max_tokens, or than the model's context",
    "no_chat": "earlier turns, and rollout.prompt_format.chat is false",
    "in_a_suite": "an evaluation suite holds the problem",
}
"""Why a row is left out."""
_UNCOUNTED = ("in_a_suite",)
"""Nothing is wrong with the row."""


@dataclass(frozen=True)
class Lesson:
    """One row as token ids; the completion ends with the end token."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


@dataclass
class Lessons:
    """What was read."""

    taught: list[Lesson] = field(default_factory=list)
    rows: int = 0
    """Rows read."""
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason (`REASONS`)."""
    first: dict[str, list[int]] = field(default_factory=dict)
    """Lines where a reason was seen first."""

    def leave_out(self, reason: str, line: int) -> None:
        self.left_out[reason] += 1
        if len(lines := self.first.setdefault(reason, [])) < _NAMED:
            lines.append(line)

    def told(self) -> list[str]:
        """A line for each reason."""
        return [
            f"{number:,} rows left out: {REASONS[reason]} (first: {', '.join(map(str, self.first[reason]))})"
            for reason, number in self.left_out.most_common()
        ]


def open_solutions(cfg: SupervisedWarmStart, path: Path) -> Opened:
    """The rows of a file, its columns found. Raises what `open_rows` raises."""
    columns = ColumnsConfig(problem=cfg.problem, answer=cfg.solution)
    # The rule makes a column called solution go before one called answer.
    rule = PromptFile(path=str(path), format=cfg.format, layout="columns", columns=columns, answer_rule="boxed")
    return open_rows(rule, path)


def read_lessons(
    cfg: SupervisedWarmStart,
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    fmt: PromptFormat,
    context: int | None = None,
    suites: Mapping[str, PromptSet] | None = None,
) -> Lessons:
    """All rows that can be taught, at most `cfg.max_rows` of them, in file order.

    `context`: the model's, in tokens. Problems that one of `suites` holds are left out. Raises `DataRejected` where too
    many rows are left out, or all, and what opening the file and the prompt format raise.
    """
    require_format(tokenizer, fmt)
    opened = open_solutions(cfg, path)
    found, told = Lessons(), list[tuple[int, Prompt, str]]()
    index = SuiteIndex(suites) if suites else None
    for line, prompt, solution, reason in _rows(opened, opened.columns):
        found.rows += 1
        text = cfg.template.replace(SOLUTION, solution)
        reason = reason or _unfit(prompt, text, fmt, opened=opens_thinking(tokenizer, fmt))
        if not reason and index is not None and _is_in(index, prompt):
            reason = "in_a_suite"
        if reason:
            found.leave_out(reason, line)
        else:
            told.append((line, prompt, text))
    longest = min(cfg.max_tokens, context or cfg.max_tokens)
    for (line, _, _), lesson in zip(told, _encoded(told, tokenizer, fmt), strict=True):
        if len(lesson.prompt_ids) + len(lesson.token_ids) > longest:
            found.leave_out("too_long", line)
        else:
            found.taught.append(lesson)
    _require_enough(cfg, path, found)
    if cfg.max_rows is not None and len(found.taught) > cfg.max_rows:
        chosen = np.random.default_rng([cfg.seed, 0x524F5753]).permutation(len(found.taught))[: cfg.max_rows]
        found.taught = [found.taught[i] for i in sorted(chosen)]
    return found


def _rows(opened: Opened, columns: ColumnMap) -> Iterator[tuple[int, Prompt, str, str]]:
    """(line, prompt, solution, why it cannot be read)."""
    nothing = Prompt("", "", "")
    for row in opened.rows:
        if row.record is None:
            if not any(code == "blank_line" for code, _ in row.flaws):
                yield row.line, nothing, "", "unreadable"
            continue
        problem, solution = pick(row.record, columns.problem), pick(row.record, columns.answer)
        turns: Turns = ()
        if isinstance(problem, list):
            chat = read_chat(problem)
            problem, turns = ("" if chat.unreadable else chat.problem), chat.turns
        if isinstance(solution, list):
            solution = read_chat(solution).reply
        if not isinstance(problem, str) or not problem.strip():
            yield row.line, nothing, "", "no_problem"
        elif not isinstance(solution, str) or not solution.strip():
            yield row.line, nothing, "", "empty_solution"
        else:
            yield row.line, make_prompt(problem.strip(), "", turns=turns), solution.strip(), ""


def _is_in(index: SuiteIndex, prompt: Prompt) -> bool:
    """Whether a suite holds the problem; the answer, which a solution only implies, is taken to be the same."""
    whole = conversation(prompt.problem, written(prompt.turns))
    match = index.match(whole, "", lambda *_: True)
    return match is not None and match.leak


def _unfit(prompt: Prompt, text: str, fmt: PromptFormat, *, opened: bool) -> str:
    """Why rollouts could not be what this row teaches; empty where they could."""
    if prompt.turns and not fmt.chat:
        return "no_chat"
    if any(stop in text for stop in fmt.stop):
        return "holds_stop"
    whole = (fmt.thinking[0] if opened else "") + text
    return "never_answers" if answer_start(whole, fmt.thinking) == len(whole) else ""


def _encoded(
    told: list[tuple[int, Prompt, str]], tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat
) -> list[Lesson]:
    if not told:
        return []
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError("policy.warm_start: the tokenizer has no end token, so a completion could not be ended")
    prompts = encode_prompts([prompt for _, prompt, _ in told], tokenizer, fmt)
    completions = tokenizer([text for *_, text in told], add_special_tokens=False)["input_ids"]
    return [Lesson(ids, (*said, int(end))) for ids, said in zip(prompts, completions, strict=True)]


def _require_enough(cfg: SupervisedWarmStart, path: Path, found: Lessons) -> None:
    bad = sum(number for reason, number in found.left_out.items() if reason not in _UNCOUNTED)
    if found.taught and bad <= cfg.max_reject_share * found.rows:
        return
    head = (
        f"{path}: {bad:,} of {found.rows:,} rows with solutions are unfit (allowed {cfg.max_reject_share:.1%}, "
        f"policy.warm_start.max_reject_share), {len(found.taught):,} could be taught"
    )
    raise DataRejected("\n".join([head, *(f"  {line}" for line in found.told())]))
