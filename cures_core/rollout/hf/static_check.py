"""Asks a model whether its rows can be decoded in fixed shapes."""

from __future__ import annotations

import numpy as np
import torch

from cures_core.config.rollout import HfRolloutConfig
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.kv_rows import Admission
from cures_core.rollout.hf.static_rows import StaticRows


def decodes_statically(lm: CausalLM) -> bool:
    """Does a step over rows of different lengths, each masked and positioned by itself, give what the model says of
    the whole text? Not where layers see a window, or where positions follow from the columns.

    Within `lm.evaluating()`. Costs three forward passes of a few tokens.
    """
    if not lm.full_attention:
        return False
    texts = [[1, 2, 3, 4, 2], [3, 1]]
    texts = [[token % lm.vocab_size for token in text] for text in texts]
    rows = StaticRows(len(texts), 8, 2, lm.device)
    rows.use(lm, HfRolloutConfig(max_new_tokens=2, temperature=0))
    slots, lengths = np.arange(len(texts)), np.array([len(text) - 1 for text in texts])
    prefix = lm.prefill([text[:-1] for text in texts])
    rows.place(Admission(slots, prefix, slots, lengths, np.zeros((len(texts), 2))))
    rows.tokens[:] = torch.tensor([text[-1] for text in texts], device=lm.device)
    try:
        stepped = rows.logits(len(texts), rows.columns)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False
    whole, before = lm.prefill(texts).logits.float(), prefix.logits.float()
    # As far apart as two ways to round, and not as two texts.
    far = (whole - before).abs().amax(dim=-1)
    return bool(((stepped.float() - whole).abs().amax(dim=-1) <= 1e-5 + 0.05 * far).all())
