"""Knows how completions are judged: which verifier, where it reads the answer, and how much a hostile one may cost."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from cures_core.config.base import OwnCode, Strict
from cures_core.config.marks import Code, Later, Operation, Placement, Result
from cures_core.config.urls import JudgeUrl, LocalName, LocalPath, NoSecret

AnswerRule = Literal["box", "hashes", "phrase", "last"]
"""box: the last \\boxed{}; hashes: after the last ####; phrase: after the last "the answer is"; last: the last number
(for `math` the last formula between dollar signs, else the last number)."""


JUDGE_PROMPT = """\
Does the answer below solve the problem, with the same result as the reference answer? How it is worded does not matter.

Problem:
{problem}

Reference answer:
{gold}"""


class ExactConfig(Strict):
    """The whole completion equals the gold answer, white space at both ends aside."""

    type: Literal["exact"] = "exact"
    """Verifier name."""


class _Extracting(Strict):
    rules: Result[tuple[AnswerRule, ...]] = ("box", "hashes", "phrase", "last")
    """Where the final answer is looked for, in this order; the first rule whose mark occurs decides, even if what
    follows the mark is malformed. `["box"]` gives credit to boxed answers only."""

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
    timeout_s: Result[float] = Field(default=1.5, gt=0, le=60)
    """Wall-clock seconds for one comparison; then its process is killed and replaced, and the verdict is `unknown`. The
    default leaves half a second for that on a busy machine: no completion takes more than two."""
    workers: Operation[int] = Field(default=2, ge=1, le=256)
    """Processes that compare in parallel. How many there are changes no verdict."""
    memory_mb: Result[int] = Field(default=512, ge=256)
    """Address space of one such process, in MiB; a comparison that needs more is `unknown`, so it is a result."""


class ChoiceConfig(Strict):
    """The final answer is the gold letter: in a box, after "the answer is", else the last letter in parentheses or
    alone on a line."""

    type: Literal["choice"] = "choice"
    """Verifier name."""
    letters: Result[str] = Field(default="ABCDE", pattern=r"^[A-Z]{2,26}$")
    """The letters that may be chosen."""


def _compiling(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


class RegexConfig(Strict):
    """What the pattern captures in its last match equals the gold answer, white space at both ends aside."""

    type: Literal["regex"] = "regex"
    """Verifier name."""
    pattern: Result[str] = Field(min_length=1, max_length=1000)
    """Regular expression (Python's), searched in the completion's last 8,000 characters. Its first group is the answer,
    or the whole match where it has no group. `.` does not match line ends; write (?s) or (?i) in front as needed."""
    timeout_s: Result[float] = Field(default=1.5, gt=0, le=60)
    """Wall-clock seconds for one search (patterns can take for ever on some texts); then the verdict is `unknown`."""
    workers: Operation[int] = Field(default=1, ge=1, le=256)
    """Processes that search in parallel."""

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str) -> str:
        return _compiling(pattern)


class CodeConfig(Strict):
    """The program in the completion's last code block passes the tests that are the gold answer (docs/verifiers.md)."""

    type: Literal["code"] = "code"
    """Verifier name."""
    cpu_s: Result[int] = Field(default=4, ge=1, le=600)
    """Processor seconds of a program, all its tests together; one that needs more is `wrong`."""
    timeout_s: Result[float] = Field(default=10.0, gt=0, le=3600)
    """Wall-clock seconds for the same, which pass on a busy machine too; then the verdict is `unknown`."""
    memory_mb: Result[int] = Field(default=512, ge=64)
    """Address space of a program, in MiB; one that needs more is `wrong`."""
    output_kb: Result[int] = Field(default=1024, ge=1, le=1 << 16)
    """What a program may print for one test, in KiB; one that prints more is `wrong`."""
    max_tests: Result[int] = Field(default=32, ge=1)
    """Of a gold answer's tests only the first so many are run."""
    workers: Operation[int] = Field(default=2, ge=1, le=256)
    """Programs that run in parallel."""
    require_landlock: Operation[bool] = True
    """false: run programs even where the kernel cannot hide files from them. They then can read, not write, every file
    that this account can."""


class JudgeConfig(Strict):
    """A model behind an OpenAI-compatible endpoint says whether the completion is right, or how good it is.

    The environment variable JUDGE_API_KEY, where it is set, is sent as the bearer token.
    """

    type: Literal["judge"] = "judge"
    """Verifier name."""
    url: Result[JudgeUrl]
    """Base address of the endpoint, such as `http://127.0.0.1:8000/v1`; `/chat/completions` is added."""
    model: Result[LocalName] = Field(min_length=1, max_length=200)
    """The model's name there."""
    prompt: Result[str] = Field(default=JUDGE_PROMPT, min_length=1, max_length=20_000)
    """What is asked; {problem} and {gold} are replaced. The completion follows it, marked as material to grade, then
    the form of the answer."""
    answers: Result[Literal["yes_no", "score"]] = "yes_no"
    """`yes_no`: right or wrong. `score`: from 0 to 1, which is what training is paid."""
    threshold: Result[float] = Field(default=0.5, gt=0, le=1)
    """Least score that is right, for posterior and scores."""
    temperature: Result[float] = Field(default=0.0, ge=0, le=2)
    """The judge's temperature."""
    max_tokens: Result[int] = Field(default=1024, ge=1)
    """Longest answer of the judge, in tokens."""
    max_completion_chars: Result[int] = Field(default=20_000, ge=1)
    """Of a longer completion the end is judged."""
    # Patience is an operation here, unlike the time that other verifiers give to a completion: it says nothing of what
    # is judged, only how long a server may be away or busy. Every answer is the same with more of it, one that was not
    # given is not remembered, and a run whose judge turns out to be slow goes on with more.
    timeout_s: Operation[float] = Field(default=60.0, gt=0, le=3600)
    """Wall-clock seconds for one answer; then it is asked for again."""
    retries: Operation[int] = Field(default=3, ge=0, le=20)
    """How often a question is asked again; then the verdict is `unknown`. Pauses between grow, with jitter."""
    longest_pause_s: Operation[float] = Field(default=20.0, ge=0, le=600)
    """Longest pause between two attempts, in seconds."""
    concurrency: Operation[int] = Field(default=16, ge=1, le=1024)
    """Questions asked at once."""
    cache: Placement[LocalPath] = Path(".cures/judge")
    """Folder in which answers are remembered: the same question is asked once, over all runs that share it."""


class ReasoningGymConfig(Strict):
    """The scorer of the item's reasoning-gym task; gold answers are those that `cures data generate` writes."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    """Verifier name."""
    threshold: Result[float] = Field(default=1.0, gt=0, le=1)
    """Least score that is right, for posterior and scores; training is paid the score."""
    timeout_s: Result[float] = Field(default=5.0, gt=0, le=3600)
    """Wall-clock seconds to make an item again and score an answer; then the verdict is `unknown`."""
    memory_mb: Result[int] = Field(default=2048, ge=256)
    """Address space of one process, in MiB; an answer whose scorer needs more is `unknown`."""
    workers: Operation[int] = Field(default=1, ge=1, le=256)
    """Processes that score in parallel."""


def module_of(environment: str) -> str:
    """The module that an environment is imported as, also where it is named as hubs do: owner/my-environment@1.0."""
    return environment.rpartition("/")[2].partition("@")[0].replace("-", "_").lower()


def _module(environment: str) -> str:
    if not re.fullmatch(r"[a-z_]\w*", module := module_of(environment)):
        raise ValueError("must be the name of an installed package")
    return module


Environment = Annotated[str, NoSecret("the environment"), AfterValidator(_module), Code]
"""Names the installed package of an environment."""


class EnvironmentConfig(Strict):
    """The rewards of an environment for the package `verifiers` (0.4) that is a single turn, scored from its text; gold
    answers are those that `cures data generate --environment` writes.

    They run in processes of their own, which can be killed, but are trusted: they read and write what this account may.
    """

    type: Literal["verifiers"] = "verifiers"
    """Verifier name."""
    environment: Result[Environment]
    """The installed package that exports the taskset. CURES_PLUGINS must name it where the run runs. The text of its
    Python files is part of the result: where it changes, what it has judged is judged again. What they import is not
    looked at."""
    bounds: Result[tuple[float, float]] = (0.0, 1.0)
    """Least and largest reward, the weighted sum of all that the environment gives: training is paid where it lies
    between them, as 0 to 1. A reward outside of them is `unknown`."""
    threshold: Result[float] = 1.0
    """Least reward that is right, for posterior and scores, on the environment's own scale."""
    timeout_s: Result[float] = Field(default=10.0, gt=0, le=3600)
    """Wall-clock seconds to score one completion; then its process is killed and replaced, and the verdict is
    `unknown`."""
    memory_mb: Result[int] = Field(default=4096, ge=64)
    """Address space of one such process, in MiB, imports counted; a completion whose rewards need more is `unknown`."""
    workers: Operation[int] = Field(default=1, ge=1, le=256)
    """Processes that score in parallel."""

    @model_validator(mode="after")
    def _threshold_is_within_the_bounds(self) -> EnvironmentConfig:
        low, high = self.bounds
        if not low < self.threshold <= high:
            raise ValueError(
                f"threshold is {self.threshold:g}: it must be above {low:g} and at most {high:g}, the bounds"
            )
        return self


class CustomConfig(Strict):
    """Your own function `(completion: str, gold: str) -> bool | float | None`; a number is in 0..1; None, or an
    exception, is `unknown`. With a third parameter, `prompt`, it is given the prompt too.

    It runs in processes of its own, which can be killed, but is trusted: it reads and writes what this account may, so
    it must not evaluate the completion.
    """

    type: Literal["custom"] = "custom"
    """Verifier name."""
    function: Result[OwnCode]
    """Dotted path of the function: `package.module:function`. CURES_PLUGINS must name it where the run runs. The text
    of its file is part of the result: where it changes, what it has judged is judged again. What the file imports is
    not looked at."""
    threshold: Annotated[Result[float], Later(0.5)] = Field(default=0.5, gt=0, le=1)
    """Where the function returns a number: the least one that is correct. Posterior, scores and gate hear only that;
    training is paid the number itself."""
    timeout_s: Annotated[Result[float], Later(10.0)] = Field(default=10.0, gt=0, le=3600)
    """Wall-clock seconds for one call; then its process is killed and replaced, and the verdict is `unknown`."""
    memory_mb: Annotated[Result[int], Later(4096)] = Field(default=4096, ge=64)
    """Address space of one such process, in MiB, imports counted; a call that needs more is `unknown`."""
    workers: Operation[int] = Field(default=1, ge=1, le=256)
    """Processes that call it in parallel, each with its own copy of the function's module."""


AnswerConfig = Annotated[
    ExactConfig
    | NumericConfig
    | MathConfig
    | ChoiceConfig
    | RegexConfig
    | CodeConfig
    | JudgeConfig
    | ReasoningGymConfig
    | EnvironmentConfig
    | CustomConfig,
    Field(discriminator="type"),
]
"""How the answer of a completion is judged, chosen by `type`."""


class _Weighing(Strict):
    weight: Result[float] = Field(gt=0, le=1000)
    """What training is paid for a completion that keeps the rule."""


class BoxRule(_Weighing):
    """The completion has one \\boxed{}, which is closed and not empty."""

    type: Literal["box"] = "box"
    """Rule name."""


class TagsRule(_Weighing):
    """`<a>...</a>` and `<b>...</b>` once each, in the order of `tags`, and nothing outside of them."""

    type: Literal["tags"] = "tags"
    """Rule name."""
    tags: Result[tuple[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,39}$")], ...]] = ("think", "answer")
    """Names of the tags."""

    @field_validator("tags")
    @classmethod
    def _tags_are_distinct(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if not tags or len(set(tags)) != len(tags):
            raise ValueError("name at least one tag, each once")
        return tags


class PatternRule(_Weighing):
    """A pattern occurs in the completion."""

    type: Literal["pattern"] = "pattern"
    """Rule name."""
    pattern: Result[str] = Field(min_length=1, max_length=1000)
    """Regular expression (Python's), searched in the completion's last 8,000 characters."""
    timeout_s: Result[float] = Field(default=1.5, gt=0, le=60)
    """Wall-clock seconds for one search; then the verdict is `unknown`."""

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str) -> str:
        return _compiling(pattern)


FormatRule = Annotated[BoxRule | TagsRule | PatternRule, Field(discriminator="type")]
"""A rule of format with its weight, chosen by `type`."""


class WeightedConfig(Strict):
    """Training is paid `answer_weight` for a right answer and the weight of every rule of format that is kept.

    Only the reward is: whether a completion is correct, and with it the posterior, the scores and the gate, is for
    `answer` alone to say.
    """

    type: Literal["weighted"] = "weighted"
    """Verifier name."""
    answer: AnswerConfig
    """How the answer is judged."""
    answer_weight: Result[float] = Field(default=1.0, gt=0, le=1000)
    """What training is paid for a right answer."""
    format: tuple[FormatRule, ...] = Field(min_length=1)
    """Rules of format. Their weights together are less than `answer_weight`: no form makes up for a wrong answer."""

    @model_validator(mode="after")
    def _answers_pay_most(self) -> WeightedConfig:
        if (total := sum(rule.weight for rule in self.format)) >= self.answer_weight:
            raise ValueError(
                f"the format weights sum to {total:g}, answer_weight is {self.answer_weight:g}: a well-formed wrong "
                "answer would be paid like a right one; make them smaller"
            )
        return self


PlainConfig = Annotated[AnswerConfig | WeightedConfig, Field(discriminator="type")]
"""One verifier's configuration, chosen by `type`."""


class SourceReward(Strict):
    """A verifier for the prompts of some sources, and for rows that name it."""

    name: Result[str] = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,39})?$")
    """What rows call it in the column `data.columns.verifier`. Empty: as its type is called."""
    sources: Result[tuple[LocalName, ...]] = ()
    """Sources whose prompts it judges. Without any, only rows that name it."""
    verifier: PlainConfig
    """How it judges."""

    @property
    def called(self) -> str:
        return self.name or self.verifier.type


class BySourceConfig(Strict):
    """Another verifier for each source, or for each row: a row's own name for one wins over its source, and what
    neither settles is for `default`. They judge one after another, so that no more processes are busy than the largest
    of them has workers."""

    type: Literal["by-source"] = "by-source"
    """Verifier name."""
    default: PlainConfig = ExactConfig()
    """Judges what no entry is for. In a profile it may be written as `reward` itself, with `by_source` beside it. Rows
    may name it: default."""
    by_source: tuple[SourceReward, ...] = Field(min_length=1)
    """Verifiers for the prompts of some sources, and for rows that name them."""

    @field_validator("by_source")
    @classmethod
    def _one_is_responsible(cls, entries: tuple[SourceReward, ...]) -> tuple[SourceReward, ...]:
        names = Counter(["default", *(entry.called for entry in entries)])
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(f"two verifiers are called {twice[0]!r}: give one a name of its own")
        sources = Counter(source for entry in entries for source in entry.sources)
        if twice := [source for source, number in sources.items() if number > 1]:
            raise ValueError(f"source {twice[0]!r} has two verifiers: name it once")
        return entries

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that an entry is for."""
        return tuple(source for entry in self.by_source for source in entry.sources)


def _with_default(values: object) -> object:
    """`reward` with a list `by_source` beside its own settings: those are the default's."""
    if not isinstance(values, dict) or "by_source" not in values or values.get("type") == "by-source":
        return values
    default = {key: value for key, value in values.items() if key != "by_source"}
    return {"type": "by-source", "by_source": values["by_source"], **({"default": default} if default else {})}


RewardConfig = Annotated[PlainConfig | BySourceConfig, Field(discriminator="type"), BeforeValidator(_with_default)]
"""A verifier's configuration, chosen by `type`."""
