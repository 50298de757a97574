"""Knows how completions are judged: which verifier, where it reads the answer, and how much a hostile one may cost."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cures_core.config.base import Strict

AnswerRule = Literal["box", "hashes", "phrase", "last"]
"""box: the last \\boxed{}; hashes: after the last ####; phrase: after the last "the answer is"; last: the last number
(for `math` the last formula between dollar signs, else the last number)."""


class ExactConfig(Strict):
    """The whole completion equals the gold answer, white space at both ends aside."""

    type: Literal["exact"] = "exact"
    """Verifier name."""


class _Extracting(Strict):
    rules: tuple[AnswerRule, ...] = ("box", "hashes", "phrase", "last")
    """Where the final answer is looked for, in this order; the first rule whose mark occurs decides, even if what
    follows the mark is malformed. `("box",)` gives credit to boxed answers only."""

    @field_validator("rules")
    @classmethod
    def _rules_are_distinct(cls, rules: tuple[AnswerRule, ...]) -> tuple[AnswerRule, ...]:
        if not rules or len(set(rules)) != len(rules):
            raise ValueError("name at least one rule, each once")
        return rules


class NumericConfig(_Extracting):
    """The final answer is the gold number, compared exactly (as fractions)."""

    type: Literal["numeric"] = "numeric"
    """Verifier name."""


class MathConfig(_Extracting):
    """The final answer is mathematically equal to the gold answer (math-verify, in processes that can be killed)."""

    type: Literal["math"] = "math"
    """Verifier name."""
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Wall-clock seconds for one comparison; then its process is killed and the verdict is `unknown`."""
    workers: int = Field(default=2, ge=1, le=256)
    """Processes that compare in parallel."""
    memory_mb: int = Field(default=512, ge=256)
    """Address space of one such process, in MiB; a comparison that needs more is `unknown`."""


class ChoiceConfig(Strict):
    """The final answer is the gold letter: in a box, after "the answer is", else the last letter in parentheses or
    alone on a line."""

    type: Literal["choice"] = "choice"
    """Verifier name."""
    letters: str = Field(default="ABCDE", pattern=r"^[A-Z]{2,26}$")
    """The letters that may be chosen."""


class RegexConfig(Strict):
    """What the pattern captures in its last match equals the gold answer, white space at both ends aside."""

    type: Literal["regex"] = "regex"
    """Verifier name."""
    pattern: str = Field(min_length=1, max_length=1000)
    """Regular expression (Python's), searched in the completion's last 8,000 characters. Its first group is the answer,
    or the whole match where it has no group. `.` does not match line ends; write (?s) or (?i) in front as needed."""
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Wall-clock seconds for one search (patterns can take for ever on some texts); then the verdict is `unknown`."""
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that search in parallel."""

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class CustomConfig(Strict):
    """Your own function `(completion: str, gold: str) -> bool | None`; None, or an exception, is `unknown`.

    It runs in the training process and is trusted: it must be quick and must not evaluate the completion.
    """

    type: Literal["custom"] = "custom"
    """Verifier name."""
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """Dotted path of the function: `package.module:function`."""


RewardConfig = Annotated[
    ExactConfig | NumericConfig | MathConfig | ChoiceConfig | RegexConfig | CustomConfig, Field(discriminator="type")
]
"""A verifier's configuration, chosen by `type`."""
