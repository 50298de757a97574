"""Exact pass rates where only one completion is right: its probability, by one forward pass and without sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cures_core.config.rollout import PromptFormat
from cures_core.policy.loading import Policy
from cures_core.rollout.prompting import encode_prompts
from cures_core.terms import Prompt

_BATCH = 512


class ExactRates:
    """Pass rates of prompts whose only right completion is the gold answer, closed by the end token."""

    def __init__(self, policy: Policy, prompts: Sequence[Prompt]) -> None:
        self._policy = policy
        tokenizer = policy.tokenizer
        problems = encode_prompts(prompts, tokenizer, PromptFormat())
        answers = [tokenizer(p.answer)["input_ids"] for p in prompts]
        rows = [[*problem, *answer, tokenizer.eos_token_id] for problem, answer in zip(problems, answers, strict=True)]
        self._ids = np.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id, dtype=np.int64)
        self._answer = np.zeros(self._ids.shape, dtype=bool)
        for i, (row, problem) in enumerate(zip(rows, problems, strict=True)):
            self._ids[i, : len(row)] = row
            self._answer[i, len(problem) : len(row)] = True

    def measure(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """(pass rate at temperature 1, is the greedy completion right) of every prompt, under the current weights."""
        import torch

        model: Any = self._policy.model
        was_training = model.training
        model.eval()
        rates, greedy = [], []
        with torch.no_grad():
            for start in range(0, len(self._ids), _BATCH):
                ids = torch.from_numpy(self._ids[start : start + _BATCH]).to(self._policy.device)
                mask = torch.from_numpy(self._answer[start : start + _BATCH]).to(self._policy.device)[:, 1:]
                seen = (ids != self._policy.tokenizer.pad_token_id).long()
                logp = torch.log_softmax(model(input_ids=ids, attention_mask=seen).logits[:, :-1].float(), dim=-1)
                chosen = logp.gather(-1, ids[:, 1:, None]).squeeze(-1)
                rates.append(torch.exp(torch.where(mask, chosen, 0.0).sum(-1)).cpu().numpy())
                greedy.append(((logp.argmax(-1) == ids[:, 1:]) | ~mask).all(-1).cpu().numpy())
        model.train(was_training)
        return np.concatenate(rates).astype(np.float64), np.concatenate(greedy)
