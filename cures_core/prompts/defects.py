"""Knows every reason a row can be reported for: what is wrong, what becomes of the row, and what to do about it.

How verdicts are decided: by what training would suffer, not by how ugly the row is.

- **rejected**: the reward would be wrong or missing (no gold answer, no parsable one, two contradicting ones), the
  problem is not what its author wrote (lost characters, cut or ambiguous JSON), or it hands out its own answer, so that
  training teaches copying. These rows count against `max_reject_share`.
- **dropped**: a good row that must not be trained on: a copy of one that is kept, or one of an evaluation suite.
- **repaired**: there is one right reading and it is taken (byte order mark, CRLF, invisible marks, 50.0 for 50).
- **warn**: kept as it is; a person should look, because the row may waste rollouts or may be judged badly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

EXCERPT_CHARS = 120


class Severity(StrEnum):
    """What becomes of a row."""

    REPAIRED = "repaired"
    WARN = "warn"
    DROPPED = "dropped"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Reason:
    """One kind of defect."""

    severity: Severity
    meaning: str
    remedy: str


Flaw = tuple[str, str]
"""A reason's code and what was found: a defect that does not know its place yet."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing wrong with one row. `line` counts from 1: lines of text files, rows of columnar ones."""

    file: str
    line: int
    reason: str
    severity: Severity
    detail: str
    excerpt: str
    unit: str = ""
    """Before the line number where it is not a line: `row ` or `row group 2, row `."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.unit}{self.line}"

    @property
    def remedy(self) -> str:
        return REASONS[self.reason].remedy

    @property
    def message(self) -> str:
        """Place, what is wrong, remedy: one line."""
        found = f" ({self.detail})" if self.detail else ""
        return f"{self.place}: {REASONS[self.reason].meaning}{found}. {self.remedy}"

    def as_dict(self) -> dict[str, str | int]:
        """The row of `quarantine.jsonl`."""
        return {
            "file": self.file,
            "line": self.line,
            "unit": self.unit.strip() or "line",
            "reason": self.reason,
            "severity": self.severity.value,
            "detail": self.detail,
            "remedy": self.remedy,
            "excerpt": self.excerpt,
        }


def escaped(raw: bytes | str) -> str:
    """The beginning of a text, printable ASCII only, so that no log, terminal or page can be fooled by it."""
    text = raw[: 4 * EXCERPT_CHARS].decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    shown = ascii(text[:EXCERPT_CHARS])[1:-1].replace("\\udc", "\\x")
    return shown if len(shown) <= EXCERPT_CHARS else shown[: EXCERPT_CHARS - 3] + "..."


_R, _W, _D, _X = Severity.REPAIRED, Severity.WARN, Severity.DROPPED, Severity.REJECTED

REASONS: Mapping[str, Reason] = {
    # the bytes of a row
    "bom_at_start": Reason(_R, "a byte order mark before the first row", "Save the file as UTF-8 without BOM."),
    "crlf": Reason(_R, "lines end in CR LF", "Convert line ends to LF."),
    "blank_line": Reason(_R, "an empty line, skipped", "Remove it."),
    "no_final_newline": Reason(_R, "the last line has no line end", "Check that the file is complete; end it with LF."),
    "row_too_long": Reason(_X, "the row is longer than max_row_bytes", "Split or drop it, or raise max_row_bytes."),
    "invalid_utf8": Reason(_X, "bytes that are not UTF-8", "Convert the file to UTF-8 from its real encoding."),
    "nul_raw": Reason(_X, "a raw NUL byte", "Write the row again; the file may be damaged."),
    "invalid_json": Reason(_X, "not JSON", "Write one JSON object per line, with a JSON library."),
    "truncated_json": Reason(
        _X, "the row ends in the middle", "Write the row again; was the file still being written?"
    ),
    "two_objects_on_a_line": Reason(_X, "two JSON objects without a line break", "Put each on a line of its own."),
    "nonstandard_json": Reason(_X, "NaN or Infinity, which JSON does not have", "Write a string, or drop the row."),
    "not_an_object": Reason(_X, "the row is not a JSON object", 'Write rows as {"problem": ..., "answer": ...}.'),
    "duplicate_key": Reason(_X, "a key occurs twice, so its value is ambiguous", "Keep one of the two."),
    "wrong_column_count": Reason(
        _X, "more or fewer fields than the header", "Quote fields that hold commas or newlines."
    ),
    "unreadable_row": Reason(_X, "the row cannot be read", "Write it again."),
    # presence and type
    "missing_problem": Reason(_X, "there is no problem", "Add it, or drop the row."),
    "null_problem": Reason(_X, "the problem is null", "Fill it in, or drop the row."),
    "empty_problem": Reason(_X, "the problem is empty", "Fill it in, or drop the row."),
    "whitespace_problem": Reason(_X, "the problem is blank", "Fill it in, or drop the row."),
    "wrong_type_problem": Reason(
        _X, "the problem is not text", 'Write a string; for chat messages set problem_rule = "chat".'
    ),
    "oversize_problem": Reason(
        _X, "the problem is longer than max_problem_chars", "Shorten it, or raise max_problem_chars."
    ),
    "too_many_tokens": Reason(_X, "the problem is longer than max_problem_tokens", "Shorten it, or raise the limit."),
    "no_room": Reason(
        _X,
        "the prompt, as the policy is asked it, leaves no room in the context for a completion of full length",
        "Shorten it, lower max_new_tokens, or use a policy with a longer context.",
    ),
    "no_tokens": Reason(_X, "the policy's tokenizer makes no token of the prompt", "Rewrite it, or drop the row."),
    "chat_refused": Reason(
        _X,
        "the policy's chat template refuses the prompt",
        'Leave out what it refuses: prompt_format.system, or earlier turns with problem_rule = "last_user".',
    ),
    "no_user_message": Reason(_X, "the chat has no user message", "Add one, or drop the row."),
    "chat_context": Reason(
        _X,
        "the chat holds more than one user message, and the policy is shown one",
        "Set prompt_format.chat = true, so that the policy's chat template shows it all, or problem_rule = "
        '"last_user" to leave the rest out.',
    ),
    "chat_unreadable": Reason(
        _X,
        "a message of the chat is not text by system, user or assistant",
        'Drop the row, or set problem_rule = "last_user" to leave out all but the last user message.',
    ),
    "chat_reply": Reason(
        _X,
        "the chat goes on after its last user message",
        'Cut the reply off (as a worked solution it can teach: policy.warm_start), or set problem_rule = "last_user".',
    ),
    "chat_context_left_out": Reason(
        _W, "the chat holds more than its last user message; left out", "See that the problem can be understood alone."
    ),
    "missing_answer": Reason(_X, "there is no answer", "Add it, or drop the row."),
    "null_answer": Reason(_X, "the answer is null", "Fill it in, or drop the row."),
    "empty_answer": Reason(_X, "the answer is empty", "Fill it in, or drop the row."),
    "whitespace_answer": Reason(_X, "the answer is blank", "Fill it in, or drop the row."),
    "wrong_type_answer": Reason(_X, "the answer is not text", "Write the answer as one string."),
    "number_answer": Reason(
        _R, "the answer is a number, taken as text", "Write it as a string, so that no digit can change."
    ),
    "oversize_answer": Reason(_X, "the answer is longer than max_answer_chars", "Give the final answer only."),
    "answer_rule_found_nothing": Reason(_X, "the answer rule finds no answer", "Check answer_rule, or drop the row."),
    # what the gold answer is worth
    "answer_wrapped": Reason(_R, "the answer stands in \\boxed{}, taken out of it", "Write the bare answer."),
    "answer_not_final": Reason(
        _X, "the answer is a worked solution", 'Set answer_rule = "gsm8k" or "boxed", or cut it out.'
    ),
    "answer_not_math": Reason(_X, "a placeholder instead of an answer", "Fill in the answer, or drop the row."),
    "answer_unparsable": Reason(
        _X, "the answer is cut off or unbalanced", "Restore the whole answer, or drop the row."
    ),
    "answer_damaged": Reason(_X, "the answer holds damaged or invisible characters", "Restore the answer."),
    "unknown_verifier": Reason(
        _X, "the row names a verifier that there is not", "Correct the name, or configure it in reward.by_source."
    ),
    "gold_rejected": Reason(_X, "the verifier cannot use this answer as gold", "Rewrite the answer, or drop the row."),
    "answer_percent": Reason(
        _W, "the answer is a percentage", "See that the verifier takes 17 % and not 0.17, or drop the sign."
    ),
    "answer_inconsistent_with_solution": Reason(_W, "the solution ends in something else", "Compare the two by hand."),
    # what the problem's text would do to training
    "nul_escaped": Reason(_X, "a NUL character in the text", "Restore the text."),
    "control_character": Reason(
        _X, "control characters in the text", "Restore the text; backslashes of LaTeX must be doubled in JSON."
    ),
    "lost_backslash": Reason(
        _X, "LaTeX that lost its backslash to an escape", "Double the backslashes in the JSON and export again."
    ),
    "lone_surrogate": Reason(_X, "half a character (lone surrogate)", "Restore the text from its source."),
    "replacement_character": Reason(_W, "U+FFFD: characters were lost", "Restore the text from its source."),
    "mojibake": Reason(_W, "UTF-8 that was read as Windows-1252", "Decode the source as UTF-8 and export again."),
    "bidi_marks": Reason(_R, "invisible direction marks, removed", "Remove them at the source."),
    "zero_width": Reason(_R, "invisible characters, removed", "Remove them at the source."),
    "html": Reason(
        _W, "HTML in the problem; a figure may be missing", "Convert it to text; drop the row if it needs the figure."
    ),
    "control_tokens": Reason(
        _X, "chat template tokens in the problem", "Cut them out: the policy would see a finished turn."
    ),
    "answer_leak": Reason(_X, "the problem states its answer", "Cut the answer out of the problem."),
    "solution_leak": Reason(_X, "the problem holds its solution", "Cut the solution out of the problem."),
    "proof": Reason(
        _W, "asks for a proof, which one answer cannot judge", "Drop it, or check that the answer is enough."
    ),
    "multi_part": Reason(
        _W, "asks for several answers in parts", "Split it, or check that the answer covers all parts."
    ),
    "other_language": Reason(_W, "the problem is in another language", "Translate it, drop it, or change language."),
    # labels
    "bad_level": Reason(_W, "the level says nothing, left empty", "Fill it in, or leave it out."),
    "bad_label": Reason(
        _W, "a label is not short plain text, left empty", "Write source, level and subject as short strings."
    ),
    # rows against rows
    "duplicate_id": Reason(_W, "another row has the same id", "Give each row its own id."),
    "duplicate_problem": Reason(_W, "the problem occurs again; this row is kept", "Remove the copies."),
    "duplicate_problem_normalised": Reason(_W, "the problem occurs again, written otherwise", "Keep one of them."),
    "duplicate_copy": Reason(_D, "a copy of another row, with the same answer", "Remove it."),
    "contradictory_answer": Reason(
        _X, "the same problem with different answers", "Find out which is right; drop the other."
    ),
    "near_duplicate": Reason(_W, "almost the same as another row", "Keep one of them."),
    "near_duplicate_copy": Reason(_D, "almost the same as another row, same answer", "Remove it."),
    "flagged": Reason(_D, "a person has flagged it", "`cures data unflag ID` gives it back."),
    "eval_leak": Reason(_D, "an evaluation suite holds this problem", "Leave it out of training."),
    "eval_leak_kept": Reason(_W, "an evaluation suite holds this problem; kept", 'Set contamination = "drop".'),
    "eval_near": Reason(
        _W, "a near copy of an evaluation problem, with other numbers or signs", "Decide whether to train on it."
    ),
}
