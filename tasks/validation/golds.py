"""Knows which verifier vouches for the gold answers of which file: the run's, or a suite's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from cures_core.config.run import RunConfig
from cures_core.prompts.checks import GoldJudge
from cures_core.rewards import make_verifier


@contextmanager
def gold_judges(cfg: RunConfig) -> Iterator[tuple[GoldJudge, Mapping[str, GoldJudge]]]:
    """(the verifier of the prompt set and of most suites, those of the suites that are judged otherwise by name)."""
    with ExitStack() as stack:
        own: dict[str, GoldJudge] = {
            suite.name: stack.enter_context(make_verifier(suite.reward))
            for suite in cfg.evaluation.suites
            if suite.reward is not None
        }
        yield stack.enter_context(make_verifier(cfg.reward)), own
