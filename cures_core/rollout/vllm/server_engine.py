"""Knows the engine `vllm_server`: the policy's weights and requests go to vLLM servers over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cures_core.config.rollout import RolloutConfig, VllmServerRolloutConfig
from cures_core.errors import ConfigError
from cures_core.rollout.stopping import StopRule, end_token_ids
from cures_core.rollout.vllm.calls import Generation
from cures_core.rollout.vllm.endpoint import Endpoint
from cures_core.rollout.vllm.fleet import Fleet, Member, check_logprobs
from cures_core.rollout.vllm.handover import Handover
from cures_core.rollout.vllm.local_server import LocalServer
from cures_core.rollout.vllm.probe import probe_ids, probe_logprobs
from cures_core.terms import Request, Rollout

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CALL_ROLLOUTS = 32
"""Rollouts of one call: what a failing server takes along, and what can be spread over several."""


class VllmServerEngine:
    """Rollouts by one or several vLLM servers, each with a copy of the weights. See `RolloutEngine`.

    A rollout's seed follows from the request's seed, the prompt and its index, whichever server makes it; float noise
    of batching may move a token that lies on a boundary.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cfg: VllmServerRolloutConfig
    ) -> None:
        self.tokenizer, self.cfg = tokenizer, cfg
        config = model.config.get_text_config(decoder=True)
        parameter = next(model.parameters())
        self._vocab = int(config.vocab_size)
        self._probe = probe_ids(self._vocab, min(32, int(config.max_position_embeddings) - 1))
        self._ends = end_token_ids(model, tokenizer)
        self._stop = StopRule(tokenizer, self._ends, cfg.prompt_format.stop, self._vocab)
        self._handover = Handover(cfg.weights_folder)
        self._runner = asyncio.Runner()
        self.fleet = Fleet(self._members(parameter), cfg, self._probe)
        try:
            self.sync(model)
        except BaseException:
            self.close()
            raise

    @property
    def gap(self) -> float:
        """Largest difference (nats) between trainer and servers on the fingerprint of the last weights."""
        return self.fleet.gap

    def sync(self, model: PreTrainedModel) -> None:
        """Send the weights of `model` to all servers and compare fingerprints."""
        folder = self._handover.put(model, self.tokenizer)
        self._runner.run(self.fleet.take(folder, probe_logprobs(model, self._probe)))

    def sleep(self) -> None:
        """Give back device memory until the next weights or requests, where `sleep_level` says so."""
        if self.cfg.sleep_level:
            self._runner.run(self.fleet.sleep(self.cfg.sleep_level))

    def retune(self, cfg: RolloutConfig) -> None:
        """Sample as `cfg` says from now on. The servers stay as they are."""
        if not isinstance(cfg, VllmServerRolloutConfig):
            raise ConfigError(f"rollout.type = {cfg.type!r} needs another engine than the running 'vllm_server'")
        for member in self.fleet.members:
            check_logprobs(member, cfg)
        self.cfg = self.fleet.cfg = cfg
        self._stop = StopRule(self.tokenizer, self._ends, cfg.prompt_format.stop, self._vocab)

    def generate(
        self, requests: Sequence[Request], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Rollout]]:
        """`request.n` rollouts for every request, in order; `progress(done, total)` counts rollouts.

        The calls of a server that fails are repeated on the others, or on itself when it is back with the weights.
        Raises `DataRejected` for a prompt that does not fit, before anything is generated.
        """
        context = min(served.context for served in self.fleet.served)
        generation = Generation(requests, self.tokenizer, self.cfg, self._stop, context, _CALL_ROLLOUTS, progress)
        self._runner.run(self.fleet.run(list(generation.open.values()), generation.record))
        return generation.rollouts

    def close(self) -> None:
        """Leave the servers, end those started here, and delete the handed-over weights."""
        try:
            self._runner.run(self.fleet.close())
        finally:
            self._runner.close()
            self._handover.close()

    def _members(self, parameter: torch.Tensor) -> list[Member]:
        connections = self.cfg.max_in_flight + 4
        if self.cfg.endpoints:
            return [Member(Endpoint(url, connections)) for url in self.cfg.endpoints]
        dtype, on_gpu = str(parameter.dtype).removeprefix("torch."), parameter.device.type == "cuda"
        process = LocalServer(self.cfg, dtype, on_gpu)
        return [Member(Endpoint(process.url, connections), process)]
