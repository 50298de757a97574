"""Knows whether a training prompt is also in an evaluation suite, word for word, reformatted, or almost.

Five kinds of match, strongest first:

- exact: equal text (NFC, outer white space aside).
- normalised: equal `canonical` form: case, LaTeX and Unicode spelling, spacing and sentence punctuation differ.
- contained: the suite's problem stands inside the prompt as it is, with other text around it.
- ngram: at least half of the problem's 8-grams (numbers masked) are in the prompt, all its numbers and operators too,
  and the gold answers have the same value: the same problem in other words.
- near: at least 60 % of the 8-grams, but other numbers, signs or another answer: a sibling, such as a renumbered copy.
  Training on siblings is what a curriculum wants, so they are only reported.

Passages that many problems of a set share word for word (instructions, templates: `boilerplate`) are no evidence, of
whatever length: they are left out of both sides. Problems of which the same words are left are `normalised`.

The first four are contamination. Problems of fewer than 6 words (formulas, chains of digits) are compared exactly and
normalised only: n-grams of pure symbols repeat by chance. Translations and paraphrases in other words are not found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cures_core.prompts.boilerplate import Passage, boilerplate, divided
from cures_core.prompts.canonical import answer_key, canonical, tokens
from cures_core.prompts.checks import NO_VERIFIER, GoldJudge, Same, same_key
from cures_core.prompts.defects import Flaw
from cures_core.prompts.promptset import PromptSet

N = 8
LONG_N = 13
LEAK_SHARE = 0.5
NEAR_SHARE = 0.6
MIN_WORDS = 6

Gram = tuple[str, ...]

KINDS = ("exact", "normalised", "contained", "ngram", "near")


@dataclass(frozen=True, slots=True)
class Match:
    """A prompt's strongest match: the suite and item it matches, how, and the share of the item's n-grams it holds."""

    suite: str
    item: str
    kind: str
    share_8: float
    share_13: float

    @property
    def leak(self) -> bool:
        return self.kind != "near"


@dataclass(frozen=True, slots=True)
class _Item:
    suite: str
    id: str
    answer: str
    words: list[str]
    around: list[str]
    """Its boilerplate."""
    signature: Counter[str]
    num_grams: int


class SuiteIndex:
    """All items of all suites, ready to be looked up. Memory: about 100 bytes for each 8-gram of the suites.

    `common` are the passages that the prompts to be looked up share; those of the suites are found here.
    """

    def __init__(self, suites: Mapping[str, PromptSet], common: frozenset[Passage] = frozenset()) -> None:
        self._common = common.union(*(boilerplate(suite.column("problem")) for suite in suites.values()))
        self._exact: dict[str, int] = {}
        self._canonical: dict[str, int] = {}
        self._cores: dict[tuple[str, ...], int] = {}
        self._grams: defaultdict[Gram, list[int]] = defaultdict(list)
        self._items: list[_Item] = []
        for name in sorted(suites):
            for prompt in suites[name]:
                self._add(name, prompt.id, prompt.problem, prompt.answer)
        self._known = frozenset(self._grams)  # a set meets another in C; a dictionary does not

    def _add(self, suite: str, item_id: str, problem: str, answer: str) -> None:
        form = canonical(problem)
        words, around = divided(tokens(form), self._common)
        grams = _grams(words, N) if is_prose(words) else frozenset()
        position = len(self._items)
        self._items.append(_Item(suite, item_id, answer, words, around, _signature(words), len(grams)))
        if words:
            self._cores.setdefault(tuple(words), position)
        self._exact.setdefault(problem, position)
        self._canonical.setdefault(form, position)
        for gram in grams:
            self._grams[gram].append(position)

    def match(self, problem: str, answer: str, same: Same = same_key) -> Match | None:
        """The strongest match of a problem, None where there is none. `same` says whether two gold answers are one."""
        if (position := self._exact.get(problem)) is not None:
            return self._whole(position, "exact")
        form = canonical(problem)
        if (position := self._canonical.get(form)) is not None:
            return self._whole(position, "normalised")
        words, around = divided(tokens(form), self._common)
        if (position := self._cores.get(tuple(words))) is not None and self._same_core(position, words, around):
            return self._whole(position, "normalised")
        if len(words) < N:
            return None
        shared: Counter[int] = Counter()
        for gram in _grams(words, N) & self._known:
            shared.update(self._grams[gram])
        matches = []
        for position, number in shared.items():
            item = self._items[position]
            share = number / item.num_grams
            if share >= LEAK_SHARE and (kind := _kind(item, share, words, answer, same)):
                matches.append((KINDS.index(kind), -share, position, kind))
        if not matches:
            return None
        _, share, position, kind = min(matches)
        item = self._items[position]
        return Match(item.suite, item.id, kind, round(-share, 4), round(_share(item.words, words, LONG_N), 4))

    def _same_core(self, position: int, words: list[str], around: list[str]) -> bool:
        """Whether an equal core makes an equal problem: a short one only where no other words stand around it, or a
        template's "largest" would be as good as its "smallest"."""
        theirs = self._items[position].around
        return is_prose(words) or not around or not theirs or around == theirs

    def _whole(self, position: int, kind: str) -> Match:
        return Match(self._items[position].suite, self._items[position].id, kind, 1.0, 1.0)


def _kind(item: _Item, share: float, words: Sequence[str], answer: str, same: Same) -> str:
    if share >= 1.0 and f" {' '.join(item.words)} " in f" {' '.join(words)} ":
        return "contained"
    same_numbers = not item.signature - _signature(words)
    # The letter of a choice is no evidence: siblings often share it.
    if same_numbers and not _is_letter(item.answer) and same(item.answer, answer):
        return "ngram"
    return "near" if share >= NEAR_SHARE else ""


def find_overlap(
    prompts: PromptSet, suites: Mapping[str, PromptSet], judge: GoldJudge = NO_VERIFIER
) -> Iterator[tuple[int, Match]]:
    """(index in `prompts`, its strongest match) of every prompt that has one, in order. The verifier of a prompt says
    whether its gold answer is an item's."""
    index = SuiteIndex(suites, boilerplate(prompts.column("problem")) if suites else frozenset())
    for i, (problem, answer, source, name) in enumerate(_texts(prompts)):
        if (found := index.match(problem, answer, judge.of(source, name).same_answer)) is not None:
            yield i, found


def overlap_flaw(match: Match, policy: Literal["drop", "warn", "reject"]) -> Flaw:
    """A match as a flaw of the prompt: `eval_leak` drops it unless the policy is to warn, `eval_near` only reports."""
    code = ("eval_leak_kept" if policy == "warn" else "eval_leak") if match.leak else "eval_near"
    return code, f"{match.suite} {match.item[:12]}, {match.kind}, {match.share_8:.0%} of its 8-grams"


def _texts(prompts: PromptSet) -> Iterator[tuple[str, str, str, str]]:
    for batch in prompts.table.select(["problem", "answer", "source", "verifier"]).to_batches(max_chunksize=4096):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _is_letter(answer: str) -> bool:
    key = answer_key(answer)
    return key.startswith("t:") and len(key) == len("t:a")


def _signature(words: Sequence[str]) -> Counter[str]:
    """Numbers, operators and LaTeX commands, counted: what makes two problems of equal wording different."""
    return Counter(word for word in words if not word.isalpha())


def is_prose(words: Sequence[str]) -> bool:
    """Enough words for n-grams to mean something; formulas and chains of digits repeat by chance."""
    return sum(len(word) > 1 and word.isalpha() for word in words) >= MIN_WORDS


def _grams(words: Sequence[str], n: int) -> frozenset[Gram]:
    """The n-grams of a text, numbers masked."""
    masked = ["0" if word[0].isdigit() else word for word in words]
    return frozenset(zip(*(masked[i:] for i in range(n)), strict=False))


def _share(item: Sequence[str], words: Sequence[str], n: int) -> float:
    own = _grams(item, n)
    return len(own & _grams(words, n)) / len(own) if own else 0.0
