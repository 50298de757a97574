"""One prompt after the other, with answers in any order: for trainers whose rollouts of several steps overlap."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from cures_core.curriculum import Ask, Curriculum
from cures_core.errors import ConfigError, CurriculumMisuse
from cures_core.integrations.groups import group_size


class Draws:
    """Draws from a curriculum, a step's worth at a time, and closes the step at once; rewards count when they come.

    `curriculum` should be used through this object alone.
    """

    def __init__(self, curriculum: Curriculum, lost_after: int | None = None) -> None:
        """`lost_after`: a draw that is not told when so many further steps have been drawn counts as unknown, for
        trainers that drop prompts without a word. None: it stays open until it is told or dropped.

        Raises `ConfigError` for a strategy that needs the rewards within the step, and for `lost_after` below 1.
        """
        group_size(curriculum.config)
        if lost_after is not None and lost_after < 1:
            raise ConfigError(f"lost_after: {lost_after} is below 1; leave it out to wait for ever")
        self.curriculum, self._lost_after = curriculum, lost_after
        self._queue: deque[Ask] = deque()
        self._out: dict[int, deque[tuple[int, Ask]]] = {}  # handed out, by row: step of handing out, ask
        self._lost: Counter[int] = Counter()  # draws of a row that were given up, and may be told all the same

    def next(self) -> Ask:
        """The next prompt to roll out."""
        if not self._queue:
            self._give_up()
            self._queue.extend(self.curriculum.ask())
            self.curriculum.defer()
        ask = self._queue.popleft()
        self._out.setdefault(ask.row, deque()).append((self.curriculum.step, ask))
        return ask

    def tell(self, row: int, rewards: Iterable[float | None]) -> None:
        """What came of the prompt in this row, of the oldest draw of it that was not told.

        Rewards of a draw that was given up after `lost_after` steps are passed over: it has been counted. Raises
        `CurriculumMisuse`, and counts nothing, for a row that was not drawn and for bad rewards.
        """
        waiting = self._out.get(row)
        if not waiting and self._lost[row]:
            self._lost[row] -= 1
            return
        if not waiting:
            raise CurriculumMisuse(f"row {row} was not drawn, or was told before; nothing was counted")
        self.curriculum.tell(waiting[0][1].request_id, rewards)
        self._close(row)

    def drop(self, row: int) -> None:
        """The trainer has dropped the prompt in this row, all of its oldest draw that was not told: its rollouts are
        counted as unknown. Raises as `tell` does."""
        self.tell(row, ())

    def _give_up(self) -> None:
        if self._lost_after is None:
            return
        for row in list(self._out):
            while (waiting := self._out.get(row)) and self.curriculum.step - waiting[0][0] >= self._lost_after:
                self.curriculum.tell(waiting[0][1].request_id)
                self._close(row)
                self._lost[row] += 1

    def _close(self, row: int) -> None:
        self._out[row].popleft()
        if not self._out[row]:
            del self._out[row]

    @property
    def in_flight(self) -> list[Ask]:
        """What was handed out and not told, in the order of drawing."""
        out = {ask.request_id for asks in self._out.values() for _, ask in asks}
        return [ask for ask in self.curriculum.open if ask.request_id in out]

    def state_dict(self) -> dict[str, Any]:
        """Everything, what is in flight included; at any moment."""
        return {"curriculum": self.curriculum.state_dict(), "queue": [ask.request_id for ask in self._queue]}

    def load_state_dict(self, state: Mapping[str, Any], *, again: bool) -> None:
        """Go on. What was in flight is handed out `again`, before anything else, or is counted as unknown.

        Raises `ConfigError` for the state of another strategy or prompt set.
        """
        if not isinstance(state, Mapping) or "queue" not in state or "curriculum" not in state:
            raise ConfigError("this is no state of a sampler: take what its state_dict() gave")
        self.curriculum.load_state_dict(state["curriculum"])
        queued = set(state["queue"])
        lost = [ask for ask in self.curriculum.open if ask.request_id not in queued]
        waiting = [ask for ask in self.curriculum.open if ask.request_id in queued]
        self._queue, self._out, self._lost = deque([*lost, *waiting] if again else waiting), {}, Counter()
        for ask in [] if again else lost:
            self.curriculum.tell(ask.request_id, unknown=ask.n)
