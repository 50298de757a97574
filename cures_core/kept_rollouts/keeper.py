"""Knows which rollouts of a step are kept, and keeps them: by a hash, so that no random number of the run is used."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from cures_core.config.kept_rollouts import KeptRolloutsConfig
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.kept_rollouts.table import KeptRollout, from_line, to_line
from cures_core.means import finite
from cures_core.prompts.chats import transcript
from cures_core.tally import Tally
from cures_core.terms import Credit, Group, Outcome, Rollout, Verdict


class KeptCounts(TypedDict):
    """What became of the rollouts of an epoch that were to be kept."""

    kept: int
    withheld: int
    """Of those kept: without their texts, because the redaction failed."""
    cut: int
    """Of those kept: with a text that has lost its middle."""
    left_out: int
    """Beyond the most of a step or an epoch."""


@dataclass(frozen=True)
class _Wanted:
    """A rollout to be kept."""

    reason: str
    """As `KeptRollout.kept_for`."""
    persistent: bool
    """Of the half of the share that is the same prompts in every step."""
    order: float
    """Which go first where there are too many: 0..1, a hash of the prompt, and of the step unless it is persistent."""
    number: int
    """Its place among the rollouts of the step."""
    group: Group
    rollout: Rollout
    verdict: Verdict

    @property
    def is_unknown(self) -> bool:
        return self.verdict.outcome is Outcome.UNKNOWN


class RolloutKeeper:
    """The rollouts kept of one epoch. `lines` and `left_out` are its state: a resumed epoch goes on from them."""

    def __init__(self, cfg: KeptRolloutsConfig, seed: int, epoch: int, redactor: Redactor) -> None:
        self._cfg, self._seed, self._epoch, self._redactor = cfg, seed, epoch, redactor
        self.lines: list[bytes] = []
        """A line of JSON for each (`table.to_line`)."""
        self.left_out = 0
        """How many were to be kept, and were too many."""
        self._room = cfg.epoch_bytes

    def go_on(self, lines: Sequence[bytes], left_out: int) -> None:
        """Take over what a checkpoint of this epoch has."""
        self.lines, self.left_out = list(lines), left_out
        self._room = self._cfg.epoch_bytes - sum(map(len, lines))

    def observe(
        self, step: int, groups: Sequence[Group], credits: Mapping[tuple[str, int], Credit], tally: Tally
    ) -> None:
        """Keep what is to be kept of a step. `credits`: what the update made of rollouts, by request and index;
        `tally`: the verdicts up to now, those of the step included."""
        if not self._cfg.per_step:
            return
        wanted = list(self._wanted(step, groups, tally))
        lines: dict[int, bytes] = {}
        for one in _chosen(wanted, self._cfg.per_step):
            line = to_line(self._row(step, one, credits.get((one.rollout.request_id, one.rollout.index))))
            if len(line) <= self._room:
                self._room -= len(line)
                lines[one.number] = line
        self.lines += [lines[number] for number in sorted(lines)]
        self.left_out += len(wanted) - len(lines)

    def rows(self) -> list[KeptRollout]:
        """All that is kept, in order of their steps."""
        return [from_line(line) for line in self.lines]

    def counts(self) -> KeptCounts:
        rows = self.rows()
        return {
            "kept": len(rows),
            "withheld": sum(row.withheld for row in rows),
            "cut": sum(row.cut > 0 for row in rows),
            "left_out": self.left_out,
        }

    def _wanted(self, step: int, groups: Sequence[Group], tally: Tally) -> Iterator[_Wanted]:
        number, half = 0, 1 - math.sqrt(1 - self._cfg.share)  # either of two such chances is one of `share`
        for group in groups:
            prompt = group.request.prompt.id
            order, always = _uniform(self._seed, prompt, step), _uniform(self._seed, prompt)
            persistent = always < half
            of_group = ""
            if prompt.startswith(self._cfg.prompts):
                of_group = "prompt"
            elif order < half or persistent:
                of_group = "share"
            elif tally.prompts[prompt].is_suspicious:
                of_group = "suspicious"
            for rollout, verdict in zip(group.rollouts, group.verdicts, strict=True):
                unknown = verdict.outcome is Outcome.UNKNOWN and of_group in ("", "suspicious")
                if reason := "unknown" if unknown else of_group:
                    place = always if persistent else order
                    yield _Wanted(reason, persistent, place, number, group, rollout, verdict)
                number += 1

    def _row(self, step: int, one: _Wanted, credit: Credit | None) -> KeptRollout:
        prompt, rollout, verdict = one.group.request.prompt, one.rollout, one.verdict
        whole = (transcript(prompt), prompt.answer, rollout.text, verdict.extracted, verdict.reason)
        readable = self._redactor.texts(*whole)
        # Redacted first: of a secret that lies over the edge of a cut, a part would be left that no hook knows.
        texts = [shorten(text, self._cfg.max_text_bytes) for text in readable or [""] * len(whole)]
        (problem, _), (answer, _), (completion, _), (extracted, _), (reason, _) = texts
        return KeptRollout(
            epoch=self._epoch,
            step=step,
            prompt=prompt.id,
            source=prompt.source,
            level=prompt.level,
            request=rollout.request_id,
            index=rollout.index,
            kept_for=one.reason,
            problem=problem,
            answer=answer,
            completion=completion,
            outcome=verdict.outcome.value,
            extracted=extracted,
            rule=verdict.rule,
            reason=reason,
            reward=None if verdict.outcome is Outcome.UNKNOWN else finite(verdict.paid),
            advantage=None if credit is None else finite(credit.advantage),
            tokens=len(rollout.token_ids),
            finish_reason=rollout.finish_reason.value,
            logprob_gap=None if credit is None else finite(credit.logprob_gap),
            cut=sum(number for _, number in texts),
            withheld=readable is None,
        )


def _chosen(wanted: Sequence[_Wanted], most: int) -> list[_Wanted]:
    """Those that are kept of a step, the most wanted first: all of named prompts, and `most` of the others.

    Of those, what looks wrong has the first half: rollouts without a verdict, of the share or not, then those of
    suspicious prompts. The share has the rest, its persistent prompts first. What one of them leaves free is the
    other's: so a step without a single verdict still shows the share, and a large share hides no odd rollout.
    """
    named = [one for one in wanted if one.reason == "prompt"]
    others = [one for one in wanted if one.reason != "prompt"]
    odd = _in_order((one for one in others if one.is_unknown or one.reason == "suspicious"), lambda one: one.is_unknown)
    share = _in_order((one for one in others if one.reason == "share"), lambda one: one.persistent)
    half = (most + 1) // 2
    each_once = {one.number: one for one in [*odd[:half], *share, *odd[half:]]}
    return [*named, *list(each_once.values())[:most]]


def _in_order(some: Iterable[_Wanted], goes_first: Callable[[_Wanted], bool]) -> list[_Wanted]:
    return sorted(some, key=lambda one: (not goes_first(one), one.order, one.number))


def shorten(text: str, most: int) -> tuple[str, int]:
    """(the text, or its beginning and end of `most` bytes of UTF-8 together with a word in between; characters left
    out). What UTF-8 cannot hold is escaped."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode(), 0
    half = most // 2
    first, last = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    number = len(data.decode()) - len(first) - len(last)
    return f"{first}\n[... {number:,} characters left out ...]\n{last}", number


def _uniform(seed: int, *parts: str | int) -> float:
    """A number in 0..1 that follows from the seed and the parts."""
    name = "\n".join(["cures-kept-rollouts", str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
