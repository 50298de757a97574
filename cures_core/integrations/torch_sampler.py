"""A sampler for torch's data loaders, with torchdata's stateful one included, that draws by a curriculum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cures_core.curriculum import Curriculum
from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from cures_core.integrations.overlapping import Draws

try:
    from torch.utils.data import Sampler
except ImportError as error:
    raise missing_extra("train", "a sampler for torch", error, "pip install torch") from error


class CurriculumSampler(Sampler[int]):
    """Yields rows of the table that the curriculum was made from: one draw a row, not repeated.

    A loader may fetch ahead, and rewards may come late: what is drawn then knows the less. Every process has to make
    the same sampler and tell it the same rewards, those of all processes.
    """

    def __init__(
        self, curriculum: Curriculum, num_samples: int | None = None, *, lost_after: int | None = None
    ) -> None:
        """`num_samples`: draws of an epoch; as many as there are prompts if not given. `lost_after`: rows that are not
        told when so many further steps have been drawn count as unknown; if not given, they wait to be told or dropped.
        """
        if num_samples is not None and num_samples < 1:
            raise ConfigError(f"num_samples: {num_samples} is below 1")
        self.draws = Draws(curriculum, lost_after)
        self.num_samples = len(curriculum) if num_samples is None else num_samples
        self._yielded = 0

    def __iter__(self) -> Iterator[int]:
        """What is left of the epoch: one that was broken off or resumed goes on."""
        while self._yielded < self.num_samples:
            self._yielded += 1
            yield self.draws.next().row
        self._yielded = 0

    def __len__(self) -> int:
        return self.num_samples

    def tell(self, row: int, rewards: Iterable[float | None]) -> None:
        """Rewards of the rollouts of a row, of its oldest draw that was not told; None where there is no verdict."""
        self.draws.tell(row, rewards)

    def drop(self, row: int) -> None:
        """The trainer has dropped this row, all of its oldest draw that was not told: its rollouts are unknown."""
        self.draws.drop(row)

    def state_dict(self) -> dict[str, Any]:
        """Everything, at any moment; torchdata's loader keeps it in its own state."""
        return {"yielded": self._yielded, "draws": self.draws.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on. Rows that were drawn and not told are counted as unknown: their loader does not load them again."""
        if "draws" not in state:
            raise ConfigError("this is no state of a curriculum's sampler: the checkpoint was written with another one")
        self.draws.load_state_dict(state["draws"], again=False)
        self._yielded = int(state["yielded"]) % self.num_samples
