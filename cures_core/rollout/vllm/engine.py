"""Knows the engine `vllm`: requests to calls and back, weight sync with a fingerprint, recovery of a dead engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cures_core.config.rollout import RolloutConfig, VllmRolloutConfig
from cures_core.errors import ConfigError, EngineFailed
from cures_core.rollout.stopping import StopRule, end_token_ids
from cures_core.rollout.vllm.calls import Generation
from cures_core.rollout.vllm.core import VllmCore
from cures_core.rollout.vllm.handover import Handover
from cures_core.rollout.vllm.probe import Floats, check_arrival, probe_ids, probe_logprobs
from cures_core.terms import Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CALL_ROLLOUTS = 256
"""Rollouts of one call: what is repeated where an engine dies."""

_log = logging.getLogger(__name__)


class VllmEngine:
    """Rollouts by vLLM in a child process, which holds a copy of the weights. See `RolloutEngine`.

    The rollouts of a group share the prefill of their prompt's whole cache blocks. A rollout's seed follows from the
    request's seed, the prompt and its index; float noise of batching may move a token that lies on a boundary.
    Greedy groups are generated once and copied.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cfg: VllmRolloutConfig) -> None:
        self.tokenizer, self.cfg = tokenizer, cfg
        self._handover = Handover(cfg.weights_folder)
        self._prints: tuple[Floats, Floats] | None = None
        self.gap = 0.0
        parameter = next(model.parameters())
        config = model.config.get_text_config(decoder=True)
        self._probe = probe_ids(int(config.vocab_size), min(32, int(config.max_position_embeddings) - 1))
        self._vocab = int(config.vocab_size)
        try:
            self._handover.put(model, tokenizer)
            dtype = str(parameter.dtype).removeprefix("torch.")
            self.core = VllmCore(cfg, self._handover.folder, dtype, parameter.device.type == "cuda")
            self._compare(model)
        except BaseException:
            self.close()
            raise
        self._ends = end_token_ids(model, tokenizer)
        self._stop = StopRule(tokenizer, self._ends, cfg.prompt_format.stop, self._vocab)

    def sync(self, model: PreTrainedModel) -> None:
        """Send the weights of `model` and compare fingerprints. An engine that dies of it is started with them."""
        self._load(self._handover.put(model, self.tokenizer))
        self._compare(model)

    def sleep(self) -> None:
        """Give back device memory until the next weights or requests, where `sleep_level` says so."""
        if self.cfg.sleep_level:
            self.core.sleep(self.cfg.sleep_level)

    def retune(self, cfg: RolloutConfig) -> None:
        """Sample as `cfg` says from now on. What the process was started with stays as it is."""
        if not isinstance(cfg, VllmRolloutConfig):
            raise ConfigError(f"rollout.type = {cfg.type!r} needs another engine than the running 'vllm'")
        if (cfg.top_p == 1) != (self.cfg.top_p == 1):
            raise ConfigError(
                "rollout.top_p = 1 and below 1 need different engines: which log-probabilities vLLM gives "
                "is fixed at its start"
            )
        self.cfg = cfg
        self._stop = StopRule(self.tokenizer, self._ends, cfg.prompt_format.stop, self._vocab)

    def _load(self, folder: Path) -> None:
        try:
            self.core.reload(folder)
        except Exception as error:  # whatever a reload raises, vLLM is not to be trusted after it
            _log.warning("vLLM did not take the weights (%s); starting it again with them", error)
            self.core.stop()
            self.core.start(folder)

    def _compare(self, model: PreTrainedModel) -> None:
        prints = probe_logprobs(model, self._probe), self.core.probe(self._probe)
        self.gap = check_arrival(*prints, self._prints, self.cfg.fingerprint_bound)
        self._prints = prints

    def generate(
        self, requests: Sequence[Request], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Rollout]]:
        """`request.n` rollouts for every request, in order; `progress(done, total)` counts rollouts.

        A dead engine is restarted with the same weights and only its open calls are repeated; `EngineFailed` after
        `max_restarts`. Raises `DataRejected` for a prompt that does not fit, before anything is generated.
        """
        generation = Generation(
            requests, self.tokenizer, self.cfg, self._stop, self.core.context, _CALL_ROLLOUTS, progress
        )
        if self.core.asleep:
            self._load(self._handover.folder)
        restarts = 0
        while generation.open:
            try:
                self.core.run(list(generation.open.values()), generation.record)
            except EngineFailed as error:
                restarts += 1
                if restarts > self.cfg.max_restarts:
                    raise EngineFailed(
                        f"{error}; {generation.done} of {generation.total} rollouts were done, "
                        f"{self.cfg.max_restarts} restarts did not help"
                    ) from error
                _log.warning(
                    "%s; restart %d, %d of %d rollouts kept", error, restarts, generation.done, generation.total
                )
                self.core.stop()
                self.core.start(self._handover.folder)
        return generation.rollouts

    def close(self) -> None:
        """End the engine's process and delete the handed-over weights."""
        if hasattr(self, "core"):
            self.core.stop()
        self._handover.close()
