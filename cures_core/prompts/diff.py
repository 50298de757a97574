"""Knows how two prompt sets differ: same, relabelled, edited, new and removed prompts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cures_core.prompts.canonical import canonical, tokens
from cures_core.prompts.overlap import is_prose
from cures_core.prompts.promptset import PromptSet
from cures_core.terms import Prompt

EDITED_SHARE = 0.5
"""Two problems are versions of one from this share of common word triples (Jaccard) on."""

_COMMON = 200
"""A triple of more problems than this says nothing about which one was edited."""

Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """A prompt whose content changed. `what` is problem, answer or turns (or several, `problem and answer`)."""

    old: Prompt
    new: Prompt
    what: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Prompts by fate; lists are in order of id. `relabelled` ones count as `same` too: their content is equal."""

    same: int
    relabelled: list[tuple[Prompt, Prompt]]
    edited: list[Edit]
    new: list[Prompt]
    removed: list[Prompt]

    def counts(self) -> dict[str, int]:
        return {
            "same": self.same,
            "relabelled": len(self.relabelled),
            "edited": len(self.edited),
            "new": len(self.new),
            "removed": len(self.removed),
        }


def difference(old: PromptSet, new: PromptSet) -> Difference:
    """Compare by content id, then pair what is left: equal problems first, then similar ones, each once.

    A posterior follows the content id, so edited prompts start again; the pairs are for people. Problems of few words
    (formulas) pair only when equal: their triples repeat by chance.
    """
    gone, come = set(old.ids) - set(new.ids), set(new.ids) - set(old.ids)
    before = {p.id: p for p in old if p.id in gone}
    after = {p.id: p for p in new if p.id in come}
    kept_new = {p.id: p for p in new if p.id not in come}
    relabelled = [(p, kept_new[p.id]) for p in old if p.id in kept_new and p != kept_new[p.id]]
    edits = []
    for old_id, new_id, similarity in _pairs(before, after):
        edits.append(_edit(before.pop(old_id), after.pop(new_id), similarity))
    return Difference(
        same=len(old) - len(gone),
        relabelled=relabelled,
        edited=sorted(edits, key=lambda edit: edit.old.id),
        new=[after[i] for i in sorted(after)],
        removed=[before[i] for i in sorted(before)],
    )


def _edit(old: Prompt, new: Prompt, similarity: float) -> Edit:
    contents = ("problem", "answer", "turns")
    changed = [name for name in contents if getattr(old, name) != getattr(new, name)]
    return Edit(old, new, " and ".join(changed), round(similarity, 4))


def _pairs(before: Mapping[str, Prompt], after: Mapping[str, Prompt]) -> Iterator[tuple[str, str, float]]:
    """(old id, new id, similarity), best pairs first, nobody twice."""
    old_forms = {i: canonical(before[i].problem) for i in sorted(before)}
    new_forms = {i: canonical(after[i].problem) for i in sorted(after)}
    by_form = defaultdict(list)
    for i, form in new_forms.items():
        by_form[form].append(i)
    candidates = [(1.0, old_id, new_id) for old_id, form in old_forms.items() for new_id in by_form.get(form, ())]
    candidates += _similar(old_forms, new_forms)
    used: set[str] = set()
    for similarity, old_id, new_id in sorted(candidates, key=lambda c: (-c[0], c[1], c[2])):
        if old_id not in used and new_id not in used:
            used |= {old_id, new_id}
            yield old_id, new_id, similarity


def _similar(old_forms: Mapping[str, str], new_forms: Mapping[str, str]) -> Iterable[tuple[float, str, str]]:
    new_grams = {i: grams for i, form in new_forms.items() if (grams := _triples(form))}
    holders: defaultdict[Gram, list[str]] = defaultdict(list)
    for i, grams in new_grams.items():
        for gram in grams:
            holders[gram].append(i)
    for old_id, form in old_forms.items():
        own = _triples(form)
        shared: Counter[str] = Counter()
        for gram in own:
            if len(holders.get(gram, ())) <= _COMMON:
                shared.update(holders.get(gram, ()))
        for new_id, number in shared.items():
            if number * 2 >= EDITED_SHARE * len(own):  # the exact count follows; common triples were left out above
                share = len(own & new_grams[new_id]) / len(own | new_grams[new_id])
                if share >= EDITED_SHARE:
                    yield share, old_id, new_id


def _triples(form: str) -> frozenset[Gram]:
    words = tokens(form)
    return frozenset(zip(words, words[1:], words[2:], strict=False)) if is_prose(words) else frozenset()
