"""Knows how a step is captured in CUDA graphs, one for each shape, and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

_log = logging.getLogger(__name__)

Shape = tuple[int, int, float, float]
"""(rows, columns, temperature, top_p): what is fixed in a captured step."""


class StepGraphs:
    """Runs `step(rows, columns, temperature, top_p)`, which reads and writes tensors that stay where they are.

    On CUDA the first run of a shape is an ordinary one (libraries set themselves up, which a capture may not), the
    second is captured, and from then on a run is one launch. Elsewhere every run is an ordinary one.
    """

    def __init__(self, step: Callable[[int, int, float, float], None], device: torch.device) -> None:
        self._step = step
        self.captures = device.type == "cuda"
        """False: every run is an ordinary one, whatever was captured before."""
        self._met: set[Shape] = set()
        self._graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        self._inputs: tuple[int, ...] = ()
        # One pool for all: a step leaves nothing in it that another one reads, and no two run at a time.
        self._pool = torch.cuda.graph_pool_handle() if self.captures else None

    @property
    def captured(self) -> int:
        """Shapes that are replayed."""
        return len(self._graphs)

    def expect(self, inputs: tuple[int, ...]) -> None:
        """Addresses of the weights. Where they have changed, what was captured would read the old ones: forget it."""
        if inputs != self._inputs:
            self._inputs = inputs
            self._graphs.clear()

    def run(self, rows: int, columns: int, temperature: float, top_p: float) -> None:
        shape = (rows, columns, temperature, top_p)
        if self.captures and shape in self._met and shape not in self._graphs:
            self._capture(shape)
        if self.captures and shape in self._graphs:
            self._graphs[shape].replay()
            return
        self._met.add(shape)
        self._step(*shape)

    def _capture(self, shape: Shape) -> None:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Thread-local: a checkpoint may be copied to the host in another thread meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._step(*shape)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("this model's decoding step cannot be captured (%s): it is run kernel by kernel", error)
            self.captures = False
            return
        finally:
            # A capture that fails stays on its own stream, where work no longer waits for that on the ordinary one.
            torch.cuda.set_stream(stream)
        self._graphs[shape] = graph
