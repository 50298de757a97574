"""Knows the decoding loop: admit prompts into free slots, draw one token a row, drop finished rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cures_core.config.rollout import HfRolloutConfig
from cures_core.errors import TrainingDiverged
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.eager_rows import Drawn
from cures_core.rollout.hf.kv_rows import Admission, Prefix
from cures_core.rollout.hf.sampling import Identity, uniforms
from cures_core.rollout.stopping import StopRule
from cures_core.terms import FinishReason

_PREFILL_TOKENS = 16_384
"""Prompt tokens, padding included, that go through the model at once (one prompt at least): bounds activations."""

_ADMIT_SHARE = 1 / 8
"""Free share of the slots from which waiting prompts are admitted: a prefill costs about as much as a step."""


class Rows(Protocol):
    """The device's side of decoding: slots that each hold one row, its keys and values, numbers and last token.

    Order of calls: `clear`, `place` prompts into slots, then `step` again and again; `keep` drops the other slots.
    """

    drop_share: float
    """Free share from which, with nothing waiting, finished rows are dropped."""

    def clear(self) -> None:
        """No row lives."""
        ...

    def place(self, admitted: Admission) -> Drawn:
        """Put the prompts into their slots and return their first tokens (1, n). None may be longer than the longest
        living row.
        """
        ...

    def step(self, living: NDArray[np.int64], fed: NDArray[np.int64], count: NDArray[np.int64]) -> Drawn:
        """The next token of every slot, or the next few; those of slots that are not `living` mean nothing, nor do
        those after a row's end. `fed`, `count` (slots,): tokens in the cache, and drawn so far.
        """
        ...

    def keep(self, slots: NDArray[np.int64]) -> None:
        """Keep only the rows in `slots` (ascending); they become slots 0, 1, ..."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt and the identities of its rollouts, which are numbered `first`, `first + 1`, ... among all."""

    prompt_ids: tuple[int, ...]
    identities: Sequence[Identity]
    first: int


@dataclass(frozen=True, slots=True)
class Completion:
    """Token ids and log-probabilities of one rollout; `text` only where a stop string ended it."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: FinishReason
    text: str | None


class Decoder:
    """Decodes jobs to their end. For one use: `run` once."""

    def __init__(
        self,
        lm: CausalLM,
        stop: StopRule,
        cfg: HfRolloutConfig,
        jobs: Sequence[Job],
        rows_of: Callable[[int, int], Rows],
    ) -> None:
        """`rows_of(rows, columns)` gives that many slots for rows of at most `columns` tokens."""
        self.lm, self.stop, self.cfg = lm, stop, cfg
        self.total = sum(len(job.identities) for job in jobs)
        # Longest prompts first: every later one fits into the window, and neighbours need little padding.
        self.pending = deque(sorted((j for j in jobs if j.identities), key=lambda j: -len(j.prompt_ids)))
        self.ready = _Ready(None, [])
        self.slots = _Slots(min(cfg.batch_rows, self.total), cfg.max_new_tokens)
        longest = max((len(job.prompt_ids) for job in self.pending), default=0)
        self.rows = rows_of(self.slots.rows, longest + cfg.max_new_tokens)
        self.done: dict[int, Completion] = {}

    def run(self, progress: Callable[[int, int], None] | None) -> list[Completion]:
        """Completions in their numbering. `progress(done, total)` is called whenever rollouts have ended."""
        reported = 0
        while len(self.done) < self.total:
            self._make_room()
            self._step()
            if progress is not None and len(self.done) > reported:
                reported = len(self.done)
                progress(reported, self.total)
        return [self.done[number] for number in range(self.total)]

    def _make_room(self) -> None:
        living = self.slots.num_alive
        free = self.slots.rows - living
        if self.pending or self.ready.rows:
            if free >= _ADMIT_SHARE * self.slots.rows:
                self._admit(free)
        elif living and free >= self.rows.drop_share * self.slots.rows:
            self.rows.keep(self.slots.drop_free())

    def _admit(self, free: int) -> None:
        if self.slots.num_alive == 0:
            self.rows.clear()
        slots = np.flatnonzero(~self.slots.alive)
        while len(slots) and (self.ready.rows or self.pending):
            if not self.ready.rows:
                self.ready = self._prefill(len(slots))
            rows, self.ready.rows = self.ready.rows[: len(slots)], self.ready.rows[len(slots) :]
            self._occupy(slots[: len(rows)], rows)
            slots = slots[len(rows) :]

    def _prefill(self, free: int) -> _Ready:
        """Run the next prompts through the model: enough to fill `free` slots, within the token bound."""
        jobs: list[Job] = []
        rows: list[_Row] = []
        columns = len(self.pending[0].prompt_ids)
        while self.pending and len(rows) < free and (not jobs or (len(jobs) + 1) * columns <= _PREFILL_TOKENS):
            job = self.pending.popleft()
            rows += [_Row(len(jobs), job, index) for index in range(len(job.identities))]
            jobs.append(job)
        return _Ready(self.lm.prefill([job.prompt_ids for job in jobs]), rows)

    def _occupy(self, slots: NDArray[np.int64], rows: Sequence[_Row]) -> None:
        """Give each row a slot with its prompt's cache and the first token."""
        assert self.ready.prefix is not None
        source = np.array([row.source for row in rows])
        lengths = np.array([len(row.job.prompt_ids) for row in rows])
        drawn_from = np.zeros((len(rows), self.cfg.max_new_tokens))
        if not self.cfg.greedy:
            drawn_from = uniforms([row.job.identities[row.index] for row in rows], self.cfg.max_new_tokens)
        self.slots.occupy(slots, rows)
        tokens, logprobs = self.rows.place(Admission(slots, self.ready.prefix, source, lengths, drawn_from))
        self._record(slots, tokens[0], logprobs[0])

    def _step(self) -> None:
        """A token, or a few, for every row. Free slots are computed too, and ignored."""
        living = np.flatnonzero(self.slots.alive)
        if len(living) == 0:
            return
        for tokens, logprobs in zip(*self.rows.step(living, self.slots.fed, self.slots.count), strict=True):
            living = living[self.slots.alive[living]]
            self._record(living, tokens[living], logprobs[living])

    def _record(self, slots: NDArray[np.int64], drawn: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Append one token to every slot of `slots`; free those whose completion has ended."""
        if not np.isfinite(scores).all():
            raise TrainingDiverged(
                "rollout: the policy gives log-probabilities that are not finite. "
                "Its weights have diverged. Go on from a healthy checkpoint with a lower rate: "
                "cures run --resume RUN --set training.learning_rate=..."
            )
        self.slots.append(slots, drawn, scores)
        full = self.slots.count[slots] == self.cfg.max_new_tokens
        ended = self.stop.is_end(drawn)
        texts = self._stopped_texts(slots, drawn, ended)
        for at in np.flatnonzero(ended | full | np.isin(slots, list(texts))):
            slot = int(slots[at])
            reason = FinishReason.STOP if ended[at] or slot in texts else FinishReason.LENGTH
            number, token_ids, scored = self.slots.release(slot)
            self.done[number] = Completion(token_ids, scored, reason, texts.get(slot))

    def _stopped_texts(
        self, slots: NDArray[np.int64], drawn: NDArray[np.int64], ended: NDArray[np.bool_]
    ) -> dict[int, str]:
        """Texts of the slots in which a stop string has just been completed."""
        if not self.stop.strings:
            return {}
        suspects = slots[self.stop.suspects(drawn) & ~ended]
        texts = ((int(slot), self.stop.cut(self.slots.completion(slot))) for slot in suspects)
        return {slot: text for slot, text in texts if text is not None}


@dataclass(frozen=True, slots=True)
class _Row:
    """A rollout that waits for a slot: row `source` of a prefill, rollout `index` of `job`."""

    source: int
    job: Job
    index: int


@dataclass(slots=True)
class _Ready:
    """Prefilled prompts and the rows of them that still wait for a slot."""

    prefix: Prefix | None
    rows: list[_Row]


class _Slots:
    """What the host knows of every slot: which rollout it holds and its tokens so far."""

    def __init__(self, rows: int, max_new_tokens: int) -> None:
        self.alive = np.zeros(rows, np.bool_)
        self.number = np.zeros(rows, np.int64)
        self.prompt = np.zeros(rows, np.int64)
        self.count = np.zeros(rows, np.int64)
        self.tokens = np.zeros((rows, max_new_tokens), np.int64)
        self.logprobs = np.zeros((rows, max_new_tokens), np.float32)

    @property
    def rows(self) -> int:
        return len(self.alive)

    @property
    def num_alive(self) -> int:
        return int(np.count_nonzero(self.alive))

    @property
    def fed(self) -> NDArray[np.int64]:
        """Tokens that are in the cache: the prompt and all drawn tokens but the last."""
        fed: NDArray[np.int64] = np.maximum(self.prompt + self.count - 1, 0)
        return fed

    def occupy(self, slots: NDArray[np.int64], rows: Sequence[_Row]) -> None:
        self.alive[slots] = True
        self.number[slots] = [row.job.first + row.index for row in rows]
        self.prompt[slots] = [len(row.job.prompt_ids) for row in rows]
        self.count[slots] = 0

    def append(self, slots: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        self.tokens[slots, self.count[slots]] = tokens
        self.logprobs[slots, self.count[slots]] = logprobs
        self.count[slots] += 1

    def completion(self, slot: int) -> list[int]:
        token_ids: list[int] = self.tokens[slot, : self.count[slot]].tolist()
        return token_ids

    def release(self, slot: int) -> tuple[int, tuple[int, ...], tuple[float, ...]]:
        """Free the slot; its rollout's number, token ids and log-probabilities."""
        self.alive[slot] = False
        logprobs = self.logprobs[slot, : self.count[slot]].tolist()
        return int(self.number[slot]), tuple(self.completion(slot)), tuple(logprobs)

    def drop_free(self) -> NDArray[np.int64]:
        """Forget the free slots; the old numbers of the others, which become 0, 1, ..."""
        kept = np.flatnonzero(self.alive)
        for name in ("alive", "number", "prompt", "count", "tokens", "logprobs"):
            setattr(self, name, getattr(self, name)[kept])
        return kept
