"""Knows the embedded engine: rollouts by a `transformers` causal LM in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from cures_core.config.rollout import HfRolloutConfig, RolloutConfig
from cures_core.errors import ConfigError
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.decoding import Completion, Decoder, Job, Rows
from cures_core.rollout.hf.eager_rows import EagerRows
from cures_core.rollout.hf.static_check import decodes_statically
from cures_core.rollout.hf.static_rows import StaticRows
from cures_core.rollout.prompting import encode_prompts
from cures_core.rollout.room import prompt_room
from cures_core.rollout.stopping import StopRule, end_token_ids
from cures_core.rollout.thoughts import Thoughts
from cures_core.terms import Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_KEPT_SHARE = 1 / 8
"""Share of the device's memory that a static cache may hold while the trainer updates."""


class HfEngine:
    """Rollouts by the trainer's own model object: no second copy of the weights, nothing to transfer.

    Every prompt is prefilled once and its cache copied to the rows of its group; rows that end make room for the
    prompts that wait. `model` must be on `device` (None: where its first parameter is) and is never moved; its
    training mode is as before after every call.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        cfg: HfRolloutConfig,
        device: torch.device | str | None = None,
    ) -> None:
        self.tokenizer, self.cfg = tokenizer, cfg
        self.device = torch.device(device) if device is not None else next(model.parameters()).device
        self.static: StaticRows | None = None
        """What the last call decoded on in fixed shapes, kept for the next."""
        self._asked: tuple[Any, bool] | None = None
        self.sync(model)

    def sync(self, model: PreTrainedModel) -> None:
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
        with self.lm.evaluating():
            completions = Decoder(self.lm, self.stop, self.cfg, jobs, self._rows).run(progress)
        texts = self._texts(completions)
        thoughts, result = Thoughts(self.tokenizer, self.cfg.prompt_format), []
        for request, job in zip(requests, jobs, strict=True):
            numbers = range(job.first, job.first + request.n)
            result.append([thoughts.marked(_rollout(request, job, n, completions[n], texts[n])) for n in numbers])
        return result

    @property
    def kernels(self) -> dict[str, int]:
        """What the last call came to: was it in fixed shapes (`static`, 0 or 1), and how many are `captured`?"""
        return {
            "static": int(self.static is not None),
            "captured": self.static.graphs.captured if self.static is not None else 0,
        }

    def sleep(self) -> None:
        """Give a large static cache back. A small one stays, and with it the captured steps, which cost as much as
        several ordinary ones."""
        if self.static is not None and self.static.bytes > _device_bytes(self.device) * _KEPT_SHARE:
            self.static = None

    def retune(self, cfg: RolloutConfig) -> None:
        if not isinstance(cfg, HfRolloutConfig):
            raise ConfigError(f"rollout.type = {cfg.type!r} needs another engine than the running 'hf'")
        self.cfg = cfg
        self.sync(self.lm.model)

    def close(self) -> None:
        """Release the cache; the model belongs to its owner."""
        self.static = None

    def _rows(self, rows: int, columns: int) -> Rows:
        if not self._is_static():
            return EagerRows(self.lm, self.cfg, rows)
        if self.static is None or not self.static.serves(rows, columns, self.cfg.max_new_tokens):
            self.static = None  # first give back what there was
            self.static = StaticRows(rows, columns, self.cfg.max_new_tokens, self.device)
        self.static.use(self.lm, self.cfg)
        return self.static

    def _is_static(self) -> bool:
        """What `decoding` means for this model on this device; the model is asked once."""
        if self.cfg.decoding == "eager" or (self.cfg.decoding == "auto" and self.device.type != "cuda"):
            return False
        if self._asked is None or self._asked[0] is not self.lm.model:
            self._asked = (self.lm.model, decodes_statically(self.lm))
        if not self._asked[1] and self.cfg.decoding == "static":
            raise ConfigError(
                f"rollout.decoding = 'static': {type(self.lm.model).__name__} cannot be decoded so (its layers see a "
                "window only, or it does not take a mask and positions for every row). Use 'auto' or 'eager'."
            )
        return self._asked[1]

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
        return None if context is None else prompt_room(self.cfg, context)

    def _texts(self, completions: Sequence[Completion]) -> list[str]:
        """Texts of all completions; equal ones are decoded once."""
        undecoded = list(dict.fromkeys(c.token_ids for c in completions if c.text is None))
        decoded = dict(zip(undecoded, self.stop.text(undecoded), strict=True))
        return [decoded[c.token_ids] if c.text is None else c.text for c in completions]


def _device_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0


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
