"""Knows which column of a file is which, and how a problem and an answer are taken out of a row."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cures_core.config.data import PromptFile
from cures_core.errors import ConfigError

KNOWN: Mapping[str, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt", "query", "instruction"),
    "answer": ("answer", "final_answer", "ground_truth", "gold", "target", "solution", "reward_model.ground_truth"),
    "source": ("source", "data_source", "dataset"),
    "level": ("level", "difficulty"),
    "subject": ("subject", "type", "category"),
    "verifier": (),
    "solution": ("solution",),
    "id": ("id", "unique_id", "uid"),
}


class _Missing:
    """Told apart from null."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The file's name of each column, None where it has none."""

    problem: str
    answer: str
    source: str | None
    level: str | None
    subject: str | None
    verifier: str | None
    solution: str | None
    id: str | None

    @property
    def top_level(self) -> list[str]:
        """Names a columnar reader has to read."""
        labels = (self.source, self.level, self.subject, self.verifier)
        named = (self.problem, self.answer, *labels, self.solution, self.id)
        return list(dict.fromkeys(name.partition(".")[0] for name in named if name))


def resolve_columns(cfg: PromptFile, names: Collection[str]) -> ColumnMap:
    """Find the columns among the file's `names`. `ConfigError` where problem, answer or a named one is missing."""
    known = dict(KNOWN)
    if cfg.answer_rule == "boxed":
        known["answer"] = ("solution", *known["answer"])
    found: dict[str, str | None] = {}
    for role, candidates in known.items():
        wanted: str | None = getattr(cfg.columns, role)
        if wanted is not None and wanted.partition(".")[0] not in names:
            raise ConfigError(f"{cfg.path}: no column {wanted!r} for columns.{role}; the file has {_listed(names)}")
        found[role] = wanted or next((name for name in candidates if name.partition(".")[0] in names), None)
    for role in ("problem", "answer"):
        if found[role] is None:
            raise ConfigError(
                f"{cfg.path}: no {role} column (looked for {', '.join(known[role])}; the file has {_listed(names)}). "
                f"Name it with columns.{role}"
            )
    if found["solution"] == found["answer"]:
        found["solution"] = None
    return ColumnMap(**found)  # type: ignore[arg-type]


def pick(record: Mapping[str, object], name: str | None) -> object:
    """The value under a name, stepping into nested objects at dots; `MISSING` where there is none."""
    if name is None:
        return MISSING
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def read_chat(messages: object) -> tuple[str | None, str]:
    """(content of the last user message of a list of {role, content}, what else the list says).

    The content is None where there is no user message, or no such list; the rest is empty where there is nothing else.
    """
    if not isinstance(messages, list):
        return None, ""
    spoken = [m for m in messages if isinstance(m, Mapping) and m.get("content")]
    asked = [i for i, m in enumerate(spoken) if m.get("role") == "user" and isinstance(m["content"], str)]
    if not asked:
        return None, ""
    question = spoken.pop(asked[-1])
    rest = [f"{message.get('role')}: {ascii(message['content'])[1:-1][:40]}" for message in spoken[:3]]
    return str(question["content"]), "; ".join(rest)


def apply_answer_rule(rule: str, text: str) -> str | None:
    """The final answer inside the answer column's text, None where the rule finds none."""
    if rule == "gsm8k":
        _, mark, tail = text.rpartition("####")
        return tail.strip().replace(",", "") if mark else None
    if rule == "boxed":
        found = boxed(text)
        return found[-1] if found else None
    if rule == "list":
        return _only_element(text)
    return text


def _only_element(text: str) -> str | None:
    """The element of a JSON list of one text or number."""
    try:
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str) else None


def boxed(text: str) -> list[str]:
    """Contents of all \\boxed{...} (braces balanced) and `\\boxed x`, in order, outermost only."""
    found = []
    start = text.find("\\boxed")
    while start >= 0:
        content, end = _argument(text, start + len("\\boxed"))
        if content is not None:
            found.append(content)
        start = text.find("\\boxed", end)
    return found


def _argument(text: str, at: int) -> tuple[str | None, int]:
    """(argument of a LaTeX command that ends at `at`, where to go on); None where its brace is never closed."""
    while at < len(text) and text[at] == " ":
        at += 1
    if not text.startswith("{", at):
        word = text[at:].split(None, 1)[0].rstrip("$.,") if text[at:].strip() else ""
        return (word or None), at + len(word)
    depth = 0
    for i in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0) if text[i - 1] != "\\" else 0
        if depth == 0:
            return text[at + 1 : i].strip(), i
    return None, len(text)


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:12]) + (" ..." if len(shown) > 12 else "") if shown else "no columns"
