"""The processes (ranks) of one distributed job, and what they exchange. Rank 0 leads, the others follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from cures_core.errors import RankLost, TryAgain
from cures_core.failures import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

END = "end"

Handler = Callable[[Any], object]
"""Does what rank 0 calls for; gets the call's argument, a JSON value."""


class World:
    """One rank's view. Values travel as JSON, tensors in place; a world of one rank does nothing at all.

    Unless said otherwise every rank makes the same calls in the same order. Waits end at the deadline of the process
    group, and soon after another rank died: `RankLost`.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: ProcessGroup | None = None) -> None:
        """`group`: a torch process group that moves CPU tensors and those of the trainer's device."""
        self.rank, self.size, self._group = rank, size, group

    @property
    def _peers(self) -> ProcessGroup:
        assert self._group is not None  # several ranks have one
        return self._group

    def call(self, name: str, argument: object = None) -> None:
        """Rank 0 only: have the others do `name`. They are in `calls` meanwhile."""
        if self.size > 1:
            self.share([name, argument], f"the others to take the call {name!r}")

    def calls(self) -> Iterator[tuple[str, Any]]:
        """All ranks but 0: what rank 0 calls for, until it ends the job."""
        while True:
            name, argument = self.share(None, "rank 0's next call")
            if name == END:
                return
            yield name, argument

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Rank 0 only: the others are told to end when the work inside is done, or stops between two calls."""
        try:
            yield
        except TryAgain:
            self.call(END)
            raise
        self.call(END)

    def gather(self, value: object, what: str) -> list[Any]:
        """Rank 0: the values of all ranks, in their order. The others: an empty list."""
        if self.size == 1:
            return [value]
        if self.rank:
            with self._named(what):
                self._send(_packed(value))
            return []
        with self._named(what):
            return [value, *(json.loads(self._receive(rank)) for rank in range(1, self.size))]

    def sum_(self, tensor: torch.Tensor, what: str) -> torch.Tensor:
        """Replace a tensor by its sum over the ranks."""
        return self._reduce(tensor, "SUM", what)

    def max_(self, tensor: torch.Tensor, what: str) -> torch.Tensor:
        """Replace a tensor by its largest values over the ranks."""
        return self._reduce(tensor, "MAX", what)

    def broadcast_(self, tensor: torch.Tensor, what: str) -> torch.Tensor:
        """Replace a tensor by that of rank 0."""
        if self.size > 1:
            from torch.distributed import BroadcastOptions

            options = BroadcastOptions()
            options.rootRank, options.rootTensor = 0, 0
            with self._named(what):
                self._peers.broadcast([tensor], options).wait()
        return tensor

    def _reduce(self, tensor: torch.Tensor, operation: str, what: str) -> torch.Tensor:
        if self.size > 1:
            from torch.distributed import AllreduceOptions, ReduceOp

            options = AllreduceOptions()
            options.reduceOp = getattr(ReduceOp, operation)
            with self._named(what):
                self._peers.allreduce([tensor], options).wait()
        return tensor

    def share(self, value: object, what: str) -> Any:
        """Rank 0's value (a JSON value) on every rank; what the others give is ignored."""
        import torch

        # A broadcast needs equal shapes on all ranks: the length goes ahead.
        data = _packed(value) if self.rank == 0 else None
        length = torch.tensor([0 if data is None else len(data)])
        self.broadcast_(length, what)
        if data is None:
            data = torch.empty(int(length), dtype=torch.uint8)
        self.broadcast_(data, what)
        return value if self.rank == 0 else json.loads(data.numpy().tobytes())

    def _send(self, data: torch.Tensor) -> None:
        # Length first, under a tag of its own: the receiver cannot know how much room to make.
        import torch

        self._peers.send([torch.tensor([len(data)])], 0, 0).wait()
        self._peers.send([data], 0, 1).wait()

    def _receive(self, rank: int) -> bytes:
        import torch

        length = torch.zeros(1, dtype=torch.int64)
        self._peers.recv([length], rank, 0).wait()
        data = torch.empty(int(length), dtype=torch.uint8)
        self._peers.recv([data], rank, 1).wait()
        return bytes(data.numpy().tobytes())

    def _named(self, what: str) -> AbstractContextManager[None]:
        who = f"rank {self.rank} of {self.size}"
        return losing_ranks(lambda reason: f"{who} waited for {what}, but another rank is gone or late: {reason}")


@contextmanager
def losing_ranks(message: Callable[[str], str]) -> Iterator[None]:
    """`RankLost` where torch gives up waiting, with the message made of its reason."""
    try:
        yield
    except RuntimeError as error:  # gloo, NCCL and stores raise nothing more exact
        if is_out_of_memory(error):
            raise
        raise RankLost(message(str(error).partition("\n")[0])) from error


def serve(world: World, handlers: Mapping[str, Handler]) -> None:
    """All ranks but 0: do what rank 0 calls for until it ends the job."""
    for name, argument in world.calls():
        handlers[name](argument)


def _packed(value: object) -> torch.Tensor:
    """JSON in a tensor of bytes."""
    import torch

    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
