"""Knows the engine `vllm`: requests to calls and back, weight sync with a fingerprint, recovery of a dead engine."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cures_core.config.rollout import RolloutConfig, VllmRolloutConfig
from cures_core.errors import ConfigError, EngineFailed, TrainingDiverged
from cures_core.rollout.handover import Handover
from cures_core.rollout.probe import Floats, check_arrival, probe_ids, probe_logprobs
from cures_core.rollout.prompting import encode_prompts
from cures_core.rollout.stopping import StopRule, end_token_ids
from cures_core.rollout.vllm_core import VllmCore
from cures_core.terms import FinishReason, Request, Rollout

_CALL_ROLLOUTS = 256
"""Rollouts of one call: vLLM seeds rollout i of a call with seed + i, so calls can be cut anywhere."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Call:
    """`n` rollouts from index `first` of request number `number`."""

    number: int
    first: int
    n: int


class VllmEngine:
    """Rollouts by vLLM in a child process, which holds a copy of the weights. See `RolloutEngine`.

    The rollouts of a group share the prefill of their prompt's whole cache blocks. A rollout's seed follows from the
    request's seed, the prompt and its index; float noise of batching may move a token that lies on a boundary.
    Greedy groups are generated once and copied.
    """

    def __init__(self, model: Any, tokenizer: Any, cfg: VllmRolloutConfig) -> None:
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
        ends = end_token_ids(model, tokenizer)
        self._stop = StopRule(tokenizer, ends, cfg.prompt_format.stop, self._vocab)

    def sync(self, model: Any) -> None:
        """Send the weights of `model` and compare fingerprints. An engine that dies of it is started with them."""
        folder = self._handover.put(model, self.tokenizer)
        try:
            self.core.reload(folder)
        except Exception as error:  # whatever a reload raises, vLLM is not to be trusted after it
            _log.warning("vLLM did not take the new weights (%s); starting it again with them", error)
            self.core.stop()
            self.core.start(folder)
        self._compare(model)

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
        self._stop = StopRule(self.tokenizer, self._stop.end_ids, cfg.prompt_format.stop, self._vocab)

    def _compare(self, model: Any) -> None:
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
        prompts = encode_prompts(
            [r.prompt for r in requests], self.tokenizer, self.cfg.prompt_format, self._prompt_limit()
        )
        open_calls = {f"{c.number}-{c.first}": c for c in _calls(requests, self.cfg.greedy)}
        total, counted = sum(r.n for r in requests), 0
        rollouts: list[list[Rollout]] = [[] for _ in requests]

        def finished(name: str, output: Any) -> None:
            nonlocal counted
            call = open_calls.pop(name)
            made = self._rollouts(requests[call.number], prompts[call.number], call, output)
            rollouts[call.number] += made
            counted += len(made)
            if progress is not None:
                progress(counted, total)

        restarts = 0
        while open_calls:
            calls = {name: (prompts[c.number], self._fields(requests[c.number], c)) for name, c in open_calls.items()}
            try:
                self.core.run(calls, finished)
            except EngineFailed as error:
                restarts += 1
                if restarts > self.cfg.max_restarts:
                    raise EngineFailed(
                        f"{error}; {counted} of {total} rollouts were done, {self.cfg.max_restarts} restarts did not "
                        "help"
                    ) from error
                _log.warning("%s; restart %d, %d of %d rollouts kept", error, restarts, counted, total)
                self.core.stop()
                self.core.start(self._handover.folder)
        return [sorted(group, key=lambda r: r.index) for group in rollouts]

    def close(self) -> None:
        """End the engine's process and delete the handed-over weights."""
        if hasattr(self, "core"):
            self.core.stop()
        self._handover.close()

    def _fields(self, request: Request, call: _Call) -> dict[str, Any]:
        """Fields of vLLM's SamplingParams; the engine's own end tokens and defaults play no part."""
        strings = list(self._stop.strings)
        return {
            "n": 1 if self.cfg.greedy else call.n,
            "seed": _seed(request) + call.first,
            "temperature": self.cfg.temperature,
            "top_p": self.cfg.top_p,
            "max_tokens": self.cfg.max_new_tokens,
            "logprobs": 0,
            "ignore_eos": True,
            "stop_token_ids": self._stop.end_ids,
            "stop": strings or None,
            "detokenize": bool(strings),
        }

    def _rollouts(self, request: Request, prompt_ids: tuple[int, ...], call: _Call, output: Any) -> list[Rollout]:
        outputs = sorted(output.outputs, key=lambda o: o.index) * (call.n if self.cfg.greedy else 1)
        return [self._rollout(request, prompt_ids, call.first + i, made) for i, made in enumerate(outputs)]

    def _rollout(self, request: Request, prompt_ids: tuple[int, ...], index: int, made: Any) -> Rollout:
        token_ids = tuple(int(t) for t in made.token_ids)
        logprobs = tuple(float(row[t].logprob) for row, t in zip(made.logprobs, token_ids, strict=True))
        if not all(map(math.isfinite, logprobs)):
            raise TrainingDiverged(
                "rollout: the policy gives log-probabilities that are not finite. "
                "Its weights have diverged: go back to an earlier checkpoint and lower the learning rate."
            )
        if not self.cfg.logprobs_known:
            logprobs = (math.nan,) * len(token_ids)
        stopped = self._stop.cut(token_ids) if self._stop.strings else None
        return Rollout(
            request_id=request.id,
            index=index,
            prompt_ids=prompt_ids,
            token_ids=token_ids,
            logprobs=logprobs,
            text=self._stop.text([token_ids])[0] if stopped is None else stopped,
            finish_reason=FinishReason(made.finish_reason),
        )

    def _prompt_limit(self) -> int:
        context = self.core.context
        if context <= self.cfg.max_new_tokens:
            raise ConfigError(
                f"rollout.max_new_tokens = {self.cfg.max_new_tokens} leaves no room for a prompt in the engine's "
                f"context of {context} tokens. Lower it, or raise rollout.max_model_len."
            )
        return context - self.cfg.max_new_tokens


def _calls(requests: Sequence[Request], whole: bool) -> list[_Call]:
    calls = []
    for number, request in enumerate(requests):
        size = request.n if whole else _CALL_ROLLOUTS
        calls += [_Call(number, first, min(size, request.n - first)) for first in range(0, request.n, size or 1)]
    return calls


def _seed(request: Request) -> int:
    """Seed of rollout 0 of a request: 62 bits, which leave room for the index in vLLM's 63."""
    digest = hashlib.blake2b(f"{request.seed}\0{request.prompt.id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2
