"""When a changed prompt set is worth a new run."""

from __future__ import annotations

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Operation


class RetrainRule(Strict):
    """Retraining is due as soon as one of the three holds. Decides nothing about what a run computes."""

    min_prompts: Operation[int | None] = Field(default=100, ge=1)
    """Changed prompts (edited, new, removed) from which on it is due. None: their number does not matter."""
    min_share: Operation[float | None] = Field(default=0.01, gt=0, le=1)
    """Changed prompts as a share of the earlier set, from which on it is due. None: the share does not matter."""
    on_suites: Operation[bool] = True
    """Is it due when an evaluation suite has changed, since scores of old and new no longer compare?"""

    def reasons(self, changed: int, before: int, suites: tuple[str, ...]) -> list[str]:
        """Why retraining is due; empty where it is not. `before`: prompts of the earlier set."""
        found = []
        if self.min_prompts is not None and changed >= self.min_prompts:
            found.append(f"{changed} prompts changed, retrain.min_prompts is {self.min_prompts}")
        if self.min_share is not None and changed and changed >= self.min_share * before:
            found.append(f"{changed} of {before} prompts changed, retrain.min_share is {self.min_share:g}")
        if self.on_suites and suites:
            found.append(f"suites changed: {', '.join(suites)}")
        return found
