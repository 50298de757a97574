"""Knows when a completion ends: at an end token, or at the token that completes a stop string in the decoded text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_UNSEEN, _HARMLESS, _SUSPECT = -1, 0, 1


class StopRule:
    """End tokens and stop strings of one policy. `vocab_size` is the width of the policy's logits."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int], stop: Sequence[str], vocab_size: int
    ) -> None:
        self.tokenizer = tokenizer
        # A stop string that is one added token (such as <|im_end|>) is an end token: decoding would not show it.
        added = tokenizer.get_added_vocab()
        self.strings = tuple(s for s in stop if s not in added)
        self._ends: NDArray[np.bool_] = np.zeros(vocab_size, np.bool_)
        self._ends[[i for i in (*end_ids, *(added[s] for s in stop if s in added)) if i < vocab_size]] = True
        self._last_chars = frozenset(s[-1] for s in self.strings)
        # The piece of a token alone shows no space that the tokenizer puts between tokens: then suspect every token.
        any_token = any(c.isspace() and c != "\n" for c in self._last_chars)
        self._kind = np.full(vocab_size if self.strings else 0, _SUSPECT if any_token else _UNSEEN, np.int8)

    @property
    def end_ids(self) -> list[int]:
        """End tokens, added tokens among the stop strings included, ascending."""
        return [int(i) for i in np.flatnonzero(self._ends)]

    def is_end(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `tokens` are end-of-sequence tokens; same shape."""
        ends: NDArray[np.bool_] = self._ends[tokens]
        return ends

    def suspects(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `tokens` may complete a stop string. Only the completions that end in one need `cut`."""
        kinds = self._kind[tokens]
        if (kinds == _UNSEEN).any():
            for token in np.unique(tokens[kinds == _UNSEEN]):
                self._kind[token] = self._classify(int(token))
            kinds = self._kind[tokens]
        suspect: NDArray[np.bool_] = kinds == _SUSPECT
        return suspect

    def cut(self, token_ids: Sequence[int]) -> str | None:
        """The completion's text up to the first stop string, or None if it holds none."""
        text = self.text([token_ids])[0]
        places = [at for s in self.strings if (at := text.find(s)) >= 0]
        return text[: min(places)] if places else None

    def text(self, completions: Sequence[Sequence[int]]) -> list[str]:
        """Decoded completions without end tokens and other special tokens."""
        if not completions:  # the tokenizer would decode no completions to one empty text
            return []
        bare = [c[:-1] if len(c) and self._ends[c[-1]] else c for c in completions]
        decoded = self.tokenizer.batch_decode(
            [list(c) for c in bare], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [str(text) for text in decoded]

    def _classify(self, token: int) -> int:
        piece = self.text([[token]])[0]
        # U+FFFD: the token ends inside a character, which may be the last of a stop string.
        return _SUSPECT if "\ufffd" in piece or not self._last_chars.isdisjoint(piece) else _HARMLESS


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """End-of-sequence token ids of the model's generation config and of the tokenizer, ascending."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, (list, tuple)) else [configured]
    return sorted({int(i) for i in (*listed, tokenizer.eos_token_id) if i is not None})
