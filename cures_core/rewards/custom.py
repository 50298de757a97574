"""Knows how a user's own function judges, named by a dotted path."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cures_core.config.rewards import CustomConfig
from cures_core.errors import ConfigError
from cures_core.plugins import load_plugin
from cures_core.rewards.valued import verdict_of
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict


class CustomVerifier(Verifier):
    """Asks `function(completion, gold)`: True, False, a number in 0..1, or None for `unknown`, as is an exception."""

    def __init__(self, cfg: CustomConfig) -> None:
        self._function, self._threshold = _load(cfg.function), cfg.threshold

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._verdict(completion, prompt.answer) for completion, prompt in items]

    def check_gold(self, answer: str) -> str | None:
        return None if answer.strip() else "empty"

    def same_answer(self, first: str, second: str) -> bool:
        """The same text, or the function takes one for a completion that the other makes right."""
        return super().same_answer(first, second) or any(
            self._verdict(*pair).outcome is Outcome.CORRECT for pair in ((first, second), (second, first))
        )

    def _verdict(self, completion: str, gold: str) -> Verdict:
        try:
            answer = self._function(completion, gold)
        except Exception as error:  # the plugin boundary: one bad completion must not end a training run
            return Verdict(Outcome.UNKNOWN, rule="custom", reason=type(error).__name__)
        return verdict_of(answer, self._threshold, "custom")


def _load(path: str) -> Callable[[str, str], object]:
    function = load_plugin(path, "reward.function")
    if not callable(function):
        raise ConfigError(f"reward.function {path!r} is a {type(function).__name__}, not a function")
    return function
