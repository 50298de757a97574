"""Groups of rollouts for the tests of what is kept of them."""

from __future__ import annotations

from typing import Any

from cures_core.kept_rollouts.table import KeptRollout
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict


def group(
    prompt: str, outcomes: str = "cw", text: str = "It is 7.", problem: str = "3+4=", request: str = "", **of: str
) -> Group:
    """One group; `outcomes` has a letter a rollout: c, w or u."""
    request = request or f"r-{prompt}"
    meant = {"c": Outcome.CORRECT, "w": Outcome.WRONG, "u": Outcome.UNKNOWN}
    rollouts = [
        Rollout(request, i, (1, 2), (3, 4, 5), (-0.1, -0.2, -0.3), text, FinishReason.STOP)
        for i in range(len(outcomes))
    ]
    verdicts = [Verdict(meant[o], of.get("extracted", "7"), "box", of.get("reason", "same")) for o in outcomes]
    asked = Request(request, Prompt(prompt, problem, "7", "sums", "2"), len(outcomes), seed=1)
    return Group(asked, rollouts, verdicts)


def row(**other: Any) -> KeptRollout:
    """A kept rollout."""
    values: dict[str, Any] = {
        "epoch": 1,
        "step": 3,
        "prompt": "00ff" * 8,
        "source": "sums",
        "level": "2",
        "request": "r",
        "index": 0,
        "kept_for": "share",
        "problem": "3+4=",
        "answer": "7",
        "completion": "It is 7.",
        "outcome": "correct",
        "extracted": "7",
        "rule": "box",
        "reason": "same",
        "reward": 1.0,
        "advantage": 0.5,
        "tokens": 3,
        "finish_reason": "stop",
        "logprob_gap": 1e-6,
        "cut": 0,
        "withheld": False,
    }
    return KeptRollout(**{**values, **other})
