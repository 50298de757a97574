"""Knows which verifier is responsible for a prompt: the one that its row names, else its source's, else the default."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from cures_core.config.rewards import BySourceConfig, PlainConfig
from cures_core.errors import ConfigError
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Verdict


class BySourceVerifier(Verifier):
    """Hands every completion to the verifier of its prompt. Equal configurations share one.

    The verifiers judge in turn: at any time no more processes are busy than the largest of them has workers.
    """

    def __init__(self, cfg: BySourceConfig, make: Callable[[PlainConfig], Verifier]) -> None:
        made: dict[str, Verifier] = {}

        def verifier(one: PlainConfig) -> Verifier:
            text = one.model_dump_json()
            if text not in made:
                made[text] = make(one)
            return made[text]

        self._default = verifier(cfg.default)
        self._by_name = {"default": self._default, **{e.called: verifier(e.verifier) for e in cfg.by_source}}
        self._by_source = {source: self._by_name[e.called] for e in cfg.by_source for source in e.sources}
        self._verifiers = list(made.values())

    def of(self, source: str, name: str) -> Verifier:
        if not name:
            return self._by_source.get(source, self._default)
        if name not in self._by_name:
            raise ConfigError(f"no verifier is called {name!r}; there are {', '.join(self._by_name)}")
        return self._by_name[name]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        places: defaultdict[Verifier, list[int]] = defaultdict(list)
        for i, (_, prompt) in enumerate(items):
            places[self.of(prompt.source, prompt.verifier)].append(i)
        verdicts = [
            (i, verdict)
            for verifier, own in places.items()
            for i, verdict in zip(own, verifier.judge([items[i] for i in own]), strict=True)
        ]
        return [verdict for _, verdict in sorted(verdicts, key=lambda found: found[0])]

    def check_gold(self, answer: str) -> str | None:
        """What the default says: of a row, ask the one that is responsible (`of`)."""
        return self._default.check_gold(answer)

    def same_answer(self, first: str, second: str) -> bool:
        return self._default.same_answer(first, second)

    def figures(self) -> dict[str, float]:
        told: defaultdict[str, float] = defaultdict(float)
        for verifier in self._verifiers:
            for name, value in verifier.figures().items():
                told[name] += value
        return dict(told)

    def close(self) -> None:
        for verifier in self._verifiers:
            verifier.close()
