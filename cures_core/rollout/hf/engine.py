"""Knows the embedded engine: rollouts by a `transformers` causal LM in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cures_core.config.rollout import HfRolloutConfig, RolloutConfig
from cures_core.errors import ConfigError
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.decoding import Completion, Decoder, Job
from cures_core.rollout.prompting import encode_prompts
from cures_core.rollout.stopping import StopRule, end_token_ids
from cures_core.terms import Request, Rollout


class HfEngine:
    """Rollouts by the trainer's own model object: no second copy of the weights, nothing to transfer.

    Every prompt is prefilled once and its cache copied to the rows of its group; rows that end make room for the
    prompts that wait. `model` must be on `device` (None: where its first parameter is) and is never moved; its
    training mode is as before after every call.
    """

    def __init__(
        self, model: Any, tokenizer: Any, cfg: HfRolloutConfig, device: torch.device | str | None = None
    ) -> None:
        self.tokenizer, self.cfg = tokenizer, cfg
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        self.sync(model)

    def sync(self, model: Any) -> None:
        """Generate with `model` from now on. Its weights are read at every `generate`, not copied here."""
        self.lm = CausalLM(model, self.device)
        self.stop = StopRule(
            self.tokenizer, end_token_ids(model, self.tokenizer), self.cfg.prompt_format.stop, self.lm.vocab_size
        )

    def generate(
        self, requests: Sequence[Request], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Rollout]]:
        """`request.n` rollouts for every request, in order. `progress(done, total)` counts rollouts.

        Raises `DataRejected` for a prompt that does not fit, before anything is generated, and `TrainingDiverged` where
        the policy's log-probabilities are not finite.
        """
        jobs = self._jobs(requests)
        decoder = Decoder(self.lm, self.stop, self.cfg, jobs)
        with self.lm.evaluating():
            completions = decoder.run(progress)
        texts = self._texts(completions)
        result = []
        for request, job in zip(requests, jobs, strict=True):
            numbers = range(job.first, job.first + request.n)
            result.append([_rollout(request, job, n, completions[n], texts[n]) for n in numbers])
        return result

    def rest(self) -> None:
        """Nothing to give back: between calls there is no cache, and the weights are the trainer's."""

    def retune(self, cfg: RolloutConfig) -> None:
        if not isinstance(cfg, HfRolloutConfig):
            raise ConfigError(f"rollout.type = {cfg.type!r} needs another engine than the running 'hf'")
        self.cfg = cfg
        self.sync(self.lm.model)

    def close(self) -> None:
        """Nothing to release: the model belongs to its owner."""

    def _jobs(self, requests: Sequence[Request]) -> list[Job]:
        prompts = [request.prompt for request in requests]
        encoded = encode_prompts(prompts, self.tokenizer, self.cfg.prompt_format, self._prompt_limit())
        jobs, first = [], 0
        for request, prompt_ids in zip(requests, encoded, strict=True):
            identities = [(request.seed, request.prompt.id, index) for index in range(request.n)]
            jobs.append(Job(prompt_ids, identities, first))
            first += request.n
        return jobs

    def _prompt_limit(self) -> int | None:
        context = self.lm.context
        if context is not None and context <= self.cfg.max_new_tokens:
            raise ConfigError(
                f"rollout.max_new_tokens = {self.cfg.max_new_tokens} leaves no room for a prompt in the model's "
                f"context of {context} tokens. Lower it."
            )
        return None if context is None else context - self.cfg.max_new_tokens

    def _texts(self, completions: Sequence[Completion]) -> list[str]:
        """Texts of all completions; equal ones are decoded once."""
        undecoded = list(dict.fromkeys(c.token_ids for c in completions if c.text is None))
        decoded = dict(zip(undecoded, self.stop.text(undecoded), strict=True))
        return [decoded[c.token_ids] if c.text is None else c.text for c in completions]


def _rollout(request: Request, job: Job, number: int, completion: Completion, text: str) -> Rollout:
    return Rollout(
        request_id=request.id,
        index=number - job.first,
        prompt_ids=job.prompt_ids,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        text=text,
        finish_reason=completion.reason,
    )
